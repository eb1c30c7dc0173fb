"""Where an instance, or each of a study, an examination or a patient, is: stored, set apart or on its way, and committed."""

from collections.abc import Iterator, Sequence

import click
import msgspec

from ingest.contract.command_columns import aligned
from ingest.contract.command_folder import warn_of_no_data
from ingest.contract.command_options import data_settings, json_option
from ingest.contract.identifiers import InvalidIdentifier
from ingest.contract.monitoring.sources import OTHER, Sources
from ingest.contract.pseudonyms import Pseudonyms
from ingest.contract.records import Place
from ingest.contract.settings import Settings
from workers.cli.backlog import Completed
from workers.cli.ledger_book import clear_ledger_failures, opened_ledger
from workers.cli.opened import checked_text, checked_uid, has_stores, opened_stores, print_json, time_text
from workers.cli.waiting import waiting_uploads
from workers.dataset.subject import Subject
from workers.errors import Reason
from workers.ledger.ledger import Ledger
from workers.ledger.questions import (
    Fate,
    Row,
    of_accession,
    of_instance,
    of_patient,
    of_study,
    unconfigured_ae_titles,
)
from workers.storage.layout import parse_key
from workers.storage.stores import Stores

_HEADINGS = ("SOP Instance UID", "place", "committed", "source", "received (UTC)", "bytes", "where")
WAITING = "waiting"  # received, and not yet at a place


