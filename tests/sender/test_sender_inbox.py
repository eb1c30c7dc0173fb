"""What a peer sends on an association of ours: reports good and bad, and requests that are not for us."""

import pytest

from ingest.association import (
    AcceptorPolicy,
    AssociateRequest,
    AssociateRequested,
    Association,
    Fragment,
    FragmentRun,
    PresentationContext,
    ReleaseRequested,
    SendData,
    SendPdu,
    State,
    UserInformation,
    negotiate,
)
from ingest.contract.commitments import Reference
from ingest.dimse import (
    CEchoRequest,
    CStoreRequest,
    Message,
    MessageAssembler,
    MessageBegun,
    NActionRequest,
    NActionResponse,
    NEventReportRequest,
    NEventReportResponse,
)
from ingest.dimse.commitment_report import Report, encode_report
from ingest.dimse.messages import Response
from ingest.sender.inbox import Inbox
from tests.support.scu import COMMITMENT, COMMITMENT_INSTANCE, CT, EXPLICIT

REQUEST = AssociateRequest(
    "SCP",
    "SCU",
    (PresentationContext(1, COMMITMENT, (EXPLICIT,)),),
    UserInformation(maximum_length=16384, implementation_class_uid="1.2.3"),
)
Sendable = CEchoRequest | CStoreRequest | NActionRequest | NActionResponse | NEventReportRequest
REPORT = Report("2.25.1", [Reference(CT, f"1.2.{number}") for number in range(3000)], [])


class Both:
    """Our association with its inbox, and the peer's; what one sends the other gets at once."""

    def __init__(self, status: int | None = 0) -> None:
        self.heard: list[Message] = []
        self.taken: list[Report] = []
        self.answers: list[Response] = []
        self._status = status
        self._assembler = MessageAssembler()
        self.ours, self.peer = Association(REQUEST), Association()
        self.inbox = Inbox(self.ours, self.heard.append, None if status is None else self._took)
        self.ours.open()
        self.peer.transport_opened()
        self.ours.transport_opened()
        self.pump()
        assert self.ours.state is State.ESTABLISHED

    def _took(self, report: Report) -> int:
        self.taken.append(report)
        return self._status or 0

    def pump(self) -> None:
        while self._turn(self.ours, self.peer) or self._turn(self.peer, self.ours):
            pass

    def _turn(self, side: Association, other: Association) -> bool:
        sent = bytearray()
        while (event := side.next_event()) is not None:
            if isinstance(event, SendPdu):
                sent += event.pdu
            elif isinstance(event, SendData):
                sent += b"".join(event.buffers)
            elif isinstance(event, AssociateRequested):
                side.answer(negotiate(event.request, AcceptorPolicy("SCP", commitment_scp=True)))
            elif isinstance(event, ReleaseRequested):
                pass
            elif isinstance(event, Fragment | FragmentRun) and side is self.ours:
                self.inbox.take(event)
            elif isinstance(event, Fragment):
                begun = self._assembler.receive(event)
                assert isinstance(begun, MessageBegun)
                answer = begun.message
                assert isinstance(answer, Response)
                self.answers.append(answer)
        if sent:
            other.receive_data(memoryview(sent))
        return bool(sent)

    def from_peer(self, message: Sendable, data_set: bytes | None = None) -> None:
        self.peer.send_command(1, message.encode())
        if data_set is not None:
            self.peer.send_data_set(1, memoryview(data_set), last=True)
        self.pump()


def event_report(
    event_type: int | None = 1, sop_class: str = COMMITMENT, instance: str = COMMITMENT_INSTANCE
) -> NEventReportRequest:
    return NEventReportRequest(9, sop_class, instance, event_type)


GOOD = encode_report(REPORT, explicit=True)


@pytest.mark.parametrize("status", [0, 0x0115])
def test_report(status: int) -> None:
    """Read whole, over many PDUs, and answered as who takes it says."""
    both = Both(status)
    both.from_peer(event_report(), GOOD)
    assert both.taken == [REPORT]
    assert both.answers == [NEventReportResponse(9, status, COMMITMENT, COMMITMENT_INSTANCE)]
    assert both.heard == []


@pytest.mark.parametrize(
    ("request_", "data_set", "status"),
    [
        (event_report(3), GOOD, 0x0113),
        (event_report(None), GOOD, 0x0113),
        (event_report(sop_class=CT), GOOD, 0x0118),
        (event_report(instance="1.2.3"), GOOD, 0x0112),
        (event_report(), GOOD[:-2], 0x0115),
        (event_report(), b"", 0x0115),
        (event_report(), encode_report(REPORT, explicit=False), 0x0115),
        (event_report(), bytes(33 * 1024 * 1024), 0x0213),
    ],
    ids=["event type", "no event type", "class", "instance", "cut", "empty", "syntax", "length"],
)
def test_report_that_cannot_be_used(request_: NEventReportRequest, data_set: bytes, status: int) -> None:
    """Refused with what is wrong; a good one afterwards is taken."""
    both = Both()
    both.from_peer(request_, data_set)
    (answer,) = both.answers
    assert isinstance(answer, NEventReportResponse)
    assert answer.status == status
    assert both.taken == []
    both.from_peer(event_report(), GOOD)
    assert both.taken == [REPORT]


def test_nobody_waits() -> None:
    """Requests that are not for us are answered as such; a response is handed on."""
    both = Both(None)
    both.from_peer(event_report(), GOOD)
    both.from_peer(NActionRequest(2, COMMITMENT, COMMITMENT_INSTANCE, 1), GOOD)
    both.from_peer(CStoreRequest(3, CT, "1.2.3"), GOOD)
    assert [answer.status for answer in both.answers] == [0x0211] * 3
    both.from_peer(CEchoRequest(4, "1.2.840.10008.1.1"))
    assert both.answers[-1].status == 0
    assert both.heard == []
    response = NActionResponse(5, 0, COMMITMENT, COMMITMENT_INSTANCE)
    both.from_peer(response)
    assert both.heard == [response]


def test_report_while_we_release() -> None:
    """It cannot be answered any more (Sta7), so it is not taken: the peer will report again elsewhere."""
    both = Both()
    both.ours.release()
    both.pump()
    both.from_peer(event_report(), GOOD)
    both.from_peer(CEchoRequest(4, "1.2.840.10008.1.1"))
    assert both.ours.state is State.AWAITING_RELEASE_RP
    assert (both.taken, both.answers) == ([], [])


def test_data_without_its_command() -> None:
    """Aborted, as anywhere."""
    both = Both()
    both.peer.send_data_set(1, memoryview(b"\0\0"), last=True)
    both.pump()
    assert both.ours.state is State.AWAITING_CLOSE
