"""What one native frame is, and what a codec process is asked (PS3.3 C.7.6.3, PS3.5 section 8).

Imported by both ends of the codec's channel, so it needs the standard library alone and starts fast.
"""

import enum
import struct
from dataclasses import dataclass
from typing import Final, Self


class Coding(enum.IntEnum):
    """The families of codestreams that decode to exact samples."""

    JPEG_2000 = 1  # also High-Throughput JPEG 2000 (PS3.5 A.4.4)
    JPEG_LS = 2  # A.4.3
    JPEG_LOSSLESS = 3  # A.4.1, process 14
    RLE = 4  # A.4.2, Annex G
    UNCOMPRESSED = 5  # A.4.11: native frames in fragments


class Failure(enum.StrEnum):
    """Why a codec gave no result: the closed list that counters use."""

    CRASHED = "crashed"  # the process ended
    TIMED_OUT = "timed-out"  # no answer within the limit of a frame
    MEMORY = "memory"  # the limit of its address space was met
    REFUSED = "refused"  # the library said no
    UNPROVED = "unproved"  # the output does not decode to the input
    UNUSED_BITS = "unused-bits"  # bits above Bits Stored hold something
    DISAGREES = "disagrees"  # the codestream's header is not the data set's description
    LOSSY = "lossy"  # the codestream says that it is not reversible
    DAMAGED = "damaged"  # the codestream cannot be decoded


class CodecFailed(Exception):  # noqa: N818 - says what happened
    """A fact about one frame, and so about its instance; the next frame is served all the same.

    ``again``: another try may end otherwise, since the process may have been ended from outside.
    """

    def __init__(self, reason: Failure, detail: str = "") -> None:
        """``detail``: a sentence without values of the data set."""
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail
        self.again = reason in (Failure.CRASHED, Failure.TIMED_OUT, Failure.MEMORY)


@dataclass(frozen=True, slots=True)
class FrameForm:
    """The shape of one native frame: little endian, samples of a pixel together (Planar Configuration 0)."""

    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int  # 1, 8, 16 or 32
    bits_stored: int
    signed: bool  # Pixel Representation 1

    @property
    def samples(self) -> int:
        """Samples of the frame."""
        return self.rows * self.columns * self.samples_per_pixel

    @property
    def size(self) -> int:
        """Bytes of the frame; samples of one bit take a byte each."""
        return self.samples * max(1, self.bits_allocated // 8)


ENCODE: Final = 1
DECODE: Final = 2
READY: Final = b"ready"  # the first message of a process

# Operation, coding, rows, columns, samples, allocated, stored, signed, component transform, bytes of the data.
_REQUEST = struct.Struct("<BBIIHHHBBQ")
_ANSWER = struct.Struct("<BQ")  # 0 and the bytes of the result; or 1 and the bytes of the text behind it
LONGEST_ANSWER: Final = _ANSWER.size + 512
REQUEST_SIZE: Final = _REQUEST.size


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a codec process; the data lies in the shared memory, from its first byte."""

    operation: int
    coding: Coding
    form: FrameForm
    transform: bool  # encoding: apply the reversible component transform to three samples
    length: int  # bytes of the frame or the codestream

    def encode(self) -> bytes:
        """As a message."""
        form = self.form
        return _REQUEST.pack(
            self.operation,
            self.coding,
            form.rows,
            form.columns,
            form.samples_per_pixel,
            form.bits_allocated,
            form.bits_stored,
            form.signed,
            self.transform,
            self.length,
        )

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """A message as the request it is."""
        operation, coding, rows, columns, samples, allocated, stored, signed, transform, length = (
            _REQUEST.unpack(message)
        )
        form = FrameForm(rows, columns, samples, allocated, stored, bool(signed))
        return cls(operation, Coding(coding), form, bool(transform), length)


def encode_answer(length: int) -> bytes:
    """The result lies in the shared memory."""
    return _ANSWER.pack(0, length)


def encode_failure(reason: Failure, detail: str) -> bytes:
    """There is no result."""
    text = f"{reason} {detail}".encode("ascii", "replace")[: LONGEST_ANSWER - _ANSWER.size]
    return _ANSWER.pack(1, len(text)) + text


def decode_answer(message: bytes) -> int:
    """Bytes of the result in the shared memory.

    Raises:
        CodecFailed: the process gave a reason instead, or what it sent is no answer.
    """
    if len(message) < _ANSWER.size:
        raise CodecFailed(Failure.CRASHED, "an answer that is none")
    kind, length = _ANSWER.unpack_from(message)
    if kind == 0:
        return int(length)
    word, _, detail = message[_ANSWER.size :].decode("ascii", "replace").partition(" ")
    try:
        reason = Failure(word)
    except ValueError:
        raise CodecFailed(Failure.CRASHED, "an answer that is none") from None
    raise CodecFailed(reason, detail)
