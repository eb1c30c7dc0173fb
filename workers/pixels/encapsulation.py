"""Codestreams as a Pixel Data element of undefined length (PS3.5 A.4), one fragment a frame."""

import array
import struct

from workers.dataset.elements import LONGEST_DEFINED, UNDEFINED

_HEADER = struct.Struct("<HH2sHI").pack  # PS3.5 Table 7.1-1: OB and OV have 32-bit lengths
_ITEM = struct.Struct("<HHI").pack
SEQUENCE_DELIMITATION = _ITEM(0xFFFE, 0xE0DD, 0)


class Encapsulation:
    """Counts the fragments as they are written, and gives the head of the element once all are there."""

    def __init__(self) -> None:
        self._offsets = array.array("Q")  # of each item, from the first
        self._lengths = array.array("Q")  # of each codestream, without padding
        self.size = 0  # bytes of all items so far

    def item(self, codestream: bytes) -> tuple[bytes, bytes, bytes]:
        """One frame as an item: header, codestream, padding (A.4: one 00H behind an odd one).

        Raises:
            ValueError: it is empty, or longer than a fragment may be.
        """
        length = len(codestream)
        padded = length + length % 2
        if not 0 < padded <= LONGEST_DEFINED:
            raise ValueError("a codestream that no fragment can hold")
        self._offsets.append(self.size)
        self._lengths.append(length)
        self.size += 8 + padded
        return _ITEM(0xFFFE, 0xE000, padded), codestream, b"\0" * (length % 2)

    def head(self) -> bytes:
        """What stands before the first item: element header and Basic Offset Table.

        Where an offset needs more than 32 bits: an Extended Offset Table and its lengths, and an empty basic
        one (PS3.3 C.7.6.3.1.8).
        """
        element = _HEADER(0x7FE0, 0x0010, b"OB", 0, UNDEFINED)
        if self._offsets and self._offsets[-1] > UNDEFINED:
            offsets, lengths = _little(self._offsets), _little(self._lengths)
            return b"".join(
                (
                    _HEADER(0x7FE0, 0x0001, b"OV", 0, len(offsets)),
                    offsets,
                    _HEADER(0x7FE0, 0x0002, b"OV", 0, len(lengths)),
                    lengths,
                    element,
                    _ITEM(0xFFFE, 0xE000, 0),
                )
            )
        table = struct.pack(f"<{len(self._offsets)}I", *self._offsets)
        return element + _ITEM(0xFFFE, 0xE000, len(table)) + table


def _little(numbers: "array.array[int]") -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)
