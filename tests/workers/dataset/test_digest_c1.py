"""Scheme c1: equal for every lossless encoding of one object, different for everything else."""

import hashlib
import struct
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.element_trees import El, Tree, encode, encode_item, trees
from tests.support.instances import image, ui
from workers.dataset.dictionary import is_text
from workers.dataset.digest import IDENTITY_TAGS, ContentDigests, content_digests, differing_tags
from workers.dataset.elements import Limits, Walker
from workers.dataset.payload import MemoryPayload
from workers.dataset.transfer_syntax import Encoding

MODES = {
    "implicit": Encoding.IMPLICIT_LITTLE,
    "explicit": Encoding.EXPLICIT_LITTLE,
    "big": Encoding.EXPLICIT_BIG,
}


def digests(tree: Tree, mode: str = "explicit") -> ContentDigests | None:
    return content_digests(MemoryPayload([encode(tree, mode)]), MODES[mode])


def canonical(tree: Tree) -> bytes:
    """The form that c1 digests, written a second time from its description."""
    out = b""
    for element in tree:
        tag = struct.pack("<HH", element.tag >> 16, element.tag & 0xFFFF)
        if not element.value:
            out += tag + bytes(4)
        elif isinstance(element.value, list):
            out += tag + b"\xff\xff\xff\xff"
            for item in element.value:
                out += bytes.fromhex("feff00e0ffffffff") + canonical(item) + bytes.fromhex("feff0de000000000")
            out += bytes.fromhex("feffdde000000000")
        else:
            value = element.value.rstrip(b" \0") if is_text(element.tag) else element.value
            out += tag + struct.pack("<I", len(value)) + value
    return out


@given(trees())
def test_is_the_sha256_of_the_canonical_form(tree: Tree) -> None:
    """From every encoding, the digest is that of the described form: implicit, undefined lengths, pads off."""
    elements = [element for element in tree if element.tag not in IDENTITY_TAGS]
    expected = hashlib.sha256(canonical(elements)).hexdigest()
    for mode in MODES:
        found = digests(tree, mode)
        assert found is not None
        assert found.elements == expected


def test_known_answer() -> None:
    """The scheme is written into manifests: its digests never change while it is called c1."""
    tree = [*image(), El(0x0040_A730, "SQ", [[El(0x0008_0060, "CS", b"CT")], []])]
    found = digests(sorted(tree))
    assert found == ContentDigests(
        identity="62ea91a4826795539eb3e5b2341adb80671dd9dbea904ebe2bbfc13e5e704be2",
        elements="df8397e2c5eb80a73acd3a314d6b4ef3ba35ffd3ad9b74b031e5ddf42937c835",
    )


@given(trees(), st.data())
def test_any_other_bit_is_other_content(tree: Tree, data: st.DataObject) -> None:
    """One changed bit in any value that is not padding changes the digest."""
    flat = [i for i, element in enumerate(tree) if isinstance(element.value, bytes) and element.value]
    assume(flat)
    index = data.draw(st.sampled_from(flat))
    element = tree[index]
    assert isinstance(element.value, bytes)
    at = data.draw(st.integers(0, len(element.value) * 8 - 1))
    value = bytearray(element.value)
    value[at // 8] ^= 1 << at % 8
    if is_text(element.tag):
        assume(bytes(value).rstrip(b" \0") != element.value.rstrip(b" \0"))
    changed = [*tree]
    changed[index] = element._replace(value=bytes(value))
    assert digests(tree) != digests(changed)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"\0\0", b""),  # zero is not nothing
        (b"\x20\0", b"\0\0"),  # a number that looks like a space
        (b"\x05\0", b"\x05\x20"),  # a high byte that looks like one
    ],
)
def test_numbers_have_no_padding(one: bytes, other: bytes) -> None:
    """Trailing spaces and NULs of numbers and private values are content."""
    for tag, vr in ((0x0028_0106, "US"), (0x0009_1001, "UN")):
        assert digests([El(tag, vr, one)]) != digests([El(tag, vr, other)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (El(0x0010_0010, "PN", b"Doe^Jane"), El(0x0010_0010, "PN", b"Doe^Jane  ")),
        (El(0x0020_000D, "UI", b"1.2.3\0"), El(0x0020_000D, "UI", b"1.2.3 ")),
        (El(0x0009_0010, "LO", b"X "), El(0x0009_0010, "LO", b"X\0")),
        (El(0x6000_0022, "LO", b"X "), El(0x6000_0022, "LO", b"X   ")),
        (El(0x0040_A160, "UT", b"T" * 70_000), El(0x0040_A160, "UT", b"T" * 70_000 + b" " * 140_000)),
        (El(0x0028_0004, "CS", b"RGB "), El(0x0028_0004, "CS", b"YBR_RCT ")),
        (El(0x0010_0020, "LO", b"7 "), El(0x0010_0020, "UN", b"7 ")),
    ],
)
def test_the_same_said_otherwise(one: El, other: El) -> None:
    """Padding, the VR on the wire, and the colour transform's name are no content."""
    assert digests([one]) == digests([other])


@pytest.mark.parametrize(
    "extra",
    [
        El(0x0008_0000, "UL", b"\1\2\3\4"),
        El(0x0008_0054, "AE", b"SOMEWHERE "),
        El(0x0008_0056, "CS", b"ONLINE"),
        El(0x0028_0006, "US", b"\1\0"),
        El(0x0088_0130, "SH", b"DISK"),
        El(0x0088_0140, "UI", b"1.2 "),
        El(0x7FE0_0001, "OV", bytes(8)),
        El(0x7FE0_0002, "OV", bytes(8)),
        El(0x7FE0_0010, "OW", bytes(100_000)),
        El(0xFFFC_FFFC, "OB", bytes(20)),
    ],
)
def test_what_is_left_out(extra: El) -> None:
    """What follows from the transfer syntax or the place of keeping does not count."""
    tree: Tree = [El(0x0008_0060, "CS", b"CT")]
    for mode in MODES:
        assert digests(sorted([*tree, extra]), mode) == digests(tree, mode)


