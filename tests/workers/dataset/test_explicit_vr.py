"""Re-encoding as Explicit VR Little Endian: no value changes, the right VRs, the very bytes where they can stay."""

import io
import struct

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.element_trees import El, Tree, encode, encode_item, trees
from tests.support.instances import image
from workers.dataset.digest import content_digests
from workers.dataset.elements import PIXEL_DATA, Element, Kind, Token, Walker
from workers.dataset.explicit_vr import CannotReencode, explicit_element, explicit_vr
from workers.dataset.payload import JoinedPayload, MemoryPayload, Payload
from workers.dataset.transfer_syntax import Encoding

MODES = {
    "implicit": Encoding.IMPLICIT_LITTLE,
    "explicit": Encoding.EXPLICIT_LITTLE,
    "big": Encoding.EXPLICIT_BIG,
}


def index(payload: Payload, encoding: Encoding) -> list[Element]:
    """The top-level index, made here a second time."""
    elements: list[Element] = []
    opened: Token | None = None
    for token in Walker(payload, encoding):
        if token.depth:
            continue
        if token.kind is Kind.VALUE:
            opened, end = token, token.value + token.length
        elif opened is None:
            opened = token
            continue
        else:
            end = token.value
        elements.append(
            Element(opened.tag, opened.vr, opened.offset, opened.value, opened.length, end, opened.big)
        )
        opened = None
    return elements


def sides(data: bytes, mode: str, changes: dict[int, bytes | None] | None = None) -> tuple[bytes, bytes]:
    payload = MemoryPayload([data])
    before, after = explicit_vr(payload, MODES[mode], index(payload, MODES[mode]), changes)
    return bytes(before.read(0, before.size)), bytes(after.read(0, after.size))


def reencoded(tree: Tree, mode: str) -> bytes:
    return b"".join(sides(encode(tree, mode), mode))


def as_pydicom(data: bytes) -> pydicom.Dataset:
    return pydicom.filereader.read_dataset(io.BytesIO(data), is_implicit_VR=False, is_little_endian=True)


@given(trees())
def test_no_value_changes(tree: Tree) -> None:
    """From every encoding the result walks, and has the content digest of its source."""
    source = content_digests(MemoryPayload([encode(tree, "explicit")]), Encoding.EXPLICIT_LITTLE)
    for mode in MODES:
        result = reencoded(tree, mode)
        assert content_digests(MemoryPayload([result]), Encoding.EXPLICIT_LITTLE) == source


def known(tree: Tree) -> Tree:
    """Without private elements, whose VR implicit VR loses."""
    return [
        element._replace(value=[known(item) for item in element.value])
        if isinstance(element.value, list)
        else element
        for element in tree
        if not element.tag & 0x1_0000
    ]


@given(trees(), st.sampled_from(sorted(MODES)))
def test_public_elements_come_back_to_the_byte(tree: Tree, mode: str) -> None:
    """What only holds public elements of known VR is, written anew, exactly its explicit form."""
    public = known(tree)
    assert reencoded(public, mode) == encode(public, "explicit")


@given(trees(), st.integers(1, 64))
def test_results_read_the_same_in_any_ranges(tree: Tree, step: int) -> None:
    """The result is a payload like any other, also where long big endian values are turned while read."""
    tree = sorted([*tree, El(0x5400_1010, "OW", bytes(range(256)) * 17)])
    payload = MemoryPayload([encode(tree, "big")])
    before, _ = explicit_vr(payload, Encoding.EXPLICIT_BIG, index(payload, Encoding.EXPLICIT_BIG))
    whole = bytes(before.read(0, before.size))
    assert whole == encode(tree, "explicit")
    read = [bytes(before.read(at, min(step, before.size - at))) for at in range(0, before.size, step)]
    assert b"".join(read) == whole
    assert b"".join(before.blocks(step)) == whole


@pytest.mark.parametrize("mode", sorted(MODES))
def test_pixel_data_divides(mode: str) -> None:
    """Pixel data is left out; what stood before and behind it is given apart."""
    tree = [*image(), El(0xFFFC_FFFC, "OB", b"\0\0")]
    before, after = sides(encode(tree, mode), mode)
    assert before == encode([element for element in tree if element.tag < PIXEL_DATA], "explicit")
    assert after == encode(tree[-1:], "explicit")


