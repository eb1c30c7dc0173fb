"""A modality made with pynetdicom: asks for commitment, and takes reports on both kinds of association."""

import queue
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.presentation import build_role

from benchmarks.processes import free_port
from tests.support.reactor import leave_responses_to_their_senders
from tests.support.scu import (
    COMMITMENT,
    COMMITMENT_INSTANCE,
    CT,
    EXPLICIT,
    PATIENCE,
    Scu,
    c_store,
    ct_data_set,
    run_closing,
)


class Report(NamedTuple):
    """An N-EVENT-REPORT: what is committed, and of what is not, why."""

    transaction_uid: str
    committed: tuple[str, ...]
    failed: tuple[tuple[str, int], ...]


class Console:
    """``taken`` is called with each report before it is answered."""

    def __init__(self, ae_title: str = "CONSOLE") -> None:
        self.taken: Callable[[Report], object] = lambda _: None
        self.port = free_port()
        self.reports: queue.Queue[Report] = queue.Queue()
        self._associations: list[Association] = []
        self._handlers: list[EventHandlerType] = [(evt.EVT_N_EVENT_REPORT, self._reported)]
        self._entity = AE(ae_title)
        self._entity.add_requested_context(CT, EXPLICIT)
        self._entity.add_requested_context(COMMITMENT)
        self._entity.add_supported_context(COMMITMENT, scu_role=False, scp_role=True)

    def _reported(self, event: Event) -> tuple[int, None]:
        report = _report_of(event.event_type, event.event_information)
        self.reports.put(report)
        self.taken(report)
        return 0, None

    @contextmanager
    def listening(self) -> Iterator[None]:
        server = self._entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=self._handlers)
        assert server is not None
        try:
            yield
        finally:
            server.shutdown()

    def associate(self, port: int) -> Association:
        """An association with the receiver; it may not be established, and is open until `release_all`."""
        association = self._entity.associate(
            "127.0.0.1", port, ae_title="DICOM-INGEST", evt_handlers=self._handlers,
            ext_neg=[build_role(COMMITMENT, scu_role=True, scp_role=False)],
        )  # fmt: skip
        leave_responses_to_their_senders(association)
        self._associations.append(association)
        return association

    def release_all(self) -> None:
        """What is established no longer."""
        for association in self._associations:
            if association.is_established:
                association.release()
        self._associations.clear()

    @contextmanager
    def association(self, port: int) -> Iterator[Association]:
        association = self.associate(port)
        assert association.is_established
        try:
            yield association
        finally:
            self.release_all()

    def report(self) -> tuple[set[str], dict[str, int]]:
        """The next: what is committed, and of what is not, why."""
        report = self.reports.get(timeout=PATIENCE)
        return set(report.committed), dict(report.failed)


def _report_of(event_type: int | None, information: Dataset) -> Report:
    committed = tuple(item.ReferencedSOPInstanceUID for item in information.get("ReferencedSOPSequence", []))
    failed = tuple(
        (item.ReferencedSOPInstanceUID, item.FailureReason)
        for item in information.get("FailedSOPSequence", [])
    )
    assert event_type == (2 if failed else 1)
    return Report(information.TransactionUID, committed, failed)


def request_of(uids: Sequence[str], transaction_uid: str) -> Dataset:
    """The data set of an N-ACTION."""
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = []
    for uid in uids:
        item = Dataset()
        item.ReferencedSOPClassUID = CT
        item.ReferencedSOPInstanceUID = uid
        request.ReferencedSOPSequence.append(item)
    return request


def status_of_request(association: Association, uids: Sequence[str], transaction_uid: str) -> int | None:
    """Of the N-ACTION-RSP; None when there is none."""
    request = request_of(uids, transaction_uid)
    status, _ = association.send_n_action(request, 1, COMMITMENT, COMMITMENT_INSTANCE)
    answered: int | None = status.get("Status")
    return answered


def ask(association: Association, uids: Sequence[str], transaction_uid: str) -> None:
    """The same, which must be taken."""
    assert status_of_request(association, uids, transaction_uid) == 0x0000


def store(port: int, uids: list[str]) -> None:
    """CT images, acknowledged under another AE title of the console's."""

    async def send() -> None:
        scu = await Scu.associated(port)
        for uid in uids:
            await scu.send(c_store(uid, ct_data_set(uid, 20_000)))
            assert (await scu.response()).status == 0
        await scu.release()

    run_closing(send())
