"""Payload: the bytes of a data set, wherever they lie, read by position and never whole.

`MemoryPayload` holds log records, `FilePayload` a scratch file or a stored object, `SlicePayload` a part of
another payload, and `JoinedPayload` several one after the other (new pixel data between old elements).
"""

import bisect
import hashlib
import os
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Protocol, Self

BLOCK = 1024 * 1024  # bytes; large enough that hashing and disk calls dominate, small enough for many workers


class EndOfPayload(Exception):  # noqa: N818 - states what was met
    """More bytes were asked for than there are."""


class Payload(Protocol):
    """Bytes of known size, read by position."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    def read(self, offset: int, length: int) -> memoryview:
        """Exactly ``length`` bytes from ``offset``; a view where no copy is needed.

        Raises:
            EndOfPayload: the range does not lie within the payload.
        """

    def blocks(self, size: int = BLOCK) -> Iterator[memoryview]:
        """All bytes in order, in blocks of at most ``size`` bytes."""


def check_range(offset: int, length: int, size: int) -> None:
    """Refuse a range that does not lie within ``size`` bytes.

    Raises:
        EndOfPayload: it does not.
    """
    if offset < 0 or length < 0 or offset + length > size:
        raise EndOfPayload(f"{length} bytes at {offset} of {size}")


class MemoryPayload:
    """A payload in buffers that are already in memory; they are not copied or joined."""

    def __init__(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """``buffers``: in order; they must not change while the payload is in use."""
        self._views = [memoryview(buffer).cast("B") for buffer in buffers]
        self._starts = [0, *accumulate(len(view) for view in self._views)]
        self.size: int = self._starts.pop()

    def read(self, offset: int, length: int) -> memoryview:
        """See `Payload.read`; a view unless the range crosses buffers."""
        check_range(offset, length, self.size)
        if len(self._views) == 1:
            return self._views[0][offset : offset + length]
        if not length:
            return memoryview(b"")
        index = bisect.bisect_right(self._starts, offset) - 1
        start = offset - self._starts[index]
        piece = self._views[index][start : start + length]
        if len(piece) == length:
            return piece
        pieces = [piece]
        missing = length - len(piece)
        while missing:
            index += 1
            pieces.append(self._views[index][:missing])
            missing -= len(pieces[-1])
        return memoryview(b"".join(pieces))

    def blocks(self, size: int = BLOCK) -> Iterator[memoryview]:
        """See `Payload.blocks`; views, never copies."""
        for view in self._views:
            for start in range(0, len(view), size):
                yield view[start : start + size]


class FilePayload:
    """A payload in a file, read with pread: no shared file position, no mapping that a truncation could kill."""

    def __init__(self, path: Path | int, offset: int = 0, size: int | None = None) -> None:
        """``path``: a path, or an open descriptor to take over; ``size``: the rest of the file by default."""
        self._descriptor = path if isinstance(path, int) else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._offset = offset
        self.size: int = os.fstat(self._descriptor).st_size - offset if size is None else size

    def read(self, offset: int, length: int) -> memoryview:
        """See `Payload.read`; also raises `EndOfPayload` where the file has become shorter."""
        check_range(offset, length, self.size)
        data = os.pread(self._descriptor, length, self._offset + offset)
        while len(data) < length:
            more = os.pread(self._descriptor, length - len(data), self._offset + offset + len(data))
            if not more:
                raise EndOfPayload(f"the file ends {length - len(data)} bytes early")
            data += more
        return memoryview(data)

    def blocks(self, size: int = BLOCK) -> Iterator[memoryview]:
        """See `Payload.blocks`."""
        for offset in range(0, self.size, size):
            yield self.read(offset, min(size, self.size - offset))

    def close(self) -> None:
        """Give the descriptor back; the payload is of no use afterwards. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.close()


class SlicePayload:
    """A part of another payload."""

    def __init__(self, whole: Payload, offset: int, size: int) -> None:
        """Bytes ``offset`` to ``offset + size`` of ``whole``.

        Raises:
            EndOfPayload: they do not lie within ``whole``.
        """
        check_range(offset, size, whole.size)
        self._whole = whole
        self._offset = offset
        self.size: int = size

    def read(self, offset: int, length: int) -> memoryview:
        """See `Payload.read`."""
        check_range(offset, length, self.size)
        return self._whole.read(self._offset + offset, length)

    def blocks(self, size: int = BLOCK) -> Iterator[memoryview]:
        """See `Payload.blocks`."""
        for offset in range(0, self.size, size):
            yield self.read(offset, min(size, self.size - offset))


class JoinedPayload:
    """Several payloads, one after the other."""

    def __init__(self, segments: Sequence[Payload]) -> None:
        """``segments``: in order."""
        self._segments = [segment for segment in segments if segment.size]
        self._starts = [0, *accumulate(segment.size for segment in self._segments)]
        self.size: int = self._starts.pop()

    def read(self, offset: int, length: int) -> memoryview:
        """See `Payload.read`; a copy where the range crosses segments."""
        check_range(offset, length, self.size)
        if not length:
            return memoryview(b"")
        index = bisect.bisect_right(self._starts, offset) - 1
        start = offset - self._starts[index]
        segment = self._segments[index]
        if start + length <= segment.size:
            return segment.read(start, length)
        joined = bytearray()
        while len(joined) < length:
            segment = self._segments[index]
            joined += segment.read(start, min(length - len(joined), segment.size - start))
            index, start = index + 1, 0
        return memoryview(joined).toreadonly()

    def blocks(self, size: int = BLOCK) -> Iterator[memoryview]:
        """See `Payload.blocks`."""
        for segment in self._segments:
            yield from segment.blocks(size)


def sha256(payload: Payload) -> str:
    """The SHA-256 of a payload, hex; blocks."""
    digest = hashlib.sha256()
    for block in payload.blocks():
        digest.update(block)
    return digest.hexdigest()
