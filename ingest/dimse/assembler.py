"""Joins a message's fragments (PS3.7 6.3, PS3.8 Annex E); a data set's fragments are passed on uncopied."""

from typing import NamedTuple

from ingest.association.events import Fragment, FragmentRun
from ingest.dimse.command_set import MAX_COMMAND_SET, decode_command_set, malformed
from ingest.dimse.messages import (
    CCancelRequest,
    CStoreRequest,
    Message,
    decode_message,
    has_data_set,
)
from ingest.dimse.plain_store import decode_plain_request
from ingest.errors import AbortReason, RemoteProtocolError


class MessageBegun(NamedTuple):
    """A command set is complete. With ``has_data_set`` the fragments of its data set follow."""

    context_id: int
    message: Message
    has_data_set: bool


class MessageAssembler:
    """Puts the messages of one association together, one at a time, as they are sent.

    ``wanted`` are the messages whose data sets are handed on; a command set has at most ``maximum_command`` bytes.
    """

    __slots__ = ("_command", "_context_id", "_data_set", "_drained", "_maximum_command", "_wanted")

    def __init__(self, *wanted: type[Message], maximum_command: int = MAX_COMMAND_SET) -> None:
        self._maximum_command = maximum_command
        self._wanted = wanted or (CStoreRequest,)
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
            nothing to do. A data set that another message announces than those wanted passes unseen before
            its `MessageBegun`. C-CANCEL is not reported, since nothing can be cancelled.

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
        if len(self._command) + len(data) > self._maximum_command:
            raise malformed(f"a command set is longer than {self._maximum_command} bytes")
        self._command += data
        return self._end_command() if is_last else None

    def _end_command(self) -> MessageBegun | None:
        begun = self._begun(bytes(self._command))
        self._command.clear()
        if not begun.has_data_set:
            self._context_id = 0
            return _reported(begun)
        self._data_set = True
        if isinstance(begun.message, self._wanted):
            return begun
        self._drained = begun._replace(has_data_set=False)
        return None

    def _begun(self, command: bytes) -> MessageBegun:
        request = decode_plain_request(command)
        if request is not None:
            return MessageBegun(self._context_id, request, has_data_set=True)
        elements = decode_command_set(command)
        return MessageBegun(self._context_id, decode_message(elements), has_data_set(elements))


def _reported(begun: MessageBegun) -> MessageBegun | None:
    return None if isinstance(begun.message, CCancelRequest) else begun
