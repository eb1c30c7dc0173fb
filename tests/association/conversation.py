"""A receiver's side of an association, and what it hears."""

from collections.abc import Iterable

from ingest.association import (
    AcceptorPolicy,
    AssociateRequested,
    Association,
    Fragment,
    FragmentRun,
    ReleaseRequested,
    negotiate,
)

POLICY = AcceptorPolicy("SCP")


class Conversation:
    """Drives an acceptor as a receiver does, and keeps what happened, pieces of a PDV joined."""

    def __init__(self, association: Association | None = None) -> None:
        self.log: list[object] = []
        self._pieces: list[bytes] = []
        if association is None:
            association = Association()
            association.transport_opened()
        self.association = association
        self.pump()

    def feed(self, chunks: Iterable[bytes]) -> "Conversation":
        memory = bytearray(1 << 20)
        for chunk in chunks:
            memory[: len(chunk)] = chunk
            self.association.receive_data(memoryview(memory)[: len(chunk)])
            self.pump()
            memory[: len(chunk)] = b"\xee" * len(chunk)  # whoever kept a view sees it now
        return self

    def pump(self) -> None:
        while (event := self.association.next_event()) is not None:
            if isinstance(event, FragmentRun):
                self._pieces.extend(bytes(row) for row in event.rows)
                continue
            if isinstance(event, Fragment):
                self._pieces.append(bytes(event.data))
                if event.is_last:
                    self.log.append((event.context_id, event.is_command, b"".join(self._pieces)))
                    self._pieces.clear()
                continue
            self.log.append(event)
            if isinstance(event, AssociateRequested):
                self.association.answer(negotiate(event.request, POLICY))
            elif isinstance(event, ReleaseRequested):
                self.association.release_response()
