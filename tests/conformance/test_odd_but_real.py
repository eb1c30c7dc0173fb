"""Odd instances that real senders make: each is stored, its bytes as they came or its pixels proved by another decoder."""

import itertools
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from openjpeg.utils import encode_array
from pydicom.encaps import generate_frames

from tests.support.acceptance import QUICK, Sent, gained, send_data_sets, send_files, settle
from tests.support.command import run
from tests.support.datasets import data_set_bytes, differing_elements, pixels, read
from tests.support.element_trees import El, encode
from tests.support.instances import SECONDARY_CAPTURE, SYNTAXES, ui
from tests.support.pipeline import Pipeline
from tests.support.pixel_objects import (
    COLOUR,
    GRAY,
    Frame,
    decoded_by_another,
    encapsulated,
    even,
    fragments,
    native,
    noise,
    us,
)
from workers.pixels.form import FrameForm
from workers.storage.part10 import HEAD, decode_head

pytestmark = [
    pytest.mark.real,
    pytest.mark.xdist_group("odd"),
    pytest.mark.filterwarnings("ignore:::pydicom"),  # odd on purpose
]

PRIVATE_CLASS = "1.3.12.2.1107.5.9.1"  # Siemens CSA Non-Image
JPEG_2000 = "1.2.840.10008.1.2.4.90"
DEFLATED = "1.2.840.10008.1.2.1.99"
ENCODED = ""  # instead of a reason to pass through

BYTES = FrameForm(40, 48, 1, 8, 8, False)
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Case:
    """An instance, why its bytes are kept (`ENCODED`: they are not), its frames, and findings it must have."""

    sent: Sent
    kept: str
    form: FrameForm = GRAY
    frames: tuple[Frame, ...] = ()
    findings: tuple[str, ...] = ()


def uid_element(uid: str) -> El:
    return El(0x0008_0018, "UI", ui(uid))


def a_native(
    kept: str = ENCODED,
    form: FrameForm = GRAY,
    mode: str = "explicit",
    *,
    frames: Sequence[Frame] | None = None,
    uid: str = "",
    findings: tuple[str, ...] = (),
    rework: Callable[[bytes], bytes] = bytes,
    syntax: str = "",
    photometric: str = "",
    planar: int = 0,
    **changes: El | None,
) -> Case:
    """Native pixel data; ``rework``: what the sender does to the bytes at last."""
    frames = [noise(form)] if frames is None else frames
    uid = uid or f"1.2.826.0.1.3680043.9.6.{next(_numbers)}"
    data, _ = native(
        form, frames, mode, photometric=photometric, planar=planar, x00080018=uid_element(uid), **changes
    )
    sop_class = changes.get("x00080016")
    named = SECONDARY_CAPTURE
    if sop_class is not None:
        assert isinstance(sop_class.value, bytes)
        named = sop_class.value.rstrip(b"\0").decode()
    return Case(Sent(named, uid, rework(data), syntax or SYNTAXES[mode]), kept, form, tuple(frames), findings)


def a_compressed(
    kept: str, syntax: str, value: bytes, frames: int, form: FrameForm, **changes: El | None
) -> Case:
    uid = f"1.2.826.0.1.3680043.9.6.{next(_numbers)}"
    data, _ = encapsulated(
        form, value, syntax, frames=frames, photometric="", x00080018=uid_element(uid), **changes
    )
    return Case(Sent(SECONDARY_CAPTURE, uid, data, syntax), kept, form)


def jpeg_2000(frame: Frame) -> bytes:
    """A codestream by OpenJPEG, which a modality may have, too."""
    return even(encode_array(frame.squeeze()))


def extended_offset_table() -> Case:
    """PS3.3 C.7.6.3.1.8: 64-bit offsets, and lengths without the pad byte; the Basic Offset Table is empty."""
    streams = [encode_array(noise(BYTES, seed).squeeze()) for seed in range(3)]
    offsets, position = [], 0
    for stream in streams:
        offsets.append(position)
        position += 8 + len(even(stream))
    return a_compressed(
        "already-jpeg2000", JPEG_2000, fragments([even(stream) for stream in streams]), 3, BYTES,
        x7FE00001=El(0x7FE0_0001, "OV", struct.pack("<3Q", *offsets)),
        x7FE00002=El(0x7FE0_0002, "OV", struct.pack("<3Q", *map(len, streams))),
    )  # fmt: skip