def _significant(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A value of LO or SH as the ledger has it: spaces around it are not significant (PS3.5 6.2).

    Raises:
        click.BadParameter: see `checked_text`.
    """
    text = checked_text(context, parameter, value)
    return None if text is None else text.strip(" ")


@click.command()
@click.option("--sop", callback=checked_uid, metavar="UID", help="SOP Instance UID.")
@click.option("--study", callback=checked_uid, metavar="UID", help="Study Instance UID.")
@click.option("--accession", callback=_significant, metavar="N", help="Accession Number.")
@click.option("--patient", callback=_significant, metavar="ID", help="Patient ID.")
@click.option(
    "--issuer",
    callback=_significant,
    metavar="NAME",
    help="Of the Patient ID, (0010,0021); else all that it can be within.",
)
@data_settings
@json_option
def find(
    settings: Settings,
    *,
    sop: str | None,
    study: str | None,
    accession: str | None,
    patient: str | None,
    issuer: str | None,
    as_json: bool,
) -> None:
    """Where an instance, or each of a study, an examination or a patient, is: stored, set apart or on its way, and committed.

    One of --sop, --study, --accession and --patient. Numbers are looked for by their keyed hashes; one number of two hospitals
    is two people, told apart by what it was found within. Exit code 1 where nothing is found.
    """
    if [sop, study, accession, patient].count(None) != 3:  # noqa: PLR2004 - one of four
        raise click.UsageError("give one of --sop, --study, --accession and --patient")
    if "" in (accession, patient):  # a script's variable that is not set, and no question
        raise click.UsageError("--accession and --patient want a number")
    if issuer is not None and patient is None:
        raise click.UsageError("--issuer goes with --patient")
    if warn_of_no_data(settings):  # a ledger is not begun for a question
        raise click.exceptions.Exit(1)
    with clear_ledger_failures(settings):
        asked = _Question(
            settings,
            sop=sop or "",
            study=study or "",
            accession=accession or "",
            patient=patient or "",
            issuer=issuer or "",
        )
        # First: what is placed from now on is in the log below.
        waiting = waiting_uploads(settings, subjects=True)
        with opened_ledger(settings) as ledger:
            fates = asked.answer(ledger, waiting)
        if fates and has_stores(settings):
            with opened_stores(settings) as stores:
                fates = [_located(fate, stores) for fate in fates]
    if as_json:
        print_json(fates)
    else:
        _print(fates)
    if not fates:
        raise click.exceptions.Exit(1)


class _Question:
    """One of the four."""

    def __init__(
        self, settings: Settings, *, sop: str, study: str, accession: str, patient: str, issuer: str
    ) -> None:
        self._sop = sop
        self._study, self._accession, self._patient, self._issuer = study, accession, patient, issuer
        self._pseudonyms = Pseudonyms(settings)
        self._sources = Sources(settings)
        self._within: dict[str, str] = {}  # by keyed hash

    def answer(self, ledger: Ledger, waiting: Sequence[Completed]) -> list[Fate]:
        """Everything in the ledger and in the log."""
        rows = self._rows(ledger, waiting)
        known = {row.upload_id for row in rows}
        # Not what an unknown source claims, as in `of_patient`.
        told = [row for row in rows if row.reason != Reason.UNKNOWN_SOURCE]
        studies = {row.study_instance_uid for row in told if row.study_instance_uid}
        return [
            *(self._fate(row) for row in rows),
            *(
                self._waiting(upload)
                for upload in waiting
                if upload.upload_id.hex() not in known and self._is_asked_for(upload, studies)
            ),
        ]

    def _rows(self, ledger: Ledger, waiting: Sequence[Completed]) -> list[Row]:
        if self._sop:
            return of_instance(ledger, self._sop)
        if self._study:
            return of_study(ledger, self._study)
        titles = unconfigured_ae_titles(ledger)
        titles += [upload.instance.calling_ae_title for upload in waiting if upload.instance is not None]
        if self._accession:
            self._within = self._pseudonyms.accessions(self._accession, titles)
            return of_accession(ledger, list(self._within))
        patients = self._pseudonyms.patients(self._patient, self._issuer, titles)
        self._within = {patient.digest: within for patient, within in patients.items()}
        return of_patient(ledger, list(self._within))

    def _is_asked_for(self, upload: Completed, studies: set[str]) -> bool:
        if self._sop:
            return upload.instance is not None and upload.instance.sop_instance_uid == self._sop
        subject = upload.subject or Subject()
        if self._study:
            return subject.study_instance_uid == self._study
        return bool(self._digests(upload, subject) & self._within.keys()) or (
            bool(self._patient) and subject.study_instance_uid in studies
        )

    def _digests(self, upload: Completed, subject: Subject) -> set[str]:
        title = "" if upload.instance is None else upload.instance.calling_ae_title
        if self._accession:
            return {self._pseudonyms.accession(subject.accession_number, title)} - {""}
        return {self._pseudonyms.patient(subject.patient_id, subject.issuer, title).digest} - {""}

    def _fate(self, row: Row) -> Fate:
        return Fate(
            sop_instance_uid=row.sop_instance_uid,
            study_instance_uid=row.study_instance_uid,
            series_instance_uid=row.series_instance_uid,
            source=row.source or OTHER,
            calling_ae_title=row.calling_ae_title,
            received_at=time_text(row.received_at) if row.received_at else "",
            bytes=row.size,
            place=row.place,
            reason=row.reason,
            moved_from=row.moved_from,
            committed=bool(row.committed),
            store=row.store,
            shard=_shard(row.key),
            key=row.key,
            patient_within=self._within.get(row.accession if self._accession else row.patient, ""),
            upload_id=row.upload_id,
        )

    def _waiting(self, upload: Completed) -> Fate:
        instance, subject = upload.instance, upload.subject or Subject()
        assert instance is not None
        within = {self._within[digest] for digest in self._digests(upload, subject) & self._within.keys()}
        return Fate(
            sop_instance_uid=instance.sop_instance_uid,
            study_instance_uid=subject.study_instance_uid,
            series_instance_uid=subject.series_instance_uid,
            source=self._sources.of(instance.calling_ae_title),
            calling_ae_title=instance.calling_ae_title,
            received_at=time_text(instance.received_at),
            bytes=instance.size,
            place=WAITING,
            patient_within=next(iter(within), ""),
            upload_id=upload.upload_id.hex(),
        )


def _shard(key: str) -> str:
    try:
        return parse_key(key).shard
    except InvalidIdentifier:
        return ""


def _located(fate: Fate, stores: Stores) -> Fate:
    """With the store that has its shard now, which `shards rebalance` may have changed, and the path there, if it is there."""
    if not fate.shard or fate.place == Place.DISCARDED:
        return fate
    key = parse_key(fate.key)
    store = stores.of(key)
    return msgspec.structs.replace(fate, store=store.name, path=store.locate(key))


def _print(fates: Sequence[Fate]) -> None:
    if not fates:
        click.echo("nothing is known of it")
        return
    click.echo("\n".join(_summary(fates)))
    rows = [
        [
            fate.sop_instance_uid,
            _place(fate),
            "committed" if fate.committed else "-",
            fate.source if fate.source != OTHER else fate.calling_ae_title,
            fate.received_at,
            str(fate.bytes),
            "-" if fate.place == Place.DISCARDED else fate.path or fate.key,
        ]
        for fate in fates
    ]
    click.echo("\n".join(aligned([_HEADINGS, *rows])))


def _place(fate: Fate) -> str:
    """With why it is there: the reason, or that it was elsewhere until an administrator or a repair moved it."""
    why = f"was {fate.moved_from}" if fate.moved_from else fate.reason
    return f"{fate.place} ({why})" if why else fate.place


def _summary(fates: Sequence[Fate]) -> Iterator[str]:
    """A line for each study, and within what it was found where that differs."""
    studies: dict[tuple[str, str], list[Fate]] = {}
    for fate in fates:
        studies.setdefault((fate.study_instance_uid, fate.patient_within), []).append(fate)
    for (study, within), of_it in studies.items():
        places: dict[str, int] = {}
        for fate in of_it:
            places[fate.place] = places.get(fate.place, 0) + 1
        committed = sum(fate.committed and fate.place == "stored" for fate in of_it)
        counts = ", ".join(f"{count} {place}" for place, count in places.items())
        found_within = f"; found within {within}" if within else ""
        yield f"study {study or '(not told)'}: {counts}, {committed} committed{found_within}"
