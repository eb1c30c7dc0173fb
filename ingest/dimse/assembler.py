"""Joins a message's fragments (PS3.7 6.3, PS3.8 Annex E); a data set's fragments are passed on uncopied."""

from dataclasses import dataclass

from ingest.association.events import Fragment, FragmentRun
from ingest.dimse.command_set import MAX_COMMAND_SET, decode_command_set, malformed
from ingest.dimse.messages import (
    CCancelRequest,
    CStoreRequest,
    Message,
    decode_message,
    has_data_set,
)
from ingest.errors import AbortReason, RemoteProtocolError


@dataclass(frozen=True, slots=True)
class MessageBegun:
    """A command set is complete. With ``has_data_set`` the fragments of its data set follow."""

    context_id: int
    message: Message
    has_data_set: bool


class MessageAssembler:
    """Puts the messages of one association together, one at a time, as they are sent."""

    __slots__ = ("_command", "_context_id", "_data_set", "_drained")

    def __init__(self) -> None:
        self._context_id = 0  # of the message in progress; 0 between messages
        self._command = bytearray()
        self._data_set = False
        self._drained: MessageBegun | None = None

    @property
    def in_message(self) -> bool:
        """Whether a message has begun and is not complete."""
        return self._context_id != 0

    def receive(self, fragment: Fragment) -> MessageBegun | Fragment | None:
        """Take the next fragment.

        Returns:
            A `MessageBegun` when a command set is complete; the fragment itself when it is of a data set
            that was announced, ``is_last`` on the one that completes the message; ``None`` when there is
            nothing to do. Only C-STORE streams its data set: one that any other message announces passes
            unseen before its `MessageBegun`. C-CANCEL is not reported, since nothing can be cancelled.

        Raises:
            RemoteProtocolError: abort the association with it.
        """
        context_id, is_command, is_last, data = fragment
        if self._data_set and context_id == self._context_id and not is_command:
            if is_last:
                return self._end_data_set(fragment)
            return fragment if self._drained is None else None
        return self._command_fragment(context_id, data, is_command=is_command, is_last=is_last)

    def receive_run(self, run: FragmentRun) -> FragmentRun | None:
        """Take a run of fragments: the run itself when its data set is wanted, else ``None``.

        Raises:
            RemoteProtocolError: as `receive`.
        """
        if not self._data_set or run.context_id != self._context_id:
            raise RemoteProtocolError(
                "a fragment is not of the message in progress", AbortReason.UNEXPECTED_PDU_PARAMETER
            )
        return run if self._drained is None else None

    def _end_data_set(self, fragment: Fragment) -> MessageBegun | Fragment | None:
        self._data_set = False
        self._context_id = 0
        if self._drained is None:
            return fragment
        drained, self._drained = self._drained, None
        return _reported(drained)

    def _command_fragment(
        self, context_id: int, data: memoryview, *, is_command: bool, is_last: bool
    ) -> MessageBegun | None:
        if self._context_id == 0:
            self._context_id = context_id
        if not is_command or self._data_set or context_id != self._context_id:
            # PS3.8 E.2: all fragments of a message have one context ID, the command before the data set.
            raise RemoteProtocolError(
                "a fragment is not of the message in progress", AbortReason.UNEXPECTED_PDU_PARAMETER
            )
        if len(self._command) + len(data) > MAX_COMMAND_SET:
            raise malformed(f"a command set is longer than {MAX_COMMAND_SET} bytes")
        self._command += data
        return self._end_command() if is_last else None

    def _end_command(self) -> MessageBegun | None:
        elements = decode_command_set(self._command)
        self._command.clear()
        message = decode_message(elements)
        begun = MessageBegun(self._context_id, message, has_data_set(elements))
        if not begun.has_data_set:
            self._context_id = 0
            return _reported(begun)
        self._data_set = True
        if isinstance(message, CStoreRequest):
            return begun
        self._drained = MessageBegun(self._context_id, message, has_data_set=False)
        return None


def _reported(begun: MessageBegun) -> MessageBegun | None:
    return None if isinstance(begun.message, CCancelRequest) else begun
