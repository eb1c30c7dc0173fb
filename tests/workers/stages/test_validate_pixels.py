"""The pixel description: geometry in exact numbers, checked against the bytes, nothing decoded."""

import struct

import pytest

from tests.support.element_trees import El, encode
from tests.support.instances import encoded, image, recorded
from workers.dataset import pixel_data
from workers.dataset.payload import MemoryPayload
from workers.dataset.pixel_data import PixelDescription
from workers.errors import Reason, Rejected
from workers.stages.validate import Examination, validate

JPEG_2000 = "1.2.840.10008.1.2.4.90"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
MPEG_4 = "1.2.840.10008.1.2.4.102"
PIXELS = 0x7FE0_0010


def examined(mode: str = "explicit", /, **changes: El | None) -> Examination:
    data, instance = encoded(mode, **changes)
    return validate(MemoryPayload([data]), instance)


def described(mode: str = "explicit", /, **changes: El | None) -> PixelDescription:
    pixels = examined(mode, **changes).pixels
    assert pixels is not None
    return pixels


def us(tag: int, value: int) -> El:
    return El(tag, "US", struct.pack("<H", value))


def problems(**changes: El | None) -> set[str]:
    return {str(problem) for problem in described(**changes).problems}


@pytest.mark.parametrize("mode", ["implicit", "explicit", "big"])
def test_native_pixels(mode: str) -> None:
    """Every attribute and position is told, in each encoding."""
    data, _ = encoded(mode)
    pixels = described(mode)
    header = 8 if mode == "implicit" else 12
    assert pixels == PixelDescription(
        rows=4,
        columns=6,
        samples_per_pixel=1,
        photometric_interpretation="MONOCHROME2",
        planar_configuration=0,
        number_of_frames=1,
        bits_allocated=16,
        bits_stored=12,
        high_bit=11,
        pixel_representation=0,
        tag=PIXELS,
        vr="" if mode == "implicit" else "OW",
        encapsulated=False,
        big_endian=mode == "big",
        offset=len(data) - 48 - header,
        value_offset=len(data) - 48,
        length=48,
        end=len(data),
        fragments=0,
        problems=(),
    )
    assert pixels.native_length == 48


def test_no_pixels_no_description() -> None:
    """Reports, waveforms and the like have none, and no finding for it."""
    examination = examined(x7FE00010=None)
    assert examination.pixels is None
    assert examination.findings == ()


@pytest.mark.parametrize(
    "tag", [0x0028_0004, 0x0028_0010, 0x0028_0011, 0x0028_0100, 0x0028_0101, 0x0028_0103]
)
def test_missing_attributes_are_a_problem(tag: int) -> None:
    """Without an attribute that decoding needs, the description says so and holds 0 for it."""
    assert "pixel-attribute-missing" in problems(**{f"x{tag:08X}": None})


@pytest.mark.parametrize(
    "element",
    [
        us(0x0028_0010, 0),
        El(0x0028_0010, "UL", b"\4\0\0\0"),  # CVE-2026-5442
        El(0x0028_0010, "SS", b"\4\0"),
        El(0x0028_0010, "US", b"\4\0\4\0"),
        El(0x0028_0004, "CS", b"\xff\xff"),
        El(0x0028_0004, "CS", b"RGB "),  # one sample a pixel
        El(0x0028_0008, "IS", b"-1"),
        El(0x0028_0008, "IS", b"0 "),
        El(0x0028_0008, "IS", b"1e9 "),
        us(0x0028_0006, 2),
        us(0x0028_0101, 17),
        us(0x0028_0102, 16),
        us(0x0028_0103, 2),
    ],
)
def test_impossible_attributes_are_a_problem(element: El) -> None:
    """A value that no image has is a problem and a finding, never an exception."""
    assert "pixel-attribute-invalid" in problems(**{f"x{element.tag:08X}": element})


def test_lengths_are_computed_without_overflow() -> None:
    """The largest sides and frame counts that can be written are simply more bytes than there are."""
    pixels = described(
        x00280002=us(0x0028_0002, 3),
        x00280004=El(0x0028_0004, "CS", b"RGB "),
        x00280008=El(0x0028_0008, "IS", b"99999999999 "),
        x00280010=us(0x0028_0010, 65535),
        x00280011=us(0x0028_0011, 65535),
        x00280100=us(0x0028_0100, 32),
    )
    assert pixels.native_length == 65535 * 65535 * 3 * 99999999999 * 4
    assert {str(problem) for problem in pixels.problems} == {"pixel-data-short"}


@pytest.mark.parametrize(
    ("length", "expected"),
    [(46, {"pixel-data-short"}), (48, set()), (50, {"pixel-data-long"}), (96, {"pixel-data-long"})],
)
def test_length_against_description(length: int, expected: set[str]) -> None:
    """Native pixel data has exactly the bytes that its description needs."""
    assert problems(x7FE00010=El(PIXELS, "OW", bytes(length))) == expected


