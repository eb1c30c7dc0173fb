"""Both sides of storage commitment in the sender, against pynetdicom: reports delivered, and `send --commit`."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.presentation import build_role

from benchmarks.processes import free_port
from ingest.contract.commitments import Finding, Found, Reference
from ingest.dimse.commitment_report import Report
from ingest.sender import AssociationFailed, Peer
from ingest.sender.commitment import commit, report
from ingest.sender.listener import listening
from tests.support.asynchronous import asynchronous, until
from tests.support.commitment_engine import Engine
from tests.support.memory_log import MemoryLog
from tests.support.reactor import leave_responses_to_their_senders
from tests.support.receiving import receiver
from tests.support.scu import COMMITMENT, COMMITMENT_INSTANCE, CT

CALLING = "DICOM-INGEST-SCU"
COMMITTED = [Found(CT, f"1.2.1.{number}", Finding.PROVED) for number in range(2000)]
FAILED = [Found(CT, "1.2.2.1", Finding.ABSENT), Found(CT, "1.2.2.2", Finding.CLASS_MISMATCH)]


# Reports of ours


@contextmanager
def modality(
    status: int = 0, *, role: bool = True, syntax: str = ExplicitVRLittleEndian, pdu: int = 16382
) -> Iterator[tuple[Peer, list[tuple[int, Dataset]]]]:
    """A pynetdicom entity that is reported to; ``role``: it accepts that we are SCP."""
    reports: list[tuple[int, Dataset]] = []

    def reported(event: Event) -> tuple[int, None]:
        assert event.event_type is not None
        reports.append((event.event_type, event.event_information))
        return status, None

    entity = AE("MODALITY")
    entity.maximum_pdu_size = pdu
    roles = {"scu_role": False, "scp_role": True} if role else {}
    entity.add_supported_context(COMMITMENT, [syntax], **roles)
    port = free_port()
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, reported)]
    )
    assert server is not None
    try:
        yield Peer("127.0.0.1", port, "MODALITY", "ARCHIVE", 20), reports
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=["explicit", "implicit"]
)
@pytest.mark.parametrize("pdu", [4096, 0])
@asynchronous
async def test_report_with_the_scp_role(syntax: str, pdu: int) -> None:
    """A peer that insists on roles takes it; every instance is in it, with its reason."""
    with modality(syntax=syntax, pdu=pdu) as (peer, reports):
        assert await report(peer, "2.25.7", COMMITTED, FAILED, "ARCHIVE", propose_role=True) == 0
        assert await report(peer, "2.25.8", COMMITTED[:1], [], "", propose_role=True) == 0
    (event_type, first), (other_type, second) = reports
    assert (event_type, other_type) == (2, 1)
    assert (first.TransactionUID, first.RetrieveAETitle) == ("2.25.7", "ARCHIVE")
    kept = [item.ReferencedSOPInstanceUID for item in first.ReferencedSOPSequence]
    assert kept == [each.sop_instance_uid for each in COMMITTED]
    failed = [(item.ReferencedSOPInstanceUID, item.FailureReason) for item in first.FailedSOPSequence]
    assert failed == [("1.2.2.1", 0x0112), ("1.2.2.2", 0x0119)]
    assert "FailedSOPSequence" not in second
    assert "RetrieveAETitle" not in second


@pytest.mark.parametrize("propose_role", [True, False])
@asynchronous
async def test_report_to_a_peer_that_knows_no_roles(propose_role: bool) -> None:
    """It accepts the context and answers nothing to the role: it gets the report all the same."""
    with modality(role=False) as (peer, reports):
        status = await report(peer, "2.25.7", COMMITTED, [], "", propose_role=propose_role)
    assert status == 0
    assert len(reports) == 1


@asynchronous
async def test_status_of_the_peer() -> None:
    """It is what the engine decides by."""
    with modality(0x0110) as (peer, _):
        assert await report(peer, "2.25.7", COMMITTED, [], "", propose_role=True) == 0x0110


@asynchronous
@pytest.mark.parametrize("host", ["modality..hospital.example", "a" * 64 + ".example", ".example"])
async def test_report_to_a_host_that_can_be_no_name(host: str) -> None:
    """It is tried again as to any that cannot be reached: the resolver refuses such a name with an error of its own."""
    with pytest.raises(AssociationFailed, match="cannot connect"):
        await report(Peer(host, 104, "MODALITY", CALLING), "1.2", COMMITTED, [], "", propose_role=True)


@asynchronous
async def test_report_that_cannot_be_delivered() -> None:
    """Nobody there, commitment not accepted, the role refused: each says so."""
    nobody = Peer("127.0.0.1", free_port(), "MODALITY", "ARCHIVE", 5)
    with pytest.raises(AssociationFailed, match="cannot connect"):
        await report(nobody, "2.25.7", COMMITTED, [], "", propose_role=True)
    with (
        modality(syntax="1.2.840.10008.1.2.2") as (peer, _),
        pytest.raises(AssociationFailed, match="not Storage Commitment"),
    ):
        await report(peer, "2.25.7", COMMITTED, [], "", propose_role=True)
    entity = AE("MODALITY")
    entity.add_supported_context(COMMITMENT, scu_role=False, scp_role=False)
    port = free_port()
    server = entity.start_server(("127.0.0.1", port), block=False)
    assert server is not None
    try:
        with pytest.raises(AssociationFailed, match=r"refused the SCP role|not Storage Commitment"):
            await report(
                Peer("127.0.0.1", port, "MODALITY", "ARCHIVE", 5),
                "2.25.7",
                COMMITTED,
                [],
                "",
                propose_role=True,
            )
    finally:
        server.shutdown()


@pytest.mark.parametrize("propose_role", [True, False])
@asynchronous
async def test_report_to_our_own_listener(propose_role: bool) -> None:
    """50,000 instances arrive as sent; the status that is given is the one that comes back."""
    received: list[Report] = []

    def took(arrived: Report) -> int:
        received.append(arrived)
        return 0x0110 if len(received) > 1 else 0

    references = [Reference(CT, f"1.2.3.{number}") for number in range(50_000)]
    found = [Found(each.sop_class_uid, each.sop_instance_uid, Finding.PROVED) for each in references]
    async with listening(("127.0.0.1", 0), "MODALITY", took, silence=20) as port:
        peer = Peer("127.0.0.1", port, "MODALITY", "ARCHIVE", 20)
        assert await report(peer, "2.25.7", found, FAILED, "", propose_role=propose_role) == 0
        assert await report(peer, "2.25.8", found[:1], [], "", propose_role=propose_role) == 0x0110
        with pytest.raises(AssociationFailed, match="called AE title not recognized"):
            await report(Peer("127.0.0.1", port, "OTHER", "A", 5), "1.2", found, [], "", propose_role=True)
    assert received[0].committed == references
    assert [each.reason for each in received[0].failed] == [0x0112, 0x0119]


# Our SCU with our SCP

REFERENCES = [Reference(CT, f"1.2.3.{number}") for number in range(20_000)]


@asynchronous
async def test_our_own_receiver_on_the_same_association() -> None:
    """20,000 instances asked for and reported, one of them absent."""
    engine = Engine()
    async with receiver(MemoryLog(), engine) as (port, _):
        peer = Peer("127.0.0.1", port, "DICOM-INGEST", CALLING, 20)
        asking = asyncio.create_task(commit(peer, REFERENCES, seconds=20))
        await until(lambda: bool(engine.asked))
        assert await engine.asked[0].report({"1.2.3.7": Finding.ABSENT}, "ARCHIVE") == 0
        outcome = await asking
    assert outcome.committed == [each for each in REFERENCES if each.sop_instance_uid != "1.2.3.7"]
    assert outcome.failed == [(Reference(CT, "1.2.3.7"), 0x0112)]
    assert (outcome.problem, outcome.unreported, outcome.retrieve_ae_title) == ("", {}, "ARCHIVE")


@asynchronous
async def test_our_own_receiver_on_a_new_association() -> None:
    """The association of the request is released, so the report goes where we listen."""
    engine = Engine()
    listen = ("127.0.0.1", free_port())
    async with receiver(MemoryLog(), engine) as (port, server):
        peer = Peer("127.0.0.1", port, "DICOM-INGEST", CALLING, 20)
        asking = asyncio.create_task(commit(peer, REFERENCES[:100], seconds=20, listen=listen))
        await until(lambda: bool(engine.asked))
        async with asyncio.timeout(60):
            await server.unused.wait()
        asked = engine.asked[0]
        assert await asked.report() is None
        found = [Found(CT, each.sop_instance_uid, Finding.PROVED) for each in asked.references]
        back = Peer(*listen, CALLING, "DICOM-INGEST", 20)
        assert await report(back, asked.transaction_uid, found, [], "", propose_role=True) == 0
        outcome = await asking
    assert outcome.committed == REFERENCES[:100]
    assert outcome.problem == ""


# `send --commit`

Answer = Callable[[Dataset], list[tuple[int, Dataset]]]


def answered(request: Dataset, *, absent: tuple[str, ...] = ()) -> list[tuple[int, Dataset]]:
    """One report of all that was asked for."""
    made = Dataset()
    made.TransactionUID = request.TransactionUID
    kept = [item for item in request.ReferencedSOPSequence if item.ReferencedSOPInstanceUID not in absent]
    failed = [item for item in request.ReferencedSOPSequence if item.ReferencedSOPInstanceUID in absent]
    for item in failed:
        item.FailureReason = 0x0112
    if kept:
        made.ReferencedSOPSequence = kept
    if failed:
        made.FailedSOPSequence = failed
    return [(2 if failed else 1, made)]


def in_two(request: Dataset) -> list[tuple[int, Dataset]]:
    """A report for each half, as peers do that take no more at a time; the second one twice."""
    items = list(request.ReferencedSOPSequence)
    reports = []
    for part in (items[:1], items[1:], items[1:]):
        half = Dataset()
        half.TransactionUID = request.TransactionUID
        half.ReferencedSOPSequence = part
        reports.append((1, half))
    return reports


class Archive:
    """A pynetdicom SCP of storage and commitment, which reports from a thread of its own."""

    def __init__(self, answer: Answer, *, report_to: int = 0, refuse: int = 0) -> None:
        self.port = free_port()
        self.statuses: list[int] = []
        self._answer = answer
        self._report_to = report_to
        self._refuse = refuse
        self._entity = AE("DICOM-INGEST")
        self._threads: list[threading.Thread] = []
        self._answered = threading.Event()

    def __enter__(self) -> Self:
        self._entity.add_supported_context(CT, ExplicitVRLittleEndian)
        self._entity.add_supported_context(COMMITMENT, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        handlers: list[EventHandlerType] = [
            (evt.EVT_C_STORE, lambda event: 0),
            (evt.EVT_N_ACTION, self._asked),
            (evt.EVT_PDU_SENT, lambda _: self._answered.set()),
        ]
        self._server = self._entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(60)
        assert self._server is not None
        self._server.shutdown()

    def _asked(self, event: Event) -> tuple[int, None]:
        if self._refuse:
            return self._refuse, None
        leave_responses_to_their_senders(event.assoc)
        self._answered.clear()
        reports = self._answer(event.action_information)
        target = self._report_elsewhere if self._report_to else self._report_here
        self._threads.append(threading.Thread(target=target, args=(event.assoc, reports)))
        self._threads[-1].start()
        return 0, None

    def _send(self, association: Association, reports: list[tuple[int, Dataset]]) -> None:
        for event_type, made in reports:
            status, _ = association.send_n_event_report(made, event_type, COMMITMENT, COMMITMENT_INSTANCE)
            self.statuses.append(int(status.Status))

    def _report_here(self, association: Association, reports: list[tuple[int, Dataset]]) -> None:
        assert self._answered.wait(60)  # pynetdicom has one message at a time
        self._send(association, reports)

    def _report_elsewhere(self, _: Association, reports: list[tuple[int, Dataset]]) -> None:
        entity = AE("DICOM-INGEST")
        entity.add_requested_context(COMMITMENT)
        association = entity.associate(
            "127.0.0.1",
            self._report_to,
            ae_title=CALLING,
            ext_neg=[build_role(COMMITMENT, scu_role=False, scp_role=True)],
        )
        assert association.is_established
        assert association.accepted_contexts[0].as_scp
        self._send(association, reports)
        association.release()


def send(folder: Path, port: int, *options: str) -> subprocess.CompletedProcess[str]:
    for number in range(3):
        data_set = Dataset()
        data_set.SOPClassUID = CT
        data_set.SOPInstanceUID = f"1.2.{number}"
        data_set.file_meta = FileMetaDataset()
        data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dcmwrite(folder / str(number), data_set, enforce_file_format=True)
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "ingest",
            "send",
            str(folder),
            "--to",
            f"127.0.0.1:{port}",
            "--commit",
            *options,
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same association", "new association"])
def test_send_and_commit(tmp_path: Path, elsewhere: bool) -> None:
    """All committed: exit code 0, and the counts in the document."""
    report_to = free_port() if elsewhere else 0
    listen = ("--listen", f"127.0.0.1:{report_to}") if elsewhere else ()
    with Archive(answered, report_to=report_to) as archive:
        done = send(tmp_path, archive.port, "--json", *listen)
    assert done.returncode == 0, done.stderr
    commitment = json.loads(done.stdout)["commitment"]
    assert (commitment["committed"], commitment["failed"], commitment["unreported"]) == (3, [], 0)
    assert commitment["transaction_uid"].startswith("2.25.")
    assert archive.statuses == [0]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same association", "new association"])
def test_send_and_some_not_committed(tmp_path: Path, elsewhere: bool) -> None:
    """A table for people: how many for which reason, the file by name, exit code 1."""
    report_to = free_port() if elsewhere else 0
    listen = ("--listen", f"127.0.0.1:{report_to}") if elsewhere else ()
    with Archive(lambda request: answered(request, absent=("1.2.1",)), report_to=report_to) as archive:
        done = send(tmp_path, archive.port, *listen)
    assert done.returncode == 1
    assert "committed" in done.stdout
    assert "0112H no such object instance" in done.stdout
    assert f"not committed: {tmp_path}/1: 0112H no such object instance" in done.stderr


def test_send_and_commit_in_parts(tmp_path: Path) -> None:
    """Reports of parts add up; one that is repeated is answered with success and counts once."""
    port = free_port()
    with Archive(in_two, report_to=port) as archive:
        done = send(tmp_path, archive.port, "--json", "--listen", f"127.0.0.1:{port}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["commitment"]["committed"] == 3
    assert archive.statuses == [0, 0, 0]


def of_another(request: Dataset) -> list[tuple[int, Dataset]]:
    request.TransactionUID = "1.2.3"
    return answered(request)


def of_fewer(request: Dataset) -> list[tuple[int, Dataset]]:
    del request.ReferencedSOPSequence[0]
    request.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.99"
    return answered(request)


@pytest.mark.parametrize(
    ("answer", "refuse", "seconds", "problem", "unreported"),
    [
        (lambda request: [], 0, 2, "no report of all within 2 s", 3),
        (of_another, 0, 2, "no report of all within 2 s", 3),
        # In which a report does come, however busy the machine is.
        (of_fewer, 0, 10, "no report of all within 10 s", 2),
        (answered, 0x0213, 120, "refused the request for commitment: 0213H", 3),
    ],
    ids=["none", "another transaction's", "of other instances", "refused"],
)
def test_no_report(
    tmp_path: Path, *, answer: Answer, refuse: int, seconds: int, problem: str, unreported: int
) -> None:
    """Without a word about every instance the exit code is 1, with what is missing and why."""
    with Archive(answer, refuse=refuse) as archive:
        done = send(tmp_path, archive.port, "--json", "--commit-timeout", str(seconds))
    assert done.returncode == 1
    commitment = json.loads(done.stdout)["commitment"]
    assert commitment["unreported"] == unreported
    assert problem in commitment["problem"]
    assert commitment["failed"] == []


def test_listen_without_commit(tmp_path: Path) -> None:
    """Options that do nothing are a mistake."""
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "send", str(tmp_path), "--listen", "127.0.0.1:1"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "--listen goes with --commit" in done.stderr


def test_address_that_is_taken(tmp_path: Path) -> None:
    """One line says what cannot be done."""
    with Archive(answered) as archive:
        done = send(tmp_path, archive.port, "--listen", f"127.0.0.1:{archive.port}")
    assert done.returncode == 1
    assert "cannot listen for the report" in done.stderr