def deflated(data: bytes) -> bytes:
    """PS3.5 A.5: RFC 1951 without a header, padded to even length."""
    deflater = zlib.compressobj(wbits=-15)
    return even(deflater.compress(data) + deflater.flush())


def overlay() -> Case:
    """PS3.5 8.1.2 as it was: an overlay plane in a bit of Pixel Data that no sample uses."""
    return a_native(
        "overlay", frames=with_high_bits(GRAY),
        x60000010=El(0x6000_0010, "US", us(40)), x60000011=El(0x6000_0011, "US", us(48)),
        x60000040=El(0x6000_0040, "CS", b"G "), x60000050=El(0x6000_0050, "SS", struct.pack("<hh", 1, 1)),
        x60000100=El(0x6000_0100, "US", us(16)), x60000102=El(0x6000_0102, "US", us(12)),
    )  # fmt: skip


def with_high_bits(form: FrameForm) -> list[Frame]:
    return [noise(form) | np.uint16(0x5000)]


def palette() -> Case:
    """PS3.3 C.7.6.3.1.5 and 6: for each colour a table and its description."""
    described = struct.pack("<HHH", 256, 0, 16)
    red, green, blue = ((np.arange(256, dtype="<u2") * slope).tobytes() for slope in (80, 160, 240))
    return a_native(
        form=BYTES, photometric="PALETTE COLOR",
        x00281101=El(0x0028_1101, "US", described), x00281201=El(0x0028_1201, "OW", red),
        x00281102=El(0x0028_1102, "US", described), x00281202=El(0x0028_1202, "OW", green),
        x00281103=El(0x0028_1103, "US", described), x00281203=El(0x0028_1203, "OW", blue),
    )  # fmt: skip


def nested(depth: int) -> El:
    """A sequence in an item of a sequence, and so on."""
    return El(0x0040_A730, "SQ", [[nested(depth - 1)] if depth > 1 else []])


UN_ITEMS = encode([El(0x0008_1140, "SQ", [[El(0x0008_1155, "UI", ui("1.2.3"))]])], "implicit")[8:]
REFERENCE = encode([El(0x0008_1155, "UI", ui("1.2.3"))], "explicit") + b"\xfe\xff\x0d\xe0" + bytes(4)
ITEM_WITH_DELIMITER = struct.pack("<HHI", 0xFFFE, 0xE000, len(REFERENCE)) + REFERENCE
CREATOR = El(0x0009_0010, "LO", b"ACME 1.1")
ONE_BIT = FrameForm(40, 48, 1, 1, 1, False)
SIGNED = FrameForm(40, 48, 1, 16, 12, True)
FLOAT = El(0x7FE0_0008, "OF", np.linspace(0, 1, 40 * 48, dtype="<f4").tobytes())