def test_left_out_only_at_the_top() -> None:
    """Inside a sequence these tags speak of other objects, and count."""
    for tag, vr, value in (
        (0x0008_0054, "AE", b"AB"),
        (0x0028_0006, "US", b"\1\0"),
        (0x7FE0_0010, "OW", b"AB"),
    ):
        full: Tree = [El(0x0008_1140, "SQ", [[El(tag, vr, value)]])]
        assert digests(full) != digests([El(0x0008_1140, "SQ", [[]])])


def test_unknown_that_holds_items_is_a_sequence() -> None:
    """A private sequence has the same digest as UN of either length, and as OB that reads the same."""
    item: Tree = [El(0x0008_0060, "CS", b"CT"), El(0x0040_A730, "SQ", [[El(0x0028_0010, "US", b"\4\0")]])]
    sequence = digests([El(0x0009_1003, "SQ", [item])])
    for undefined in (False, True):
        items = encode_item(item, "implicit", undefined=undefined)
        for vr in ("UN", "OB"):
            assert digests([El(0x0009_1003, vr, items)]) == sequence
            assert digests([El(0x0009_1003, vr, items + b"\0\0")]) != sequence


@pytest.mark.parametrize("mode", MODES)
def test_native_pixels_are_no_items(mode: str) -> None:
    """Samples may begin as an item does: they are no elements, in or out of order, and not counted as such."""
    looks_alike = b"\xfe\xff\x00\xe0" + struct.pack("<I", 4000) + bytes(4000)
    tree = image(x7FE00010=El(0x7FE0_0010, "OW", looks_alike))
    assert digests(tree, mode) == digests(image())
    walker = Walker(MemoryPayload([encode(tree, mode)]), MODES[mode], Limits(elements=100))
    assert len(list(walker)) == len(tree)


def test_long_values_count_whole() -> None:
    """Values that are digested in blocks count to the last byte, in both byte orders, whatever their length."""
    for length in (70_002, 2_000_002, 2_097_152):
        one = El(0x0066_0023, "OW", bytes(range(250)) * (length // 250) + bytes(length % 250))
        assert isinstance(one.value, bytes)
        other = one._replace(value=one.value[:-1] + b"\1")
        assert digests([one]) == digests([one], "big") == digests([one], "implicit")
        assert digests([one]) != digests([other])


def test_disorder_has_no_content_digest() -> None:
    """Elements out of order or twice: readers disagree what they mean, so only source digests compare."""
    one, other = El(0x0008_0060, "CS", b"CT"), El(0x0008_0070, "LO", b"AB")
    assert digests([one, other]) is not None
    assert digests([other, one]) is None
    assert digests([one, one]) is None
    assert digests([El(0x0008_1140, "SQ", [[other, one]])]) is None


def differing(one: Tree, other: Tree, mode: str = "explicit", maximum: int = 64) -> tuple[int, ...]:
    return differing_tags(
        (MemoryPayload([encode(one, mode)]), MODES[mode]),
        (MemoryPayload([encode(other, "implicit")]), Encoding.IMPLICIT_LITTLE),
        maximum,
    )


def test_differing_tags_name_what_differs() -> None:
    """Changed, added and missing top-level elements are named, identity first; equal and left-out ones are not."""
    one = image()
    assert differing(one, one, "big") == ()
    other = image(
        x00080005=El(0x0008_0005, "CS", b"ISO_IR 100"),
        x00100020=El(0x0010_0020, "LO", b"ID 2"),
        x00280103=None,
        x7FE00010=El(0x7FE0_0010, "OW", bytes(48)),
    )
    assert differing(one, other) == (0x0010_0020, 0x0008_0005, 0x0028_0103)
    assert differing(one, other, maximum=1) == (0x0010_0020,)
    assert digests(one) != digests(other)


def test_a_tag_repeated_many_times() -> None:
    """How often and with which values counts; 60,000 of one tag take no longer than 60,000 tags, not forty times as long."""
    repeated = [El(0x0030_0010, "LO", b"xy")] * 60_000
    apart = [El(0x0031_0010 + (group << 17), "LO", b"xy") for group in range(30_000)] * 2

    def seconds(tree: Tree) -> float:
        start = time.process_time()
        assert differing(tree, tree) == ()
        return time.process_time() - start

    assert seconds(repeated) < 5 * seconds(apart)
    assert differing(repeated, repeated[1:]) == (0x0030_0010,)
    one, other = (
        [El(0x0030_0010, "LO", value) for value in values] for values in ((b"a ", b"b "), (b"b ", b"a "))
    )
    assert differing(one, other) == (0x0030_0010,)


def test_identity_is_digested_apart() -> None:
    """Another patient, study or accession changes the identity digest and leaves that of the elements."""
    first = digests(image())
    assert first is not None
    for tag, vr in ((0x0010_0010, "PN"), (0x0010_0020, "LO"), (0x0010_0021, "LO"), (0x0008_0050, "SH")):
        other = digests(image(**{f"x{tag:08X}": El(tag, vr, b"Other ")}))
        assert other is not None
        assert other.elements == first.elements
        assert other.identity != first.identity
    other = digests(image(x0020000D=El(0x0020_000D, "UI", ui("1.2.9"))))
    assert other is not None
    assert other.identity != first.identity
