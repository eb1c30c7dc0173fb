"""What passes through, each with its word; and what a failing codec makes of an instance."""

import asyncio
import functools
import os
import signal
import struct
from pathlib import Path

import pytest

from ingest.contract.records import Instance
from ingest.contract.settings import Settings, TranscodeSettings
from tests.support.element_trees import El, encode
from tests.support.instances import image, recorded, ui
from tests.support.pixel_objects import (
    COLOUR,
    GRAY,
    description,
    encapsulated,
    even,
    examined,
    fragments,
    native,
    noise,
    us,
)
from workers.pixels.codec import Codec
from workers.pixels.form import Failure, FrameForm
from workers.stages.passage import Passage, passage
from workers.stages.transcode import PassedThrough, Transcoded, transcode

CODESTREAM = fragments([b"\xff\xd8\xff\xd9"])


def reason(data: bytes, instance: Instance, settings: Settings | None = None) -> Passage | None:
    return passage(examined(data, instance), settings or Settings())


gray = functools.partial(native, GRAY, [noise(GRAY)])


def of_form(rows: int, columns: int, samples: int, allocated: int, stored: int) -> tuple[bytes, Instance]:
    form = FrameForm(rows, columns, samples, allocated, stored, False)
    value = bytes(rows * columns * samples * allocated // 8)
    elements: dict[str, El | None] = {**description(form)}
    elements["x7FE00010"] = El(0x7FE0_0010, "OW", value + b"\0" * (len(value) % 2))
    data = encode(image(**elements), "explicit")
    return data, recorded(data)


def cs(text: str) -> El:
    return El(0x0028_0004, "CS", text.encode() + b" " * (len(text) % 2))


NATIVE_CASES = {
    "encodable": (gray(), None),
    "no pixels": (gray(x7FE00010=None), Passage.NO_PIXELS),
    "float": (
        native(FrameForm(40, 48, 1, 32, 32, False), [noise(GRAY)], x7FE00010=None,
               x7FE00008=El(0x7FE0_0008, "OF", bytes(40 * 48 * 4))), Passage.FLOAT),
    "double": (
        native(FrameForm(40, 48, 1, 64, 64, False), [noise(GRAY)], x7FE00010=None,
               x7FE00009=El(0x7FE0_0009, "OD", bytes(40 * 48 * 8))), Passage.FLOAT),
    "big endian": (native(GRAY, [noise(GRAY)], "big"), Passage.BIG_ENDIAN),
    "signature": (gray(xFFFAFFFA=El(0xFFFA_FFFA, "SQ", [[]])), Passage.SIGNATURE),
    "mac parameters": (gray(x4FFE0001=El(0x4FFE_0001, "SQ", [[]])), Passage.SIGNATURE),
    "overlay": (gray(x60000102=El(0x6000_0102, "US", us(12))), Passage.OVERLAY),
    "last overlay": (gray(x601E0102=El(0x601E_0102, "US", us(15))), Passage.OVERLAY),
    "overlay data": (
        gray(x60000102=El(0x6000_0102, "US", us(12)), x60003000=El(0x6000_3000, "OW", bytes(240))), None),
    "overlay at 0": (gray(x60000102=El(0x6000_0102, "US", us(0))), None),
    "one bit": (of_form(40, 48, 1, 1, 1), Passage.ONE_BIT),
    "422": (gray(x00280004=cs("YBR_FULL_422")), Passage.YBR_422),
    "420": (gray(x00280004=cs("YBR_PARTIAL_420")), Passage.YBR_422),
    "short": (gray(x7FE00010=El(0x7FE0_0010, "OW", bytes(GRAY.size - 2))), Passage.LENGTH),
    "long": (gray(x7FE00010=El(0x7FE0_0010, "OW", bytes(GRAY.size + 2))), Passage.LENGTH),
    "frames that are not there": (gray(x00280008=El(0x0028_0008, "IS", b"2 ")), Passage.LENGTH),
    "no rows": (gray(x00280010=El(0x0028_0010, "US", us(0))), Passage.DESCRIPTION),
    "rows missing": (gray(x00280010=None), Passage.DESCRIPTION),
    "more stored than allocated": (
        gray(x00280101=El(0x0028_0101, "US", us(17)), x00280102=El(0x0028_0102, "US", us(16))),
        Passage.DESCRIPTION),
    "signed palette": (
        gray(x00280004=cs("PALETTE COLOR"), x00280103=El(0x0028_0103, "US", us(1))), Passage.DESCRIPTION),
    "hsv": (native(COLOUR, [noise(COLOUR)], photometric="HSV"), Passage.PHOTOMETRIC),
    "rct of a native": (native(COLOUR, [noise(COLOUR)], photometric="YBR_RCT"), Passage.PHOTOMETRIC),
    "argb": (
        native(FrameForm(40, 48, 4, 8, 8, False), [noise(FrameForm(40, 48, 4, 8, 8, False))], photometric="ARGB"),
        Passage.PHOTOMETRIC),
    "unknown": (gray(x00280004=cs("SOMETHING")), Passage.PHOTOMETRIC),
    "25 stored": (of_form(40, 48, 1, 32, 25), Passage.BITS),
    "24 stored": (of_form(40, 48, 1, 32, 24), None),
    "32 stored": (of_form(40, 48, 1, 32, 32), Passage.BITS),
    "12 allocated": (of_form(40, 48, 1, 12, 12), Passage.BITS),
    "24 allocated": (of_form(40, 48, 1, 24, 24), Passage.BITS),
    "64 allocated": (of_form(40, 48, 1, 64, 24), Passage.BITS),
    "high bit": (gray(x00280102=El(0x0028_0102, "US", us(15))), Passage.HIGH_BIT),
    "31 rows": (of_form(31, 48, 1, 8, 8), Passage.SMALL),
    "31 columns": (of_form(48, 31, 1, 8, 8), Passage.SMALL),
    "longer than its VR": (
        native(GRAY, [noise(GRAY)], "implicit", x00181065=El(0x0018_1065, "DS", b"33.3667\\" * 9000)),
        Passage.ELEMENTS),
    "as long as its VR may be": (
        native(GRAY, [noise(GRAY)], "implicit", x00181065=El(0x0018_1065, "DS", b"33.3\\1" * 9000)), None),
    "long in any VR": (
        native(GRAY, [noise(GRAY)], "implicit", x0040A160=El(0x0040_A160, "UT", b"T" * 70_000)), None),
    "32 by 32": (of_form(32, 32, 1, 8, 8), None),
}  # fmt: skip


@pytest.mark.parametrize("case", NATIVE_CASES)
def test_native_sources(case: str) -> None:
    """Each rule of PS3.5 Table 8.2.4-1 and of what a codestream cannot hold has its word."""
    (data, instance), expected = NATIVE_CASES[case]
    assert reason(data, instance) == expected


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("4.50", "lossy"), ("4.51", "lossy"), ("4.57", "jpeg-lossless"), ("4.70", "jpeg-lossless"),
        ("4.80", "jpeg-ls"), ("4.81", "jpeg-ls"), ("4.90", "already-jpeg2000"), ("4.91", "already-jpeg2000"),
        ("4.92", "already-jpeg2000"), ("4.93", "already-jpeg2000"), ("4.100", "video"), ("4.101", "video"),
        ("4.102", "video"), ("4.103", "video"), ("4.104", "video"), ("4.105", "video"), ("4.106", "video"),
        ("4.107", "video"), ("4.108", "video"), ("4.201", "htj2k"), ("4.202", "htj2k"), ("4.203", "htj2k"),
        ("4.110", "other-syntax"), ("4.111", "other-syntax"), ("4.112", "other-syntax"), ("8.1", "other-syntax"),
        ("5", "rle"), ("1.98", "other-syntax"),
    ],
)  # fmt: skip
def test_compressed_sources(last: str, expected: str) -> None:
    """What is compressed already stays as it is, each family under its word."""
    data, instance = encapsulated(GRAY, CODESTREAM, "1.2.840.10008.1.2." + last)
    assert reason(data, instance) == expected


