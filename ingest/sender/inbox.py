"""What comes on one association, put together: responses handed on, reports of storage commitment taken.

The peer may report at any time, also between our request and its response (PS3.7 10.3.1).
"""

from collections.abc import Callable
from typing import Final

from ingest.association import (
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    Association,
    Fragment,
    FragmentRun,
    State,
)
from ingest.dimse import (
    CEchoRequest,
    CStoreRequest,
    Message,
    MessageAssembler,
    MessageBegun,
    NActionRequest,
    NEventReportRequest,
    UnknownRequest,
)
from ingest.dimse.commitment_report import ALL_COMMITTED, FAILURES_EXIST, Report, parse_report
from ingest.dimse.status import (
    NO_SUCH_EVENT_TYPE,
    NO_SUCH_SOP_CLASS,
    NO_SUCH_SOP_INSTANCE,
    RESOURCE_LIMITATION,
    UNRECOGNIZED_OPERATION,
)
from ingest.errors import Refused, RemoteProtocolError

# A report of 200,000 instances with UIDs of the greatest length; what a peer sends beyond is not kept.
_MAXIMUM_REPORT: Final = 32 * 1024 * 1024
_MAXIMUM_INSTANCES: Final = 200_000

Took = Callable[[Report], int]  # says with which status the report is answered


class Inbox:
    """Takes the fragments of one association.

    Args:
        association: where they come from, and answers go to; the caller performs its events afterwards.
        heard: gets every message that is no request.
        took: gets every report; without it reports are refused as unrecognized.
    """

    def __init__(self, association: Association, heard: Callable[[Message], None], took: Took | None) -> None:
        self._association = association
        self._heard = heard
        self._took = took
        self._assembler = MessageAssembler(NEventReportRequest)
        self._report: NEventReportRequest | None = None
        self._context_id = 0
        self._data = bytearray()
        self._held = False
        self._answers: list[tuple[int, bytes]] = []  # by context, while they are held

    def hold(self) -> None:
        """A message of ours goes out in pieces: no answer may come between its fragments (PS3.8 Annex E)."""
        self._held = True

    def let_go(self) -> None:
        """It is whole."""
        self._held = False
        answers, self._answers = self._answers, []
        for context_id, command in answers:
            self._send(context_id, command)

    def take(self, item: Fragment | FragmentRun) -> None:
        """Take the next fragments; a peer that breaks the protocol with them is aborted."""
        try:
            if isinstance(item, FragmentRun):
                run = self._assembler.receive_run(item)
                if run is not None:
                    self._write(memoryview(run.rows.tobytes()), last=False)
                return
            found = self._assembler.receive(item)
        except RemoteProtocolError as fault:
            self._association.abort(fault)
            return
        if isinstance(found, MessageBegun):
            self._begun(found)
        elif found is not None:
            self._write(found.data, last=found.is_last)

    def _begun(self, begun: MessageBegun) -> None:
        message = begun.message
        if isinstance(message, NEventReportRequest):
            self._report, self._context_id = message, begun.context_id
            self._data = bytearray()
            if not begun.has_data_set:
                self._answer(message)
        elif isinstance(message, CEchoRequest | UnknownRequest):
            self._send(begun.context_id, message.respond().encode())
        elif isinstance(message, CStoreRequest | NActionRequest):
            self._send(begun.context_id, message.respond(UNRECOGNIZED_OPERATION).encode())
        else:
            self._heard(message)

    def _write(self, data: memoryview, *, last: bool) -> None:
        if len(self._data) <= _MAXIMUM_REPORT:
            self._data += data
        if last:
            assert self._report is not None  # its data set alone is handed on
            self._answer(self._report)

    def _answer(self, request: NEventReportRequest) -> None:
        # After our A-RELEASE-RQ data may still come (Sta7), but not be answered: the peer will report again.
        if self._association.state is State.ESTABLISHED:
            try:
                response = request.respond(self._status(request))
            except Refused as refused:
                response = request.respond(refused.status, comment=refused.comment)
            self._send(self._context_id, response.encode())
        self._report, self._data = None, bytearray()

    def _send(self, context_id: int, command: bytes) -> None:
        if self._association.state is not State.ESTABLISHED:
            return
        if self._held:
            self._answers.append((context_id, command))
        else:
            self._association.send_command(context_id, command)

    def _status(self, request: NEventReportRequest) -> int:
        """Check a report in full, and hand it on.

        Raises:
            Refused: it is none that can be used.
        """
        if self._took is None:
            raise Refused(UNRECOGNIZED_OPERATION, "no report is waited for")
        if request.affected_sop_class_uid != STORAGE_COMMITMENT:
            raise Refused(NO_SUCH_SOP_CLASS, "not Storage Commitment Push Model")
        if request.affected_sop_instance_uid != STORAGE_COMMITMENT_INSTANCE:
            raise Refused(NO_SUCH_SOP_INSTANCE, "not the well-known SOP Instance")
        if request.event_type_id not in (ALL_COMMITTED, FAILURES_EXIST):
            raise Refused(NO_SUCH_EVENT_TYPE, "Event Type ID is neither 1 nor 2")
        if len(self._data) > _MAXIMUM_REPORT:
            raise Refused(RESOURCE_LIMITATION, f"report is longer than {_MAXIMUM_REPORT} bytes")
        context = self._association.contexts[self._context_id]
        return self._took(parse_report(self._data, explicit=context.is_explicit, maximum=_MAXIMUM_INSTANCES))