def test_explicit_bytes_are_spliced() -> None:
    """From Explicit VR Little Endian even malformed bytes stay; only what would be wrong of them goes."""
    head = b"\x08\0\x60\0CS\x03\0CTX" + b"\x09\0\x10\0OB\1\1\2\0\0\0AB" + b"\x10\0\x00\0UL\4\0\1\2\3\4"
    odd = b"\x28\0\x00\0UL\4\0\1\2\3\4" + b"\x28\0\x04\0CS\4\0RGB "
    data = head + odd + b"\xe0\x7f\x00\0UL\4\0\1\2\3\4" + encode([El(PIXEL_DATA, "OW", b"1234")], "explicit")
    before, after = sides(data + bytes(32), "explicit")
    assert (before, after) == (head + odd, b"")
    photometric = explicit_element(0x0028_0004, "CS", b"YBR_RCT")
    before, _ = sides(data, "explicit", {0x0028_0004: photometric, 0x0028_0006: b"absent stays absent"})
    assert before == head + b"\x28\0\x04\0CS\x08\0YBR_RCT "


@pytest.mark.parametrize("mode", sorted(MODES))
def test_changes_replace_and_leave_out(mode: str) -> None:
    """A change stands in place of a top-level element, or takes it out, and touches nothing nested."""
    icon = El(0x0088_0200, "SQ", [[El(0x0028_0006, "US", b"\1\0")]])
    tree = sorted([*image(x00280006=El(0x0028_0006, "US", b"\1\0")), icon, El(0x7FE0_0001, "OV", bytes(8))])
    planar = explicit_element(0x0028_0006, "US", b"\0\0")
    before, _ = sides(encode(tree, mode), mode, {0x0028_0006: planar, 0x7FE0_0001: None})
    expected = image(x00280006=El(0x0028_0006, "US", b"\0\0"), x7FE00010=None)
    assert before == encode(sorted([*expected, icon]), "explicit")


def vr_of(elements: Tree, *path: int) -> str:
    """VR of an element after a trip from implicit VR, as pydicom reads it."""
    ds = as_pydicom(reencoded(sorted(elements), "implicit"))
    for tag in path[:-1]:
        ds = ds[tag].value[0]
    return str(ds.get_item(path[-1]).VR)


def test_ambiguous_vrs() -> None:
    """Where the dictionary leaves a choice, the data set around decides (PS3.5 A.1, PS3.3 C.7.6.3, C.11.1)."""
    smallest, lut = 0x0028_0106, 0x0028_3000
    for sign, vr in ((b"\0\0", "US"), (b"\1\0", "SS")):
        signed = [El(0x0028_0103, "US", sign), El(smallest, "US", b"\1\0"), El(0x0022_1452, "US", b"\1\0")]
        assert vr_of(signed, smallest) == vr_of(signed, 0x0022_1452) == vr
        modality = El(
            lut, "SQ", [[El(0x0028_3002, "US", b"\2\0\0\0\x10\0"), El(0x0028_3006, "OW", bytes(4))]]
        )
        assert vr_of([*signed, modality], lut, 0x0028_3002) == vr
        assert vr_of([*signed, modality], lut, 0x0028_3006) == "OW"
    single = El(lut, "SQ", [[El(0x0028_3002, "US", b"\1\0\0\0\x10\0"), El(0x0028_3006, "US", b"\1\0")]])
    assert vr_of([single], lut, 0x0028_3006) == "US"
    icon = El(0x0088_0200, "SQ", [[El(0x0028_0103, "US", b"\1\0"), El(smallest, "US", b"\1\0")]])
    assert vr_of([El(0x0028_0103, "US", b"\0\0"), icon], 0x0088_0200, smallest) == "SS"
    assert vr_of([El(0x0088_0200, "SQ", [[El(PIXEL_DATA, "OW", b"12")]])], 0x0088_0200, PIXEL_DATA) == "OW"
    assert vr_of([El(0x6002_3000, "OW", b"12")], 0x6002_3000) == "OW"
    assert vr_of([El(0x5400_1010, "OW", b"12")], 0x5400_1010) == "OW"


def test_private_vrs() -> None:
    """Private elements have the VR of their creator's dictionary in their own block and data set, else UN."""
    creator = El(0x0019_0011, "LO", b"SIEMENS MR HEADER ")
    assert vr_of([creator, El(0x0019_110C, "IS", b"1 ")], 0x0019_110C) == "IS"
    assert vr_of([creator, El(0x0019_120C, "IS", b"1 ")], 0x0019_120C) == "UN"
    assert vr_of([El(0x0019_110C, "IS", b"1 ")], 0x0019_110C) == "UN"
    assert vr_of([creator, El(0x0019_1199, "IS", b"1 ")], 0x0019_1199) == "UN"
    assert vr_of([creator], 0x0019_0011) == "LO"
    nested = El(0x0040_A730, "SQ", [[El(0x0019_110C, "IS", b"1 ")]])
    assert vr_of([creator, nested], 0x0040_A730, 0x0019_110C) == "UN"