def test_disabled() -> None:
    """Off by configuration, nothing is encoded, and that is what is said of everything."""
    off = Settings(transcode=TranscodeSettings(enabled=False))
    assert reason(*gray(), off) is Passage.DISABLED
    assert reason(*gray(x7FE00010=None), off) is Passage.DISABLED


def test_private_class() -> None:
    """A SOP Class that is not DICOM's own may mean anything by its pixel data."""
    private = "1.3.12.2.1107.5.9.1"
    data, _ = gray(x00080016=El(0x0008_0016, "UI", ui(private)))
    assert reason(data, recorded(data, sop_class=private)) is Passage.PRIVATE_CLASS


def test_tags_out_of_order() -> None:
    """Elements that c1 cannot compare are not carried anywhere."""
    tree = image(**description(GRAY), x7FE00010=El(0x7FE0_0010, "OW", noise(GRAY).tobytes()))
    tree[3], tree[4] = tree[4], tree[3]
    data = encode(tree, "explicit")
    assert reason(data, recorded(data)) is Passage.TAG_ORDER


def test_a_frame_too_large() -> None:
    """Above what one codec process may hold; told without reading the frame."""
    form = FrameForm(12_000, 12_000, 1, 8, 8, False)
    data, instance = native(form, [], x7FE00010=El(0x7FE0_0010, "OB", bytes(form.size)))
    assert reason(data, instance) is Passage.LARGE


