"""``python -m tests.support.faulty_codec ARGUMENTS``: `dicom-ingest` with a codec that fails at a frame as the frame says."""

import sys

import numpy as np

from ingest.cli.group import main
from tests.support.pixel_objects import Frame, noise
from workers.pixels.codec import Codec, Data
from workers.pixels.form import CodecFailed, Failure, FrameForm

_MARK = 0xABC
_FIRST = 0xF00
FAILURES = list(Failure)

_encode_proved = Codec.encode_proved


def failing(form: FrameForm, failure: Failure) -> Frame:
    """A frame of 16 bits, at least 12 of them stored, at which the codec fails so."""
    frame = noise(form)
    frame[0, 0, 0], frame[0, 1, 0] = _FIRST + FAILURES.index(failure), _MARK
    return frame


async def encode_proved(self: Codec, frame: Data, form: FrameForm, *, transform: bool = False) -> bytes:
    number, mark = (int(sample) for sample in np.frombuffer(memoryview(frame).cast("B")[:4], "<u2"))
    if mark == _MARK and _FIRST <= number < _FIRST + len(FAILURES):
        raise CodecFailed(FAILURES[number - _FIRST], "as the frame says")
    return await _encode_proved(self, frame, form, transform=transform)


if __name__ == "__main__":
    Codec.encode_proved = encode_proved  # type: ignore[method-assign]  # in this process alone
    main(sys.argv[1:])
