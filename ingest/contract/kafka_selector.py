"""What a producer of kafka-python waits with: its option ``selector``.

The client registers a socket anew for each wait, and first asks whether it is registered (3.0.12). Python's selectors
say that it is not by an error whose text, which nobody reads, names the socket and its two addresses: system calls,
made twice over, each of which lets go of the interpreter to the other threads. Measured: 21 µs with nothing else
running, 0.3 so. Commitments go by it, and the benchmarks' bare client, which is to be at its best: 4 to 9 % of a CT at a time.
"""

import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike


class QuickSelector(selectors.DefaultSelector):
    """The system's selector, which finds a registration, or none, by the object alone."""

    def __init__(self) -> None:
        self._registered: dict[FileDescriptorLike, selectors.SelectorKey] = {}
        super().__init__()

    def register(self, fileobj: "FileDescriptorLike", events: int, data: Any = None) -> selectors.SelectorKey:
        """See `selectors.BaseSelector.register`."""
        key = super().register(fileobj, events, data)
        self._registered[fileobj] = key
        return key

    def unregister(self, fileobj: "FileDescriptorLike") -> selectors.SelectorKey:
        """See `selectors.BaseSelector.unregister`; of a file that was closed, too."""
        self._registered.pop(fileobj, None)
        return super().unregister(fileobj)

    def modify(self, fileobj: "FileDescriptorLike", events: int, data: Any = None) -> selectors.SelectorKey:
        """See `selectors.BaseSelector.modify`."""
        key = super().modify(fileobj, events, data)
        self._registered[fileobj] = key
        return key

    def get_key(self, fileobj: "FileDescriptorLike") -> selectors.SelectorKey:
        """See `selectors.BaseSelector.get_key`.

        Raises:
            KeyError: it is not registered.
        """
        return self._registered[fileobj]