@pytest.mark.parametrize(
    ("changes", "length"),
    [
        (
            (
                us(0x0028_0010, 3),
                us(0x0028_0011, 3),
                us(0x0028_0100, 8),
                us(0x0028_0101, 8),
                us(0x0028_0102, 7),
            ),
            10,
        ),
        (
            (
                us(0x0028_0010, 3),
                us(0x0028_0011, 3),
                us(0x0028_0100, 1),
                us(0x0028_0101, 1),
                us(0x0028_0102, 0),
            ),
            2,
        ),
        ((us(0x0028_0100, 12), us(0x0028_0101, 12)), 36),
        ((El(0x0028_0008, "IS", b"3 "),), 144),
        ((us(0x0028_0002, 3), El(0x0028_0004, "CS", b"YBR_FULL_422"), us(0x0028_0006, 0)), 96),
    ],
)
def test_packed_padded_subsampled_and_many(changes: tuple[El, ...], length: int) -> None:
    """One bit a pixel, twelve packed, an odd number of bytes, frames, halved chroma: each length is exact."""
    named = {f"x{element.tag:08X}": element for element in changes}
    assert problems(**named, x7FE00010=El(PIXELS, "OW", bytes(length))) == set()
    assert problems(**named, x7FE00010=El(PIXELS, "OW", bytes(length - 2))) == {"pixel-data-short"}


def test_absent_frames_and_planar_are_findings() -> None:
    """The two attributes that senders forget are noted; whole further frames are told from odd bytes."""
    several = examined(x7FE00010=El(PIXELS, "OW", bytes(96)))
    assert "frames-missing (0028,0008)" in several.findings
    colour = examined(
        x00280002=us(0x0028_0002, 3),
        x00280004=El(0x0028_0004, "CS", b"RGB "),
        x7FE00010=El(PIXELS, "OW", bytes(144)),
    )
    assert colour.findings == ("planar-missing (0028,0006)",)


def test_attributes_twice_are_a_problem() -> None:
    """Where readers would disagree on the geometry, nothing is decoded by it."""
    tree = image()
    rows = next(i for i, element in enumerate(tree) if element.tag == 0x0028_0010)
    data = encode([*tree[: rows + 1], us(0x0028_0010, 2), *tree[rows + 1 :]], "explicit")
    pixels = validate(MemoryPayload([data]), recorded(data)).pixels
    assert pixels is not None
    assert "pixel-attribute-invalid" in pixels.problems


