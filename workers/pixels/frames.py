"""The frames of a data set's pixel data, one at a time, in one canonical form.

Native frames (PS3.5 section 8) come out little endian, the samples of a pixel together, each sample in its
Bits Allocated; samples of one bit as a byte each. Encapsulated frames (A.4) come out as their codestreams.
"""

import array
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise

from workers.dataset.byte_order import LittleEndianPayload
from workers.dataset.elements import ITEM, PIXEL_DATA, Element
from workers.dataset.findings import Finding
from workers.dataset.payload import BLOCK, Payload, SlicePayload
from workers.dataset.pixel_data import LONGEST_TABLE, PixelDescription
from workers.pixels.codestream import JPEG_2000_START, JPEG_START
from workers.pixels.form import FrameForm

INTEGER_BITS = (1, 8, 16, 32)  # Bits Allocated that have a canonical form here
LONGEST_CODESTREAM = 256 * 1024 * 1024  # bytes of one encapsulated frame that is read into memory
MOST_PIECES = 64 * 1024  # fragments of one frame

_ITEM_HEADER = struct.Struct("<HHI")
_BEGINNING = 12  # bytes of an item that tell what it is
_WINDOW = 64 * 1024


class FramesUnknown(Exception):  # noqa: N818 - says what is the matter
    """Which fragments make which frame cannot be told, or a frame is larger than we are ready to read."""


@dataclass(frozen=True, slots=True)
class PixelData:
    """Pixel data and where it lies; positions count within ``data_set``."""

    data_set: Payload
    transfer_syntax_uid: str
    description: PixelDescription
    marked_lossy: bool = False  # (0028,2110) is 01: a lossy step at some time (PS3.3 C.7.6.1.1.5)
    extended_offsets: Element | None = None  # (7FE0,0001)
    extended_lengths: Element | None = None  # (7FE0,0002)

    @property
    def form(self) -> FrameForm:
        """The form of each frame once it is native."""
        pixels = self.description
        return FrameForm(
            pixels.rows,
            pixels.columns,
            pixels.samples_per_pixel,
            pixels.bits_allocated,
            pixels.bits_stored,
            signed=pixels.pixel_representation == 1,
        )

    @property
    def whole_samples(self) -> bool:
        """Whether frames of integers can be told apart by the description, whatever the bytes are."""
        pixels = self.description
        return (
            pixels.tag == PIXEL_DATA
            and pixels.bits_allocated in INTEGER_BITS
            and (pixels.bits_allocated > 1 or pixels.samples_per_pixel == 1)
            and 0 < pixels.bits_stored <= pixels.bits_allocated
            and bool(pixels.rows and pixels.columns and pixels.samples_per_pixel)
            and "_42" not in pixels.photometric_interpretation  # chroma of every second pixel
            and Finding.PIXEL_ATTRIBUTE_INVALID not in pixels.problems
            and Finding.PIXEL_ATTRIBUTE_MISSING not in pixels.problems
            and Finding.DUPLICATE_TAG not in pixels.problems
        )

    @property
    def fits(self) -> bool:
        """Whether the native value is the frames of the description, and no more than a pad byte."""
        need, length = self.description.native_length, self.description.length
        return self.whole_samples and need <= length <= need + need % 2

    @property
    def is_planar(self) -> bool:
        """PS3.3 C.7.6.3.1.3: all samples of one plane, then the next; without meaning for one sample a pixel."""
        return self.description.planar_configuration == 1 and self.description.samples_per_pixel > 1


def native_blocks(pixels: PixelData) -> Iterator[memoryview]:
    """All native samples in canonical form, in blocks of bounded size whatever a frame measures.

    Where the description does not fit the bytes, or holds no integers: all of the value's bytes, little endian.
    """
    description, fits = pixels.description, pixels.fits
    length = description.native_length if fits else description.length
    if not fits or description.bits_allocated == 1 or not pixels.is_planar:
        position = 0
        remaining = description.rows * description.columns * description.number_of_frames
        while position < length:
            block = _native(pixels, position, min(BLOCK, length - position))
            position += len(block)
            if fits and description.bits_allocated == 1:
                block = _unpacked(block)[:remaining]
                remaining -= len(block)
            yield block
        return
    size = description.frame_bits // 8
    if size <= BLOCK:
        # Many at once: of frames of one pixel, a megabyte took seconds.
        step = BLOCK // size * size
        for position in range(0, length, step):
            frames = _native(pixels, position, min(step, length - position))
            yield memoryview(samples_together(frames, pixels.form))
        return
    step = BLOCK // (description.samples_per_pixel * description.bits_allocated // 8)
    for index in range(description.number_of_frames):
        for start in range(0, description.rows * description.columns, step):
            yield _interleaved(pixels, index, start, step)