def test_every_failure_is_a_reason() -> None:
    """Each word that the codec has for a failure is one that an instance may pass through with."""
    assert {str(failure) for failure in Failure} <= {str(passage) for passage in Passage}


def run(data: bytes, instance: Instance, codec: Codec, scratch: Path) -> Transcoded | PassedThrough:
    async def scenario() -> Transcoded | PassedThrough:
        async with codec:
            return await transcode(examined(data, instance), codec, Settings(), scratch)

    return asyncio.run(scenario())


def test_unused_bits(tmp_path: Path) -> None:
    """Found in the last of three frames: none is kept, and the digest is that of the whole."""
    frames = [noise(GRAY, seed) for seed in range(3)]
    frames[2][39, 47] |= 0x8000
    result = run(*native(GRAY, frames), Codec(memory=2 << 30, timeout=60), tmp_path)
    assert isinstance(result, PassedThrough)
    assert result.reason is Passage.UNUSED_BITS
    assert result.pixels is not None
    assert result.pixels.kind == "native"
    assert not result.again


def test_time_limit(tmp_path: Path) -> None:
    """A codec that does not answer is a reason to try again, and not to lose the instance."""
    form = FrameForm(1024, 1024, 1, 16, 16, False)
    result = run(*native(form, [noise(form)]), Codec(memory=2 << 30, timeout=0.001), tmp_path)
    assert isinstance(result, PassedThrough)
    assert result.reason is Passage.TIMED_OUT
    assert result.again


def test_memory_limit(tmp_path: Path) -> None:
    """A frame that needs more address space than the codec may have passes through; the worker lives."""
    form = FrameForm(4096, 4096, 1, 16, 16, False)
    data, instance = native(form, [], x7FE00010=El(0x7FE0_0010, "OW", bytes(form.size)))
    result = run(data, instance, Codec(memory=200 << 20, timeout=60), tmp_path)
    assert isinstance(result, PassedThrough)
    assert result.reason in (Passage.MEMORY, Passage.REFUSED, Passage.CRASHED)


def test_a_killed_codec_never_settles_the_digest(tmp_path: Path) -> None:
    """A pass-through whose frames must be decoded for their digest is to be tried again if the codec dies."""
    form = FrameForm(1024, 1024, 1, 16, 12, False)

    async def scenario() -> None:
        async with Codec(memory=2 << 30, timeout=60) as codec:
            codestream = even(await codec.encode_proved(noise(form).tobytes(), form))
            data, instance = encapsulated(form, fragments([codestream]), "1.2.840.10008.1.2.4.90")
            (pid,) = codec.pids
            os.kill(pid, signal.SIGSTOP)  # or a quick one may be done before it is killed
            task = asyncio.create_task(transcode(examined(data, instance), codec, Settings(), tmp_path))
            await asyncio.sleep(0.02)
            os.kill(pid, signal.SIGKILL)
            result = await task
            assert isinstance(result, PassedThrough)
            assert result.reason is Passage.ALREADY_JPEG_2000
            assert result.again
            second = await transcode(examined(data, instance), codec, Settings(), tmp_path)
            assert isinstance(second, PassedThrough)
            assert not second.again
            assert second.pixels is not None
            assert second.pixels.kind == "native"

    asyncio.run(scenario())


def test_frames_that_cannot_be_told(tmp_path: Path) -> None:
    """An RLE source to be decoded whose fragments are not its frames passes through with `frames`."""
    settings = Settings(transcode=TranscodeSettings(decode_lossless=("rle",)))
    header = struct.pack("<16I", 2, 64, *([0] * 14))
    data, instance = encapsulated(GRAY, fragments([header] * 3), "1.2.840.10008.1.2.5", frames=2)
    assert reason(data, instance, settings) is Passage.FRAMES

    async def scenario() -> PassedThrough | Transcoded:
        async with Codec(memory=2 << 30, timeout=60) as codec:
            return await transcode(examined(data, instance), codec, settings, tmp_path)

    result = asyncio.run(scenario())
    assert isinstance(result, PassedThrough)
    assert result.pixels is not None
    assert result.pixels.kind == "encoded"
