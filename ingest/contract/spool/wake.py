"""Wake-ups from the writer to the readers: a FIFO per partition, which neither end ever waits for."""

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ingest.contract.spool.layout import Layout

_BYTE: Final = b"\1"
_DRAIN: Final = 4096
_LOOK_AGAIN: Final = 0.02  # s; a reader that starts meanwhile looks at the durable end first


def make_fifo(layout: Layout, partition: int) -> Path:
    """The FIFO of a partition, made if it is not there."""
    path = layout.wake / str(partition)
    with contextlib.suppress(FileExistsError):
        layout.wake.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.mkfifo(path, 0o600)
    return path


class WakeUps:
    """The writer's end."""

    def __init__(self, layout: Layout, partitions: int) -> None:
        self._paths = [make_fifo(layout, partition) for partition in range(partitions)]
        self._open: dict[int, int] = {}
        self._absent: dict[int, float] = {}  # partition without a reader -> when to look again

    def wake(self, partitions: Iterable[int]) -> None:
        """Tell the readers of these partitions, if there are any, that the durable end has moved."""
        for partition in partitions:
            fd = self._open.get(partition)
            if fd is None:
                fd = self._find(partition)
            if fd is None:
                continue
            try:
                os.write(fd, _BYTE)
            except BlockingIOError:
                pass  # full: it has wake-ups enough
            except BrokenPipeError:  # the reader has gone; the next one is found by opening again
                os.close(self._open.pop(partition))

    def _find(self, partition: int) -> int | None:
        """Open the FIFO if a reader has it open. Looked for now and then: a failed open costs 20 us a group.

        Whatever keeps it from being opened, such as a lack of descriptors, costs a reader some time and no more.
        """
        now = time.monotonic()
        if now < self._absent.get(partition, 0):
            return None
        try:
            fd = os.open(self._paths[partition], os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._absent[partition] = now + _LOOK_AGAIN
            return None
        self._open[partition] = fd
        return fd

    def close(self) -> None:
        """Let go of the FIFOs."""
        while self._open:
            os.close(self._open.popitem()[1])


class Sleeper:
    """The reader's end: ``descriptors`` become readable on a wake-up; `drain` before looking for records."""

    def __init__(self, layout: Layout, partitions: Iterable[int]) -> None:
        # Opened for both, so that the FIFO neither blocks nor ends when the writer does.
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
        self.descriptors = [os.open(make_fifo(layout, partition), flags) for partition in partitions]

    def drain(self) -> None:
        """Forget all wake-ups so far."""
        for fd in self.descriptors:
            with contextlib.suppress(BlockingIOError):
                while len(os.read(fd, _DRAIN)) == _DRAIN:
                    pass

    def close(self) -> None:
        """Let go of the FIFOs."""
        while self.descriptors:
            os.close(self.descriptors.pop())