def native_frame(pixels: PixelData, index: int) -> memoryview:
    """One native frame of a description that fits its bytes; `FrameForm.size` bytes of whole samples."""
    description = pixels.description
    size = description.frame_bits // 8
    if pixels.is_planar:
        return _interleaved(pixels, index, 0, description.rows * description.columns)
    return _native(pixels, index * size, size)


def samples_together(frames: bytes | memoryview, form: FrameForm) -> bytes:
    """Planar frames of whole samples with the samples of each pixel together."""
    import numpy as np  # noqa: PLC0415 - as below

    shape = -1, form.samples_per_pixel, form.rows * form.columns, form.bits_allocated // 8
    return np.frombuffer(frames, np.uint8).reshape(shape).swapaxes(1, 2).tobytes()


def _native(pixels: PixelData, position: int, length: int) -> memoryview:
    """Bytes of the native value as little endian."""
    description = pixels.description
    if not description.big_endian:
        return pixels.data_set.read(description.value_offset + position, length)
    # PS3.5 7.3: byte order concerns the 16-bit words of OW, whatever samples they hold, and no bytes of OB.
    value = SlicePayload(pixels.data_set, description.value_offset, description.length)
    return LittleEndianPayload(value, description.vr.encode("ascii", "replace")).read(position, length)


def _unpacked(block: memoryview) -> memoryview:
    """Samples of one bit as a byte each (PS3.5 8.1.1: the first pixel is the least significant bit)."""
    import numpy as np  # noqa: PLC0415 - a tenth of a second and 20 MiB of each worker, which few images need

    return np.unpackbits(np.frombuffer(block, np.uint8), bitorder="little").data


def _interleaved(pixels: PixelData, index: int, start: int, count: int) -> memoryview:
    """Pixels ``start`` and on, at most ``count``, of one planar frame, their samples brought together."""
    import numpy as np  # noqa: PLC0415 - as above

    description = pixels.description
    width = description.bits_allocated // 8
    plane = description.rows * description.columns
    count = min(count, plane - start)
    samples = description.samples_per_pixel
    together = np.empty((count, samples, width), np.uint8)
    for sample in range(samples):
        position = ((index * samples + sample) * plane + start) * width
        values = _native(pixels, position, count * width)
        together[:, sample, :] = np.frombuffer(values, np.uint8).reshape(count, width)
    return together.reshape(-1).data


