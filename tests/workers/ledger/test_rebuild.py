"""A ledger made anew equals the one that was kept: of logs and stores, or, but for what leaves no trace, of stores alone."""

import asyncio
import shutil
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from ingest.contract.commitments import Finding
from ingest.contract.records import Outcome, Place
from ingest.contract.spool.errors import SpoolMismatch
from tests.support.command import run
from tests.support.datasets import data_set_bytes
from tests.support.ledger_runs import announcing, live, rebuilt
from tests.support.ledgers import fates, outcome, rows, settings_of
from tests.support.placing import CORPUS, CT
from tests.workers.ledger.test_ledger import Transaction, recorded
from workers.ledger.consumer import logs_of
from workers.ledger.database import open_database
from workers.ledger.ledger import Ledger
from workers.ledger.logs import Batch
from workers.ledger.rebuild import rebuild
from workers.storage.stores import open_stores

OTHER = data_set_bytes(CT).replace(b"CompressedSamples^CT1", b"CompressedSamples^CT2")
THIRD = data_set_bytes(CT).replace(b"CompressedSamples^CT1", b"CompressedSamples^CT3")
MR = CORPUS / "RLELossless_MR_small_RLE.dcm"
UID = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
OTHER_UID = UID[:-1] + "3"
DEFLATED = "1.2.840.10008.1.2.1.99"


def deflated() -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data_set_bytes(CT).replace(UID.encode(), OTHER_UID.encode())) + deflater.flush()


def fill(data: Path) -> None:
    """Stored, duplicates, conflicts, quarantine, their repeats; moved by an administrator, damaged and repaired."""

    async def first() -> None:
        async with announcing(data) as pipeline:
            one = pipeline.one
            outcomes = [
                await one.file(CT),
                await one.file(CT, calling_ae_title="CONSOLE"),
                await one.data_set(OTHER, CT, calling_ae_title="CONSOLE"),
                await one.data_set(OTHER, CT),
                await one.data_set(THIRD, CT),
                await one.data_set(data_set_bytes(MR)[:400], MR),
                await one.data_set(data_set_bytes(MR)[:400], MR, calling_ae_title="CONSOLE"),
                await one.data_set(data_set_bytes(MR)[:500], MR),
                await one.file(MR),
                await one.data_set(deflated(), CT, transfer_syntax_uid=DEFLATED, sop_instance_uid=OTHER_UID),
            ]
            assert {outcome.place for outcome in outcomes} == set(Place) - {Place.DISCARDED}
            await pipeline.announce(*outcomes)

    asyncio.run(first())


def administer(data: Path) -> None:
    """Discard an entry of quarantine, and prefer another content."""
    for entry in run(data, "quarantine", "list", "--json").json:
        if entry["size"] < 3000 and not entry["repeats"]:
            assert run(data, "quarantine", "discard", entry["key"], "--reason", "ZZREASON").code == 0
            break
    (entry, *_) = run(data, "conflicts", "list", "--json").json
    uid, digest = entry["sop_instance_uid"], entry["source_digest"]
    assert run(data, "conflicts", "resolve", uid, "--prefer", digest, "--reason", "ZZREASON").code == 0


def spoil(data: Path) -> None:
    """Damage an object, and let `verify` set it aside."""
    (path,) = (data / "store").glob(f"???/{run_uid(MR)}.dcm")
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(whole)
    assert run(data, "verify").code == 1


def run_uid(path: Path) -> str:
    import pydicom  # noqa: PLC0415

    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def test_a_rebuilt_ledger_is_the_one_that_was_kept(tmp_path: Path, database: str) -> None:
    """First with the logs, whole; then without them: all but duplicates, and of what was discarded its end."""
    fill(tmp_path)
    settings = settings_of(tmp_path, database)
    ledger = live(settings)
    kept = fates(ledger)
    assert len(kept) == 10
    administer(tmp_path)
    spoil(tmp_path)
    ledger.close()
    ledger = live(settings)
    kept = fates(ledger)
    assert {row["place"] for row in kept} == set(Place)
    assert sum(row["moved_from"] != "" for row in kept) >= 4
    alarms, relations = (rows(ledger, f"SELECT * FROM {name}") for name in ("alarms", "relations"))

    found = rebuilt(settings, ledger)
    assert found.records == 10
    assert found.unreadable == 0
    assert fates(ledger) == kept
    assert rows(ledger, "SELECT * FROM alarms") == alarms
    assert sorted(map(str, rows(ledger, "SELECT * FROM relations"))) == sorted(map(str, relations))
    assert ledger.positions()

    shutil.rmtree(tmp_path / "outcomes")
    found = rebuilt(settings, ledger)
    assert found.records == 0
    again = {row["upload_id"]: row for row in fates(ledger)}
    for row in kept:
        if row["place"] == Place.DUPLICATE and not row["moved_from"]:
            assert row["upload_id"] not in again
        elif row["place"] in (Place.DUPLICATE, Place.DISCARDED):
            told = again[row["upload_id"]]
            for column in ("sop_instance_uid", "place", "moved_from", "key"):
                assert told[column] == row[column]
        else:
            assert again[row["upload_id"]] == row
    assert "ZZREASON" not in str(rows(ledger, "SELECT * FROM fates, moves"))
    ledger.close()


