"""N-EVENT-REPORT on the association that brought the N-ACTION (PS3.4 J.3.3.1.2): one at a time, when it is idle."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ingest.association import (
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    AcceptedContext,
    Association,
    State,
)
from ingest.association.p_data import fragment_limit
from ingest.contract.commitments import Found
from ingest.dimse import NEventReportRequest, NEventReportResponse
from ingest.dimse.commitment_report import Report, encode_report, report_of

# From here on a report is encoded in a thread: 1,000 instances take a few milliseconds.
_ENCODED_ASIDE: Final = 1000
_LAST_MESSAGE_ID: Final = 0xFFFF
# A report in more fragments than this is not sent: the peer announced a maximum length too small for it.
MAX_FRAGMENTS: Final = 10_000
# Bytes that asyncio lets wait to be written before it says so.
_WRITE_BUFFER: Final = 64 * 1024


class Link(NamedTuple):
    """What reports need of the connection."""

    association: Association
    transport: asyncio.Transport
    busy: Callable[[], bool]  # whether either side is in the middle of a message
    pump: Callable[[], None]  # performs what the association was asked for

    @property
    def idle(self) -> bool:
        """Whether a message of ours may go out now."""
        return self.association.state is State.ESTABLISHED and not self.busy()

    def send(self, context_id: int, command: bytes, data_set: bytes) -> bool:
        """Send a message whole, so that no answer comes between its fragments (PS3.8 Annex E).

        Returns:
            Whether it can be sent to this peer at all.
        """
        limit = fragment_limit(self.association.maximum_send_length)
        if len(data_set) > MAX_FRAGMENTS * limit:
            return False
        # A peer may well send before it reads: that its report waits must not keep us from reading. Until it is
        # answered only what waits beyond it does.
        self.transport.set_write_buffer_limits(high=4 * _WRITE_BUFFER + len(data_set))
        self.association.send_command(context_id, command)
        self.association.send_data_set(context_id, memoryview(data_set), last=True)
        self.pump()
        return True

    def restore_limits(self) -> None:
        """A peer that has not read its report by now is one that does not read."""
        self.transport.set_write_buffer_limits(high=_WRITE_BUFFER)


@dataclass(eq=False)
class _Pending:
    """A report that waits for its turn, then for its answer."""

    context_id: int
    event_type_id: int
    data_set: bytes
    message_id: int = 0
    sent: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    status: asyncio.Future[int | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def settle(self, status: int | None) -> None:
        """Whoever waits learns of it."""
        if not self.sent.done():
            self.sent.set_result(None)
        if not self.status.done():
            self.status.set_result(status)


class Reports:
    """The reports of one association."""

    def __init__(self, link: Link, timeout: float, lease: float) -> None:
        self._link: Link | None = link  # None once the association is over, or does not answer
        self._timeout = timeout
        self._lease = lease
        # Those that a report is to come on, and until when it is waited for.
        self._leases: dict[Channel, float] = {}
        self._waiting: deque[_Pending] = deque()
        self._unanswered: _Pending | None = None
        self._message_id = 0

    def lease(self, channel: "Channel") -> None:
        """A report is to come on it."""
        self._leases[channel] = time.monotonic() + self._lease

    def end_lease(self, channel: "Channel") -> None:
        """None is, any more."""
        self._leases.pop(channel, None)

    def awaited(self, now: float) -> bool:
        """Whether the association is to be kept for a report, by the monotonic clock."""
        return self._link is not None and any(now < until for until in self._leases.values())

    async def send(self, context: AcceptedContext, report: Report) -> int | None:
        """Send a report in its turn; the status of its response, None when there is or will be none."""
        if len(report.committed) + len(report.failed) < _ENCODED_ASIDE:
            data_set = encode_report(report, explicit=context.is_explicit)
        else:
            data_set = await asyncio.to_thread(encode_report, report, explicit=context.is_explicit)
        if self._link is None:
            return None
        pending = _Pending(context.context_id, report.event_type_id, data_set)
        self._waiting.append(pending)
        self.turn()
        try:
            async with asyncio.timeout(self._timeout) as clock:
                await pending.sent
                clock.reschedule(asyncio.get_running_loop().time() + self._timeout)
                return await pending.status
        except TimeoutError:
            if pending is self._unanswered:
                # PS3.7 D.3.3.3: one operation at a time. It is not answered, so there is no other.
                self._restore_limits()
                self.end()
            return None
        except asyncio.CancelledError:
            if pending is self._unanswered:
                self._restore_limits()
            raise
        finally:
            if pending in self._waiting:
                self._waiting.remove(pending)

    def turn(self) -> None:
        """Send the report that waits longest, if the association is idle and none is unanswered."""
        while (link := self._link) is not None and self._waiting and self._unanswered is None and link.idle:
            pending = self._waiting.popleft()
            self._message_id = self._message_id % _LAST_MESSAGE_ID + 1
            pending.message_id = self._message_id
            request = NEventReportRequest(
                pending.message_id, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, pending.event_type_id
            )
            self._unanswered = pending
            if link.send(pending.context_id, request.encode(), pending.data_set):
                if not pending.sent.done():
                    pending.sent.set_result(None)
            else:
                self._unanswered = None
                pending.settle(None)

    def answered(self, response: NEventReportResponse) -> None:
        """The peer has responded to a report: to the one that is unanswered, or to none of ours."""
        pending = self._unanswered
        if pending is not None and response.message_id_being_responded_to == pending.message_id:
            self._unanswered = None
            pending.settle(response.status)
            self._restore_limits()

    def _restore_limits(self) -> None:
        if self._link is not None:
            self._link.restore_limits()

    def end(self) -> None:
        """The association is over, or good for nothing more of this kind."""
        self._link = None
        unanswered, self._unanswered = self._unanswered, None
        for pending in (*self._waiting, *((unanswered,) if unanswered else ())):
            pending.settle(None)
        self._waiting.clear()


@dataclass(frozen=True, eq=False)
class Channel:
    """Where an N-ACTION came from, as `Commitments` knows it: see `ReportChannel`."""

    reports: Reports
    context: AcceptedContext

    def keep(self) -> None:
        """See `ReportChannel`."""
        self.reports.lease(self)

    def let_go(self) -> None:
        """See `ReportChannel`."""
        self.reports.end_lease(self)

    async def report(
        self,
        transaction_uid: str,
        committed: Sequence[Found],
        failed: Sequence[Found],
        retrieve_ae_title: str,
    ) -> int | None:
        """Send one N-EVENT-REPORT when the association is idle; the peer's status, None once it is gone."""
        report = report_of(transaction_uid, committed, failed, retrieve_ae_title)
        return await self.reports.send(self.context, report)