class EncapsulatedFrames:
    """Fragments and the frames they make (PS3.5 A.4, PS3.3 C.7.6.3.1.8)."""

    def __init__(self, pixels: PixelData) -> None:
        """Read the item headers; nothing else yet."""
        self._pixels = pixels
        self._offsets = array.array("Q")  # of each fragment's value
        self._lengths = array.array("Q")
        self._table: tuple[int, int] = (0, 0)  # position and length of the Basic Offset Table
        self._origin = 0  # of the first item behind the table, from which offsets count
        self._first: array.array[int] = array.array("Q")  # of each frame: its first fragment
        self._true: array.array[int] = array.array("Q")  # of each frame: its length without padding, if told
        self._read_items()

    def blocks(self) -> Iterator[memoryview]:
        """The bytes of all fragments in order, frames or no frames, and of a first item that is no offset table."""
        data_set = self._pixels.data_set
        first = [] if self._may_have_table() else [self._table]
        for offset, length in chain(first, zip(self._offsets, self._lengths, strict=True)):
            for start in range(0, length, BLOCK):
                yield data_set.read(offset + start, min(BLOCK, length - start))

    def assign(self) -> None:
        """Find out which fragments make each frame.

        Raises:
            FramesUnknown: it cannot be told.
        """
        if self._first:
            return
        frames, fragments = self._pixels.description.number_of_frames, len(self._offsets)
        if not fragments or fragments < frames:
            raise FramesUnknown("fewer fragments than frames")
        if frames == 1:
            self._first = array.array("Q", [0])
        elif not (self._by_extended_table(frames) or self._by_basic_table(frames)):
            if fragments == frames:
                self._first = array.array("Q", range(frames))
            else:
                self._by_markers(frames)

    def frame(self, index: int) -> memoryview:
        """The codestream of one frame, with the padding of its last fragment unless a table tells its length.

        Raises:
            FramesUnknown: the frames cannot be told apart, or this one is too long.
        """
        self.assign()
        start = self._first[index]
        end = self._first[index + 1] if index + 1 < len(self._first) else len(self._offsets)
        length = sum(self._lengths[start:end])
        if length > LONGEST_CODESTREAM or end - start > MOST_PIECES:
            raise FramesUnknown("a frame longer than we read into memory")
        data_set = self._pixels.data_set
        if end - start == 1:
            length = self._true[index] if self._true else length
            return data_set.read(self._offsets[start], length)
        pieces = [data_set.read(self._offsets[at], self._lengths[at]) for at in range(start, end)]
        return memoryview(b"".join(pieces))

    def refuse_uncounted(self, starts: tuple[bytes, ...]) -> None:
        """Make sure that the items are an offset table and the frames; ``starts``: of a codestream, empty if unknown.

        Raises:
            FramesUnknown: there is more, which a decoder would pass over.
        """
        self.assign()
        if not self._may_have_table():
            raise FramesUnknown("no offset table, and something else in its place")
        frame = 0
        for number, place in enumerate(zip(self._offsets, self._lengths, strict=True)):
            if frame < len(self._first) and self._first[frame] == number:
                frame += 1
            elif starts and self._begins(*place).startswith(starts):
                raise FramesUnknown("more codestreams than frames")

    def _begins(self, offset: int, length: int) -> bytes:
        """The first bytes of an item's value."""
        return self._pixels.data_set.read(offset, min(_BEGINNING, length)).tobytes()

    def _may_have_table(self) -> bool:
        """Whether the first item may be a Basic Offset Table (PS3.5 A.4), be it right or wrong.

        It is empty, or has an entry for each frame, or entries that grow from 0; and there is something to point at. Some
        senders leave the table out, and have a frame in its place.
        """
        offset, length = self._table
        if not length or not self._offsets:
            return not length
        if length % 4 or length > LONGEST_TABLE:
            return False
        entries = array.array("I", self._pixels.data_set.read(offset, length).tobytes())
        is_growing = not entries[0] and all(one < other for one, other in pairwise(entries))
        return is_growing or len(entries) == self._pixels.description.number_of_frames

    def _read_items(self) -> None:
        """Each fragment's place; the walk of the data set has found them sound and counted them."""
        data_set, description = self._pixels.data_set, self._pixels.description
        position = description.value_offset
        end = position + description.length
        base, window = position, memoryview(b"")
        table = True
        while position + _ITEM_HEADER.size <= end:
            if not base <= position <= base + len(window) - _ITEM_HEADER.size:
                base, window = position, data_set.read(position, min(_WINDOW, end - position))
            group, number, length = _ITEM_HEADER.unpack_from(window, position - base)
            value = position + _ITEM_HEADER.size
            if group << 16 | number != ITEM or value + length > end:
                break
            if table:
                self._table, self._origin, table = (value, length), value + length, False
            else:
                self._offsets.append(value)
                self._lengths.append(length)
            position = value + length

    def _fragment_numbers(self, table: "array.array[int]", frames: int) -> "array.array[int] | None":
        """The fragments at which the offsets of ``table`` point; ``None`` if they are no such offsets."""
        if len(table) != frames or not table or table[0] != 0:
            return None
        numbers = array.array("Q")
        fragment = 0
        count = len(self._offsets)
        for entry in table:
            place = self._origin + entry + _ITEM_HEADER.size
            while fragment < count and self._offsets[fragment] < place:
                fragment += 1
            if fragment == count or self._offsets[fragment] != place or (numbers and fragment == numbers[-1]):
                return None
            numbers.append(fragment)
        return numbers

    def _by_basic_table(self, frames: int) -> bool:
        """PS3.5 A.4: 32-bit offsets of each frame's first item; believed only if every one points at an item."""
        offset, length = self._table
        if not length or length % 4 or length > LONGEST_TABLE:
            return False
        table = array.array("I", self._pixels.data_set.read(offset, length).tobytes())
        numbers = self._fragment_numbers(table, frames)
        if numbers is not None:
            self._first = numbers
        return numbers is not None

    def _by_extended_table(self, frames: int) -> bool:
        """PS3.3 C.7.6.3.1.8: 64-bit offsets, one fragment a frame, and true lengths without padding."""
        offsets = self._extended(self._pixels.extended_offsets)
        lengths = self._extended(self._pixels.extended_lengths)
        if len(lengths) != frames or len(self._offsets) != frames:
            return False
        numbers = self._fragment_numbers(offsets, frames)
        if numbers is None or not all(
            padded - 1 <= true <= padded for true, padded in zip(lengths, self._lengths, strict=True)
        ):
            return False
        self._first, self._true = numbers, lengths
        return True

    def _extended(self, element: Element | None) -> "array.array[int]":
        if element is None or element.length % 8 or not 0 < element.length <= LONGEST_TABLE:
            return array.array("Q")
        return array.array("Q", self._pixels.data_set.read(element.value, element.length).tobytes())

    def _by_markers(self, frames: int) -> None:
        """Without a table a frame begins where a fragment begins like a codestream (SOI, or SOC and SIZ)."""
        numbers = array.array("Q")
        for fragment, place in enumerate(zip(self._offsets, self._lengths, strict=True)):
            if self._begins(*place).startswith((JPEG_2000_START, JPEG_START + b"\xff")):
                numbers.append(fragment)
        if len(numbers) != frames or numbers[0]:
            raise FramesUnknown("more fragments than frames, and nothing that assigns them")
        self._first = numbers