def cases() -> dict[str, Case]:
    """Every form by its name."""
    odd = FrameForm(33, 35, 1, 8, 8, False)
    return {
        "trailing zeros": a_native(rework=lambda data: data + bytes(126), findings=("trailing-zeros",)),
        "trailing padding": a_native(xFFFCFFFC=El(0xFFFC_FFFC, "OB", bytes(126))),
        "odd lengths that even out": a_native(
            "elements",
            form=odd, rework=lambda data: odd_length(data, odd), findings=("odd-length (7FE0,0010)",),
            x00080060=El(0x0008_0060, "CS", b"CT "),
        ),
        "odd pixel count, padded": a_native(form=odd),
        "UIDs behind the patient": a_native("tag-order", rework=uids_last, findings=("tag-order (0008,0016)",)),
        "leading zero": a_native(uid="1.2.826.0.01.3680043.9.6", findings=("uid-leading-zero (0008,0018)",)),
        "private class": a_native("private-class", x00080016=El(0x0008_0016, "UI", ui(PRIVATE_CLASS))),
        "UN sequence": a_native(x00090010=CREATOR, x00091002=El(0x0009_1002, "UN", UN_ITEMS)),
        "UN sequence of undefined length": a_native(
            x00090010=CREATOR, x00091002=El(0x0009_1002, "UN", UN_ITEMS + b"\xfe\xff\xdd\xe0" + bytes(4), undefined=True)
        ),
        "lengths and delimiters": a_native(
            x00081140=El(0x0008_1140, "SQ", ITEM_WITH_DELIMITER + b"\xfe\xff\xdd\xe0" + bytes(4)),
            findings=("delimiter (0008,1140)", "delimiter (FFFE,E000)"),
        ),
        "sixty sequences in each other": a_native(x0040A730=nested(60)),
        "private element without creator": a_native(x00291010=El(0x0029_1010, "OB", b"\1\2\3\4")),
        "implicit with private": a_native(mode="implicit", x00090010=CREATOR, x00091001=El(0x0009_1001, "UN", b"\1\2")),
        "numbers longer than explicit VR holds": a_native(
            "elements", mode="implicit", x00181065=El(0x0018_1065, "DS", b"33.3667\\" * 9000)
        ),
        "stale group length": a_native(x00080000=El(0x0008_0000, "UL", b"\7\0\0\0")),
        "unknown character set": a_native(x00080005=El(0x0008_0005, "CS", b"ISO_IR 6"), x00100010=El(0x0010_0010, "PN", b"M\xfcller^X")),
        "deflated": a_native(rework=deflated, syntax=DEFLATED),
        "big endian": a_native("big-endian", mode="big"),
        "extended offset table": extended_offset_table(),
        "basic offset table": a_compressed(
            "already-jpeg2000", JPEG_2000,
            fragments([jpeg_2000(noise(BYTES))] * 2, struct.pack("<II", 0, 8 + len(jpeg_2000(noise(BYTES))))), 2, BYTES,
        ),
        "a frame in two fragments": a_compressed(
            "already-jpeg2000", JPEG_2000,
            fragments([jpeg_2000(noise(BYTES))[:400], jpeg_2000(noise(BYTES))[400:]]), 1, BYTES,
        ),
        "offset table that lies": a_compressed(
            "already-jpeg2000", JPEG_2000, fragments([jpeg_2000(noise(BYTES))], b"\xff\xff\0\0"), 1, BYTES
        ),
        "multi-frame": a_native(frames=[noise(GRAY, seed) for seed in range(4)]),
        "frames not numbered": a_native(
            "length", frames=[noise(GRAY, 1), noise(GRAY, 2)], x00280008=None, findings=("frames-missing",)
        ),
        "signed, 12 in 16": a_native(form=SIGNED),
        "RGB of 16 bits": a_native(form=FrameForm(40, 48, 3, 16, 16, False)),
        "RGB by planes": a_native(form=COLOUR, planar=1),
        "RGB without planar configuration": a_native(form=COLOUR, x00280006=None, findings=("planar-missing",)),
        "YBR_FULL": a_native(form=COLOUR, photometric="YBR_FULL"),
        "palette": palette(),
        "one bit": a_native("one-bit", ONE_BIT, frames=[], x7FE00010=El(0x7FE0_0010, "OB", bytes(range(240)))),
        "overlay in high bits": overlay(),
        "high bits that nothing explains": a_native("unused-bits", frames=with_high_bits(GRAY)),
        "high bit of left-justified samples": a_native(
            "high-bit", frames=[noise(GRAY) << 4], x00280102=El(0x0028_0102, "US", us(15))
        ),
        "31 rows": a_native("small", FrameForm(31, 48, 1, 16, 12, False)),
        "32 bits": a_native("bits", FrameForm(40, 48, 1, 32, 32, False)),
        "float": a_native("float", FrameForm(40, 48, 1, 32, 32, False), frames=[], x7FE00010=None, x7FE00008=FLOAT),
        "no pixels": a_native("no-pixels", frames=[], x7FE00010=None),
        "pixel data too short": a_native("length", frames=[noise(GRAY)[:-1]], findings=("pixel-data-short",)),
        "pixel data too long": a_native(
            "length", frames=[np.concatenate([noise(GRAY), noise(GRAY)[:1]])], findings=("pixel-data-long",)
        ),
        "no name, no ID": a_native(
            x00100010=El(0x0010_0010, "PN", b"^^^ "), x00100020=None, findings=("patient-unidentified (0010,0020)",)
        ),
    }  # fmt: skip


