"""Byte order (PS3.5 7.3): values of a big endian data set as little endian, whole or while they are read."""

import array
from collections.abc import Iterator
from typing import Final

from workers.dataset.payload import BLOCK, Payload, check_range

# Which values byte order concerns, and the width of their numbers, as type codes of arrays.
_NUMBERS: Final = {
    **dict.fromkeys((b"US", b"SS", b"OW", b"AT"), "H"),
    **dict.fromkeys((b"UL", b"SL", b"FL", b"OF", b"OL"), "I"),
    **dict.fromkeys((b"FD", b"OD", b"OV", b"SV", b"UV"), "Q"),
}
_WIDEST: Final = 8  # bytes of a number


def little_endian(value: bytes | memoryview, vr: bytes) -> bytes:
    """A big endian value with its numbers turned to little endian; as it is where it holds no whole numbers."""
    code = _NUMBERS.get(vr)
    if code is None:
        return bytes(value)
    numbers = array.array(code)
    if len(value) % numbers.itemsize:
        return bytes(value)
    numbers.frombytes(value)
    numbers.byteswap()
    return numbers.tobytes()


class LittleEndianPayload:
    """A big endian value, turned while it is read: any range is that of the whole value turned by `little_endian`."""

    def __init__(self, value: Payload, vr: bytes) -> None:
        """``value``: of one element; ``vr``: its own."""
        code = _NUMBERS.get(vr)
        is_whole = code is not None and value.size % array.array(code).itemsize == 0
        self._vr = vr if is_whole else b""
        self._value = value
        self.size: int = value.size

    def read(self, offset: int, length: int) -> memoryview:
        """See `Payload.read`."""
        check_range(offset, length, self.size)
        start = offset - offset % _WIDEST
        end = min(self.size, offset + length + _WIDEST - 1)
        end -= 0 if end == self.size else end % _WIDEST
        turned = little_endian(self._value.read(start, end - start), self._vr)
        return memoryview(turned)[offset - start : offset - start + length]

    def blocks(self, size: int = BLOCK) -> Iterator[memoryview]:
        """See `Payload.blocks`."""
        for offset in range(0, self.size, size):
            yield self.read(offset, min(size, self.size - offset))