@pytest.mark.parametrize(
    ("element", "vr"),
    [
        (El(0x0028_0010, "US", b"123"), "UN"),  # no whole number
        (El(0x0018_0050, "DS", b"1" * 70_000), "UN"),  # PS3.5 6.2.2: too long for a 16-bit length
        (El(0x0009_1001, "UN", b"AB"), "UN"),
        (El(0x0008_9999, "UN", b"AB"), "UN"),  # public, but no dictionary knows it
        (El(0x0040_A160, "UT", b"T" * 70_000), "UT"),
    ],
)
def test_values_that_fit_no_vr_are_unknown(element: El, vr: str) -> None:
    """A value goes as UN rather than under a VR that it cannot have."""
    result = reencoded([element], "implicit")
    assert result[4:6].decode() == vr
    assert result.endswith(element.value if isinstance(element.value, bytes) else b"")


def test_unknown_items_stay_bytes() -> None:
    """Items of unknown VR with a defined length stay UN with their implicit bytes (PS3.5 6.2.2); else become SQ."""
    item: Tree = [El(0x0008_0060, "CS", b"CT")]
    defined = El(0x0009_1003, "UN", encode_item(item, "implicit", undefined=False))
    assert reencoded([defined], "implicit") == encode([defined], "explicit")
    undefined = El(0x0009_1003, "SQ", [item], undefined=True)
    assert reencoded([undefined], "implicit") == encode([undefined], "explicit")


def test_group_lengths_go() -> None:
    """Where headers are written anew, group lengths would be wrong; they are retired and left out."""
    nested = El(0x0008_1140, "SQ", [[El(0x0008_0000, "UL", bytes(4)), El(0x0008_0060, "CS", b"CT")]])
    tree = [El(0x0008_0000, "UL", bytes(4)), El(0x0008_0060, "CS", b"CT"), nested]
    result = as_pydicom(reencoded(tree, "implicit"))
    assert [element.tag for element in result] == [0x0008_0060, 0x0008_1140]
    assert [element.tag for element in result[0x0008_1140].value[0]] == [0x0008_0060]


@pytest.mark.parametrize("mode", sorted(MODES))
@pytest.mark.parametrize("length", [0, 2, 8, 100_000])
def test_what_only_looks_like_a_group_length_stays(mode: str, length: int) -> None:
    """Another value under a group length's number is an element: digested and carried over."""
    tree = [El(0x0008_0060, "CS", b"CT"), El(0x0009_0000, "UN", bytes(length))]
    result = reencoded(tree, mode)
    assert result == encode(tree, "explicit")
    without = content_digests(MemoryPayload([encode(tree[:1], mode)]), MODES[mode])
    assert content_digests(MemoryPayload([encode(tree, mode)]), MODES[mode]) != without


def test_icon_fragments_are_kept() -> None:
    """Encapsulated pixel data inside a sequence is carried over fragment by fragment."""
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, 5000) + bytes(5000)
    pixels = struct.pack(">HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFF_FFFF) + items
    pixels += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    item = struct.pack(">HHI", 0xFFFE, 0xE000, len(pixels)) + pixels
    data = struct.pack(">HH2sHI", 0x0088, 0x0200, b"SQ", 0, len(item)) + item
    result = b"".join(sides(data, "big"))
    assert result[20:].endswith(items + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))
    payload = MemoryPayload([data])
    assert content_digests(payload, Encoding.EXPLICIT_BIG) == content_digests(
        MemoryPayload([result]), Encoding.EXPLICIT_LITTLE
    )


def test_memory_is_bounded() -> None:
    """Long values stay where they are; too many short ones are refused rather than held."""
    many = encode([El(0x0009_1001, "UN", bytes(4000))], "implicit") * 17_000
    payload = MemoryPayload([many])
    with pytest.raises(CannotReencode):
        explicit_vr(payload, Encoding.IMPLICIT_LITTLE, [])
    long = encode([El(0x0009_1001, "UN", bytes(4100))], "implicit") * 17_000
    before, after = explicit_vr(MemoryPayload([long]), Encoding.IMPLICIT_LITTLE, [])
    assert JoinedPayload([before, after]).size == len(long) + 4 * 17_000


@pytest.mark.parametrize("mode", sorted(MODES))
def test_pixel_data_twice_is_refused(mode: str) -> None:
    """Of two Pixel Data elements neither may vanish: the instance stays as it was received."""
    tree = image()
    with pytest.raises(CannotReencode):
        sides(encode([*tree, tree[-1]], mode), mode)
