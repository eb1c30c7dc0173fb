"""Storage commitment with pynetdicom as SCU, reported on the association that asked (PS3.4 J.3.3)."""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import build_role

from ingest.contract.commitments import Finding
from tests.support.asynchronous import until
from tests.support.commitment_engine import Engine
from tests.support.console import request_of
from tests.support.memory_log import MemoryLog
from tests.support.reactor import leave_responses_to_their_senders
from tests.support.receiving import receiver, run
from tests.support.scu import COMMITMENT, COMMITMENT_INSTANCE, CT

UIDS = [f"1.2.826.0.1.{number}" for number in range(300)]


class Modality:
    """An SCU in threads of its own: its calls block, so the test makes them aside."""

    def __init__(self, syntax: str, *, role: bool, status: int = 0) -> None:
        self.reports: queue.Queue[tuple[int, Dataset]] = queue.Queue()
        self._status = status
        self._entity = AE("MODALITY")
        self._entity.add_requested_context(COMMITMENT, syntax)
        self._entity.add_requested_context(CT, ExplicitVRLittleEndian)
        self._role = role
        self.answered = threading.Event()  # its response has been received

    def _reported(self, event: Event) -> tuple[int, None]:
        assert event.event_type is not None
        self.reports.put((event.event_type, event.event_information))
        return self._status, None

    @contextmanager
    def association(self, port: int) -> Iterator[Association]:
        association = self._entity.associate(
            "127.0.0.1",
            port,
            ae_title="DICOM-INGEST",
            ext_neg=[build_role(COMMITMENT, scu_role=True, scp_role=False)] if self._role else [],
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._reported)],
        )
        assert association.is_established
        leave_responses_to_their_senders(association)
        try:
            yield association
            # A release may overtake the response that pynetdicom sends from another thread.
            assert self.answered.wait(60)
        finally:
            association.release()


def without_transaction() -> Dataset:
    request = request_of(UIDS, "1.2.3.4")
    del request.TransactionUID
    return request


def with_modality(modality: Modality, engine: Engine, work: Callable[[Association], None]) -> None:
    """``work`` in a thread, on an association with a receiver that reports whatever it was asked at once."""

    async def scenario() -> None:
        async with receiver(MemoryLog(), engine) as (port, server):

            def associated() -> None:
                with modality.association(port) as association:
                    work(association)

            working = asyncio.create_task(asyncio.to_thread(associated))
            await until(lambda: bool(engine.asked) or working.done())
            if not working.done():
                status = await engine.asked[0].report(
                    {UIDS[7]: Finding.ABSENT, UIDS[8]: Finding.CLASS_MISMATCH}
                )
                modality.answered.set()
                assert status == modality._status
            await working
            async with asyncio.timeout(60):
                await server.unused.wait()

    run(scenario())


@pytest.mark.parametrize("role", [True, False], ids=["role proposed", "default roles"])
@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=["explicit", "implicit"]
)
def test_request_and_report(syntax: str, role: bool) -> None:
    """pynetdicom asks, gets its response, then the report; what it says is what was found."""
    modality, engine = Modality(syntax, role=role), Engine()

    def work(association: Association) -> None:
        status, reply = association.send_n_action(
            request_of(UIDS, "1.2.3.4"), 1, COMMITMENT, COMMITMENT_INSTANCE
        )
        assert status.Status == 0
        assert not reply
        event_type, report = modality.reports.get(timeout=60)
        assert event_type == 2
        assert report.TransactionUID == "1.2.3.4"
        assert "RetrieveAETitle" not in report
        failed = {item.ReferencedSOPInstanceUID: item.FailureReason for item in report.FailedSOPSequence}
        assert failed == {UIDS[7]: 0x0112, UIDS[8]: 0x0119}
        kept = {item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence}
        assert kept == set(UIDS) - set(failed)

    with_modality(modality, engine, work)
    (asked,) = engine.asked
    assert [each.sop_instance_uid for each in asked.references] == UIDS
    assert asked.calling_ae_title == "MODALITY"


def test_report_that_the_peer_does_not_take() -> None:
    """Its status reaches the engine."""
    modality = Modality(ExplicitVRLittleEndian, role=True, status=0x0110)

    def work(association: Association) -> None:
        association.send_n_action(request_of(UIDS, "1.2.3.4"), 1, COMMITMENT, COMMITMENT_INSTANCE)
        modality.reports.get(timeout=60)

    with_modality(modality, Engine(), work)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"action": 2}, 0x0123),
        ({"instance": "1.2.3"}, 0x0112),
        ({"sop_class": CT}, 0x0118),
        ({"request": without_transaction()}, 0x0115),
        ({"request": request_of([], "1.2.3.4")}, 0x0115),
    ],
    ids=["action", "instance", "class", "no transaction", "no references"],
)
def test_refused(change: dict[str, Any], status: int) -> None:
    """pynetdicom reads our refusals, and asks again on the same association with success."""
    engine = Engine()

    def work(association: Association) -> None:
        good: dict[str, Any] = {
            "request": request_of(UIDS, "1.2.3.4"),
            "action": 1,
            "sop_class": COMMITMENT,
            "instance": COMMITMENT_INSTANCE,
        }
        bad = {**good, **change}
        for asked, expected in ((bad, status), (good, 0)):
            answer, _ = association.send_n_action(
                asked["request"], asked["action"], asked["sop_class"], asked["instance"], meta_uid=COMMITMENT
            )
            assert answer.Status == expected
            assert answer.get("ErrorComment", "") or not expected

    with_modality(Modality(ExplicitVRLittleEndian, role=False), engine, work)
    assert len(engine.asked) == 1