def odd_length(data: bytes, form: FrameForm) -> bytes:
    """Pixel Data without its pad byte, and (0008,0060) with an odd length, too, so that the whole stays even."""
    assert data.endswith(b"\0")
    at = data.rindex(struct.pack("<I", form.size + 1))
    data = data[:at] + struct.pack("<I", form.size) + data[at + 4 : -1]
    at = data.index(b"\x08\0\x60\0CS")
    return data[: at + 6] + b"\3\0" + data[at + 8 :]


def uids_last(data: bytes) -> bytes:
    """The elements of group 0008 between those of the patient and the pixels, as a toolkit appends what it changes."""
    at = data.index(b"\x10\0\x10\0PN")
    pixels = data.index(b"\xe0\x7f\x10\0O")
    return data[at:pixels] + data[:at] + data[pixels:]


CASES = cases()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline that has stored all of them."""
    environment = {**QUICK, "DICOM_INGEST_RECEIVER__PRIVATE_STORAGE_CLASSES": PRIVATE_CLASS}
    data = tmp_path_factory.mktemp("odd") / "data"
    with Pipeline(data, workers=2, environment=environment) as running:
        assert set(send_data_sets(running.port, [case.sent for case in CASES.values()])) == {0}
        status = settle(running)
        assert status["received"] == status["stored"] == len(CASES)
        yield running


@pytest.mark.parametrize("name", CASES)
def test_it_is_kept(pipeline: Pipeline, name: str, tmp_path: Path) -> None:
    """Byte for byte, or encoded with pixels that another decoder than ours finds equal, and all other elements."""
    case = CASES[name]
    path = pipeline.objects()[case.sent.uid]
    manifest = decode_head(path.read_bytes()[:HEAD]).manifest
    assert manifest.passed_through == case.kept
    for finding in case.findings:
        assert any(found.startswith(finding) for found in manifest.findings), manifest.findings
    assert subprocess.run(["dcmdump", "-q", str(path)], capture_output=True, check=False).returncode == 0
    if case.kept:
        assert data_set_bytes(path) == case.sent.data
        return
    stored, sent = read(path), read(case.sent.write(tmp_path / "sent.dcm"))
    assert stored.file_meta.TransferSyntaxUID == JPEG_2000
    assert differing_elements(sent, stored) == []
    found = list(generate_frames(stored.PixelData, number_of_frames=len(case.frames)))
    assert [decoded_by_another(each, case.form) for each in found] == [
        frame.tobytes() for frame in case.frames
    ]
    if case.form.samples_per_pixel == 3:
        assert stored.get("PlanarConfiguration", 0) == 0
        assert stored.PhotometricInterpretation == {"RGB": "YBR_RCT"}.get(
            sent.PhotometricInterpretation, "YBR_FULL"
        )
        for one in (sent, stored):
            one.setdefault("PlanarConfiguration", 0)  # without which pydicom reads no colours
    before, after = pixels(sent), pixels(stored)
    assert before is not None
    assert after is not None
    assert np.array_equal(before, after)


def test_all_of_it_again(pipeline: Pipeline) -> None:
    """Sent again, and the stored objects sent back by a reader of the store: nothing but duplicates; all is sound."""
    before = settle(pipeline)
    assert set(send_data_sets(pipeline.port, [case.sent for case in CASES.values()])) == {0}
    assert set(send_files(pipeline.port, pipeline.objects().values()).values()) == {0}
    assert gained(before, settle(pipeline)) == {"received": 2 * len(CASES), "duplicates": 2 * len(CASES)}
    assert run(pipeline.data, "verify", "--report-only").code == 0