def test_float_pixels() -> None:
    """Float and Double Float Pixel Data need no bits stored, and have widths of their own."""
    for tag, vr, bits in ((0x7FE0_0008, "OF", 32), (0x7FE0_0009, "OD", 64)):
        changes = {
            "x00280101": None, "x00280102": None, "x00280103": None, "x7FE00010": None,
            f"x{tag:08X}": El(tag, vr, bytes(24 * bits // 8)), "x00280100": us(0x0028_0100, bits),
        }  # fmt: skip
        assert problems(**changes) == set()
        assert problems(**changes | {"x00280100": us(0x0028_0100, 16)}) != set()


@pytest.mark.parametrize(
    ("descriptor", "length", "fits"),
    [((256, 0, 16), 512, True), ((0, 0, 8), 65536, True), ((256, 0, 8), 256, True), ((256, 0, 16), 256, False),
     ((4, 0, 12), 8, False)],
)  # fmt: skip
def test_palettes(descriptor: tuple[int, int, int], length: int, fits: bool) -> None:
    """A palette's descriptor must fit its data."""
    changes: dict[str, El | None] = {"x00280004": El(0x0028_0004, "CS", b"PALETTE COLOR ")}
    for colour in (1, 2, 3):
        tag = 0x0028_1100 + colour
        changes[f"x{tag:08X}"] = El(tag, "US", struct.pack("<3H", *descriptor))
        changes[f"x{tag + 0x100:08X}"] = El(tag + 0x100, "OW", bytes(length))
    for mode in ("explicit", "big"):
        assert ("palette (0028,1101)" not in examined(mode, **changes).findings) == fits
    assert "palette (0028,1103)" in examined(**changes | {"x00281103": None}).findings


def item(content: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def encapsulated(
    fragments: list[bytes],
    table: bytes = b"",
    syntax: str = JPEG_2000,
    /,
    **changes: El | None,
) -> Examination:
    """An image whose pixel data is these fragments."""
    head = encode([element for element in image(**changes) if element.tag != PIXELS], "explicit")
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFF_FFFF) + item(table)
    pixels += b"".join(map(item, fragments)) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    data = head + pixels
    examination = validate(MemoryPayload([data]), recorded(data, syntax))
    assert examination.pixels is not None
    assert examination.pixels.encapsulated
    assert examination.pixels.fragments == len(fragments)
    value, length = examination.pixels.value_offset, examination.pixels.length
    assert data[value : value + length] == item(table) + b"".join(map(item, fragments))
    assert (examination.pixels.offset, examination.pixels.end) == (len(head), len(data))
    return examination


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


FRAMES_2 = El(0x0028_0008, "IS", b"2 ")
EXTENDED = {
    "x7FE00001": El(0x7FE0_0001, "OV", struct.pack("<2Q", 0, 12)),
    "x7FE00002": El(0x7FE0_0002, "OV", struct.pack("<2Q", 4, 3)),
}


def test_sound_encapsulation() -> None:
    """Empty, full and extended offset tables that are right give no finding."""
    assert encapsulated([b"1234"]).findings == ()
    assert encapsulated([b"1234"], words(0)).findings == ()
    assert encapsulated([b"1234", b"56"], words(0, 12), x00280008=FRAMES_2).findings == ()
    assert encapsulated([b"1234", b"56", b"78"], words(0, 22), x00280008=FRAMES_2).findings == ()
    assert encapsulated([b"1234", b"56"]).findings == ()  # one frame in two fragments
    assert encapsulated([b"1234", b"567\0"], x00280008=FRAMES_2, **EXTENDED).findings == ()
    assert encapsulated([b"12"], b"", MPEG_4, x00280008=El(0x0028_0008, "IS", b"99")).findings == ()


@pytest.mark.parametrize(
    "table", [words(4), words(12), words(0, 12), words(12, 0), words(0xFFFF_FFFE), b"\0\0", words(0, 0)]
)
def test_wrong_offset_tables_are_findings(table: bytes) -> None:
    """Tables that do not point, in order, at the items of as many frames are noted."""
    assert "offset-table (7FE0,0010)" in encapsulated([b"1234", b"56"], table).findings


def test_wrong_extended_tables_are_findings() -> None:
    """C.7.6.3.1.8: beside an empty basic table, each frame's only fragment, with its true length."""
    for changes, table in (
        (EXTENDED, words(0, 12)),
        (EXTENDED | {"x7FE00002": El(0x7FE0_0002, "OV", struct.pack("<2Q", 4, 2))}, b""),
        (EXTENDED | {"x7FE00002": None}, b""),
        (EXTENDED | {"x7FE00001": El(0x7FE0_0001, "OV", struct.pack("<2Q", 0, 13))}, b""),
    ):
        found = encapsulated([b"1234", b"567\0"], table, x00280008=FRAMES_2, **changes).findings
        assert "offset-table (7FE0,0010)" in found


def test_fragments_against_frames() -> None:
    """Too few fragments, too many without a table, odd and empty ones each have their word."""
    few = encapsulated([b"12"], x00280008=FRAMES_2)
    many = encapsulated([b"12"] * 3, x00280008=FRAMES_2)
    assert few.pixels is not None
    assert many.pixels is not None
    assert few.pixels.problems == ("fragments-few",)
    assert many.pixels.problems == ("fragments-many",)
    assert "fragment-length (7FE0,0010)" in encapsulated([b"123"]).findings
    assert "fragment-length (7FE0,0010)" in encapsulated([b"12", b""]).findings
    none = encapsulated([])
    assert none.pixels is not None
    assert none.pixels.problems == ("fragments-few",)


def test_fragments_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their places are kept in memory."""
    monkeypatch.setattr(pixel_data, "MOST_FRAGMENTS", 3)
    assert encapsulated([b"12"] * 3).pixels is not None
    with pytest.raises(Rejected) as caught:
        encapsulated([b"12"] * 4)
    assert caught.value.reason is Reason.LIMIT


def test_form_must_fit_the_transfer_syntax() -> None:
    """Encapsulated data in a native syntax, and the reverse, is stored but not decoded."""
    assert "pixel-data-form (7FE0,0010)" in encapsulated([b"12"], b"", "1.2.840.10008.1.2.1").findings
    data, _ = encoded("explicit")
    native = validate(MemoryPayload([data]), recorded(data, JPEG_2000))
    assert native.pixels is not None
    assert native.pixels.problems == ("pixel-data-form",)


def test_lossy_without_its_mark_is_a_finding() -> None:
    """C.7.6.1.1.5: a lossy syntax asks for (0028,2110)."""
    assert "lossy-unmarked (0028,2110)" in encapsulated([b"12"], b"", JPEG_BASELINE).findings
    marked = El(0x0028_2110, "CS", b"01")
    assert encapsulated([b"12"], b"", JPEG_BASELINE, x00282110=marked).findings == ()