def test_a_rebuild_that_fails_changes_nothing(tmp_path: Path) -> None:
    """Others see the old ledger until the new one is whole."""
    fill(tmp_path)
    settings = settings_of(tmp_path, "")
    ledger = live(settings)
    kept, positions = fates(ledger), ledger.positions()
    meta = tmp_path / "outcomes" / "0" / "meta.json"
    whole = meta.read_bytes()
    meta.write_bytes(b"{}")  # of another release
    with pytest.raises(SpoolMismatch):
        rebuilt(settings, ledger)
    assert (fates(ledger), ledger.positions()) == (kept, positions)
    meta.write_bytes(whole)
    rebuilt(settings, ledger)
    assert fates(ledger) == kept
    ledger.close()


def test_others_write_while_stores_are_read(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That may take hours: the ledger's process goes on, and what it enters meanwhile stays, though no store tells of it."""
    monkeypatch.setattr("workers.ledger.rebuild._ROWS", 2)
    monkeypatch.setattr("workers.ledger.database._BUSY", 1.0)
    fill(tmp_path)
    settings = settings_of(tmp_path, database)
    ledger = live(settings)
    kept = fates(ledger)
    late: list[Outcome] = []

    def meanwhile(objects: int) -> None:
        late.append(
            outcome(90 + objects, at=time.time_ns(), place=Place.DUPLICATE, patient=f"{objects:032x}")
        )
        record = recorded(late[-1], 90 + objects)
        with closing(Ledger(open_database(settings))) as other:
            assert other.take(Batch("gone", len(late) - 1, len(late), [record]))

    with (
        open_stores(settings.store_locations, settings.store) as stores,
        closing(logs_of(settings)) as logs,
    ):
        asyncio.run(rebuild(ledger.engine, logs, stores, settings, meanwhile))
    assert len(late) >= 2
    again = fates(ledger)
    assert [row for row in again if row in kept] == kept
    assert len(again) == len(kept) + len(late)
    # Of two patients: what is entered meanwhile is held against others, too.
    assert {row["uid"] for row in rows(ledger, "SELECT uid FROM alarms")} >= {late[0].study_instance_uid}
    ledger.close()


def test_what_is_moved_while_stores_are_read_is_known_as_before(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of a lane that is still to be read, to where all was read: no store tells of it, and no log any more."""
    monkeypatch.setattr("workers.ledger.rebuild._ROWS", 2)
    fill(tmp_path)
    settings = settings_of(tmp_path, database)
    live(settings).close()
    shutil.rmtree(tmp_path / "outcomes")
    ledger = live(settings)
    (entry, *_) = run(tmp_path, "conflicts", "list", "--json").json
    resolved: list[int] = []

    def meanwhile(objects: int) -> None:
        if not resolved:
            resolved.append(objects)
            uid, digest = entry["sop_instance_uid"], entry["source_digest"]
            command = ("conflicts", "resolve", uid, "--prefer", digest, "--reason", "r")
            with ThreadPoolExecutor() as threads:  # it has an event loop of its own
                assert threads.submit(run, tmp_path, *command).result().code == 0

    with (
        open_stores(settings.store_locations, settings.store) as stores,
        closing(logs_of(settings)) as logs,
    ):
        asyncio.run(rebuild(ledger.engine, logs, stores, settings, meanwhile))
    again = fates(ledger)
    ledger.close()
    ledger = live(settings)
    assert resolved
    (moved,) = [row for row in again if row["place"] == "stored" and row["moved_from"] == "conflict"]
    assert moved["study_instance_uid"]
    assert moved["received_at"]
    assert fates(ledger) == again
    ledger.close()


def test_what_was_committed_stays_committed(tmp_path: Path, database: str) -> None:
    """Though its report has left the log: nothing else tells of it."""
    fill(tmp_path)
    settings = settings_of(tmp_path, database)
    with closing(live(settings)) as ledger:
        transaction = Transaction(ledger, UID)
        transaction.accept()
        transaction.prove({UID: Finding.PROVED})
        transaction.decide()
        kept = fates(ledger)
        assert {row["place"] for row in kept if row["committed"]} == {"stored", "duplicate"}
        rebuilt(settings, ledger)
        assert fates(ledger) == kept


def test_who_asks_waits_for_nobody_who_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`find` and `report` open the ledger as a rebuild is under way."""
    monkeypatch.setattr("workers.ledger.database._BUSY", 1.0)
    fill(tmp_path)
    ledger = live(settings_of(tmp_path, ""))
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM relations")
        found = run(tmp_path, "find", "--sop", UID)
    assert (found.code, "stored" in found.out) == (0, True), found.err
    ledger.close()


def test_what_the_logs_have_told_is_not_told_again(tmp_path: Path) -> None:
    """A source has been given an issuer since: of what is in the log the hash stays, and raises no false alarm."""
    fill(tmp_path)
    settings = settings_of(tmp_path, "")
    ledger = live(settings)
    kept, relations = fates(ledger), rows(ledger, "SELECT * FROM relations ORDER BY kind, uid, scope, other")
    given = settings_of(tmp_path, "", sources={"modality": {"ae_titles": ["MODALITY"], "issuer": "NORTH"}})
    rebuilt(given, ledger)
    assert fates(ledger) == kept
    assert rows(ledger, "SELECT * FROM relations ORDER BY kind, uid, scope, other") == relations
    ledger.close()


def test_the_command_says_of_what_it_was_made(tmp_path: Path) -> None:
    """And works beside a ledger that is open."""
    fill(tmp_path)
    ledger = live(settings_of(tmp_path, ""))
    done = run(tmp_path, "ledger", "rebuild")
    assert done.code == 0
    assert done.out.startswith("10 records of the logs, ")
    assert len(fates(ledger)) == 10
    ledger.close()
