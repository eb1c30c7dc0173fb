"""The walk: the same run of tokens from every encoding, exact positions, nothing but Rejected from bad bytes."""

import contextlib
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.element_trees import WIDTHS, El, Tree, encode, encode_item, swapped, trees
from workers.dataset import elements
from workers.dataset.elements import Kind, Limits, Token, Walker
from workers.dataset.findings import Findings
from workers.dataset.payload import FilePayload, MemoryPayload
from workers.dataset.transfer_syntax import Encoding
from workers.errors import Reason, Rejected

MODES = {
    "implicit": Encoding.IMPLICIT_LITTLE,
    "explicit": Encoding.EXPLICIT_LITTLE,
    "big": Encoding.EXPLICIT_BIG,
}


def walk(data: bytes, mode: str = "explicit", limits: Limits | None = None) -> list[Token]:
    return list(Walker(MemoryPayload([data]), MODES[mode], limits))


def findings(data: bytes, mode: str = "explicit") -> tuple[str, ...]:
    noted = Findings()
    for _ in Walker(MemoryPayload([data]), MODES[mode], None, noted):
        pass
    return noted.texts()


def rejection(data: bytes, mode: str = "explicit", limits: Limits | None = None) -> Reason:
    with pytest.raises(Rejected) as caught:
        walk(data, mode, limits)
    assert 0 <= caught.value.position <= len(data)
    return caught.value.reason


def steps(data: bytes, mode: str) -> list[Token]:
    """What is walked before the end or a rejection."""
    tokens: list[Token] = []
    with contextlib.suppress(Rejected):
        tokens.extend(Walker(MemoryPayload([data]), MODES[mode]))
    return tokens


def expected(tree: Tree) -> list[tuple[Kind, int, bytes]]:
    out: list[tuple[Kind, int, bytes]] = []
    for element in tree:
        if isinstance(element.value, bytes):
            out.append((Kind.VALUE, element.tag, element.value))
            continue
        out.append((Kind.SEQUENCE, element.tag, b""))
        for item in element.value:
            out += [(Kind.ITEM, 0xFFFE_E000, b""), *expected(item), (Kind.ITEM_END, 0xFFFE_E000, b"")]
        out.append((Kind.SEQUENCE_END, element.tag, b""))
    return out


def without_empty_sequences(run: list[tuple[Kind, int, bytes]]) -> list[tuple[Kind, int, bytes]]:
    """In implicit VR nothing tells an empty private sequence from an empty value."""
    out: list[tuple[Kind, int, bytes]] = []
    for step in run:
        if step[0] is Kind.SEQUENCE_END and out[-1][0] is Kind.SEQUENCE:
            out[-1] = (Kind.VALUE, step[1], b"")
        else:
            out.append(step)
    return out


@given(trees())
def test_every_encoding_gives_the_same_run(tree: Tree) -> None:
    """Implicit, explicit and big endian forms of a tree walk alike, and each value lies where its token says."""
    for mode, encoding in MODES.items():
        data = encode(tree, mode)
        walker = Walker(MemoryPayload([data]), encoding)
        run = []
        for token in walker:
            value = b""
            if token.kind is Kind.VALUE:
                value = bytes(walker.value(token))
                assert value == data[token.value : token.value + token.length]
                if token.big:
                    value = swapped(value, WIDTHS.get(token.vr.decode(), 1))
            run.append((token.kind, token.tag, value))
        assert without_empty_sequences(run) == without_empty_sequences(expected(tree))
        assert walker.ordered
        assert not walker.findings.texts()


@given(trees(depth=2), st.sampled_from(sorted(MODES)))
@settings(max_examples=40)
def test_a_cut_inside_an_element_is_truncation(tree: Tree, mode: str) -> None:
    """Every prefix that does not end between top-level elements is rejected, never read as less."""
    data = encode(tree, mode)
    boundaries = {0}
    for element in tree:
        boundaries.add(max(boundaries) + len(encode([element], mode)))
    for cut in range(len(data)):
        if cut in boundaries:
            walk(data[:cut], mode)
        elif data[max(at for at in boundaries if at < cut) : cut].strip(b"\0"):
            rejection(data[:cut], mode)


@given(st.binary(max_size=300), st.sampled_from(sorted(MODES)))
def test_noise_is_rejected_or_walked(data: bytes, mode: str) -> None:
    """Random bytes raise nothing but Rejected, and no walk takes more steps than the bytes allow."""
    assert len(steps(data, mode)) <= len(data) // 4 + 1


@given(trees(), st.sampled_from(sorted(MODES)), st.integers(0, 2**32))
def test_mutations_are_rejected_or_walked(tree: Tree, mode: str, seed: int) -> None:
    """Flipped, deleted and doubled bytes raise nothing but Rejected."""
    data = bytearray(encode(tree, mode))
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 4)):
        if not data:
            break
        at = chance.randrange(len(data))
        data[at : at + chance.choice((0, 1, 1, 4))] = chance.randbytes(chance.choice((0, 1, 1, 4)))
    steps(bytes(data), mode)


@given(trees(), st.sampled_from(sorted(MODES)), st.integers(1, 40))
def test_the_window_does_not_matter(tree: Tree, mode: str, size: int) -> None:
    """Read through a tiny window over scattered buffers, the walk is the same."""
    data = encode(tree, mode)
    scattered = MemoryPayload([data[at : at + size] for at in range(0, len(data), size)])
    ordinary = elements._WINDOW
    elements._WINDOW = elements._LOOK_AHEAD
    try:
        assert list(Walker(scattered, MODES[mode])) == walk(data, mode)
    finally:
        elements._WINDOW = ordinary


def test_a_file_walks_like_memory(tmp_path: Path) -> None:
    """Values larger than the window are stepped over in a file as in memory."""
    tree = [
        El(0x0009_1002, "OB", bytes(600_000)),
        El(0x0018_0050, "DS", b"1 "),
        El(0x7FE0_0010, "OW", bytes(10)),
    ]
    data = encode(tree, "explicit")
    path = tmp_path / "data_set"
    path.write_bytes(data)
    with FilePayload(path) as payload:
        assert list(Walker(payload, Encoding.EXPLICIT_LITTLE)) == walk(data)


def nested(depth: int, mode: str, *, undefined: bool) -> bytes:
    data = b""
    for _ in range(depth):
        item = encode_item([], mode, undefined=undefined)
        head, tail = (item[:-8], item[-8:]) if undefined else (item[:4] + struct.pack("<I", len(data)), b"")
        content = head + data + tail
        length = 0xFFFF_FFFF if undefined else len(content)
        end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) if undefined else b""
        vr = b"" if mode == "implicit" else b"SQ\0\0"
        data = struct.pack("<HH", 0x0040, 0xA730) + vr + struct.pack("<I", length) + content + end
    return data


@pytest.mark.parametrize("mode", ["implicit", "explicit"])
@pytest.mark.parametrize("undefined", [False, True])
def test_depth_is_limited(mode: str, undefined: bool) -> None:
    """Nesting up to the limit is walked; one deeper, or ten thousand deeper, is rejected without recursion."""
    assert walk(nested(128, mode, undefined=undefined), mode)
    assert rejection(nested(129, mode, undefined=undefined), mode) is Reason.LIMIT
    assert rejection(nested(10_000, mode, undefined=undefined), mode) is Reason.LIMIT


def test_items_are_limited() -> None:
    """Half a million empty items are walked within the limit of elements; more than the limit is rejected."""
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 500_000
    data = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, len(items)) + items
    assert sum(token.kind is Kind.ITEM for token in walk(data)) == 500_000
    assert rejection(data, limits=Limits(elements=50_000)) is Reason.LIMIT


def test_a_sparse_whole_slide_is_within_the_limit() -> None:
    """150,000 tiles, each with its place and optical path (PS3.3 C.7.6.17.3, C.8.12.6.1), and delimiters everywhere."""
    place = [El(0x0040_072A, "DS", b"1 "), El(0x0040_073A, "DS", b"1 "), El(0x0040_074A, "DS", b"0 ")]
    place += [El(0x0048_021E, "SL", bytes(4)), El(0x0048_021F, "SL", bytes(4))]
    tile = [
        El(0x0020_9111, "SQ", [[El(0x0020_9157, "UL", bytes(8))]], undefined=True),
        El(0x0048_0207, "SQ", [[El(0x0048_0106, "SH", b"1 ")]], undefined=True),
        El(0x0048_021A, "SQ", [place], undefined=True),
    ]
    walker = Walker(
        MemoryPayload([encode([El(0x5200_9230, "SQ", [tile] * 150, undefined=True)], "explicit")]),
        Encoding.EXPLICIT_LITTLE,
    )
    assert sum(token.kind is Kind.VALUE for token in walker) == 150 * 7
    assert walker.count * 1000 <= Limits().elements


def test_trials_spend_the_same_budget() -> None:
    """Values that only look like items cost what they are long, once, and count against the limit."""
    inner = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 1000
    broken = inner + b"\xfe\xff\x00\xe0\xff\x00\x00\x00"
    tree = [El(0x0009_0010, "LO", b"X "), *(El(0x0009_1001 + i, "UN", broken) for i in range(20))]
    data = encode(tree, "explicit")
    assert [token.kind for token in walk(data)] == [Kind.VALUE] * 21
    assert rejection(data, limits=Limits(elements=10_000)) is Reason.LIMIT


def test_unknown_of_undefined_length_is_implicit_items() -> None:
    """PS3.5 6.2.2: UN of undefined length holds implicit VR little endian items, also in big endian."""
    content = encode_item([El(0x0008_0060, "CS", b"CT")], "implicit", undefined=True)
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    explicit = struct.pack("<HH2sHI", 0x0009, 0x1003, b"UN", 0, 0xFFFF_FFFF) + content + end
    big = struct.pack(">HH2sHI", 0x0009, 0x1003, b"UN", 0, 0xFFFF_FFFF) + content + end
    for data, mode in ((explicit, "explicit"), (big, "big")):
        tokens = walk(data, mode)
        assert [token.kind for token in tokens] == [1, 2, 0, 3, 4]
        assert not tokens[2].big
        assert data[tokens[2].value : tokens[2].value + 2] == b"CT"


def test_implicit_items_in_explicit_sequences_are_a_finding() -> None:
    """Senders write private sequences without VRs inside explicit data sets; they are walked and noted."""
    content = encode_item(
        [El(0x0008_0060, "CS", b"CT"), El(0x0008_0070, "LO", b"AB")], "implicit", undefined=False
    )
    data = struct.pack("<HH2sHI", 0x0009, 0x1003, b"SQ", 0, len(content)) + content
    assert [token.tag for token in walk(data) if token.kind is Kind.VALUE] == [0x0008_0060, 0x0008_0070]
    assert findings(data) == ("implicit-item (0009,1003)",)


ITEM_END, SEQUENCE_END = (struct.pack("<HHI", 0xFFFE, element, 0) for element in (0xE00D, 0xE0DD))
CONTENT = encode([El(0x0008_0060, "CS", b"CT")], "explicit")


def item(content: bytes, *, undefined: bool = False) -> bytes:
    """An item without a delimiter."""
    return struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFF_FFFF if undefined else len(content)) + content


def sequence(content: bytes, vr: bytes = b"SQ") -> bytes:
    """A sequence of defined length, and an element behind it."""
    head = struct.pack("<HH2sHI", 0x0008, 0x1140, vr, 0, len(content))
    return head + content + encode([El(0x0018_0050, "DS", b"1 ")], "explicit")


@pytest.mark.parametrize(
    ("content", "tag"),
    [
        (item(CONTENT) + SEQUENCE_END, "(0008,1140)"),
        (item(CONTENT + ITEM_END), "(FFFE,E000)"),
        (item(CONTENT + ITEM_END, undefined=True) + SEQUENCE_END, "(0008,1140)"),
        (item(CONTENT, undefined=True), "(FFFE,E000)"),
    ],
)
def test_lengths_and_delimiters_may_be_mixed(content: bytes, tag: str) -> None:
    """Writers of delimiters who count them in a length, too, or leave out the last: DCMTK and pydicom read that as it is meant."""
    data = sequence(content)
    tokens = walk(data)
    assert [token.kind for token in tokens] == [1, 2, 0, 3, 4, 0]
    assert data[tokens[2].value : tokens[2].value + 2] == b"CT"
    assert tokens[4].value == tokens[5].offset
    assert f"delimiter {tag}" in findings(data)


def test_a_data_set_may_end_like_an_item() -> None:
    """With a delimiter at its very end, and nothing behind it."""
    data = CONTENT + ITEM_END
    assert [token.kind for token in walk(data)] == [Kind.VALUE]
    assert findings(data) == ("delimiter (0000,0000)",)
    assert rejection(data + CONTENT) is Reason.STRUCTURE


def test_unknown_values_with_such_delimiters_stay_bytes() -> None:
    """Content digest c1 has had them as bytes from its beginning."""
    content = encode([El(0x0008_0060, "CS", b"CT")], "implicit")
    assert [token.kind for token in walk(sequence(item(content), b"UN"))] == [1, 2, 0, 3, 4, 0]
    for value in (item(content) + SEQUENCE_END, item(content + ITEM_END), item(content, undefined=True)):
        assert [token.kind for token in walk(sequence(value, b"UN"))] == [0, 0]


def test_fragments_are_stepped_over() -> None:
    """Encapsulated pixel data gives one token an item, at any depth, and no fragment is looked into."""
    items = b"".join(
        struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
        for content in (b"", b"\xfe\xff\x0d\xe0AB", b"CD")
    )
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFF_FFFF) + items
    pixels += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    assert [token.kind for token in walk(pixels)] == [5, 6, 6, 6, 7]
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(pixels)) + pixels
    icon = struct.pack("<HH2sHI", 0x0088, 0x0200, b"SQ", 0, len(item)) + item
    assert [token.kind for token in walk(icon)] == [1, 2, 5, 6, 6, 6, 7, 3, 4]
    assert rejection(pixels[:-8]) is Reason.TRUNCATED


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x08\0\x60\0CS\x03\0CTX", "odd-length (0008,0060)"),
        (b"\x08\0\x70\0LO\0\0\x08\0\x60\0CS\0\0", "tag-order (0008,0060)"),
        (b"\x08\0\x60\0CS\0\0\x08\0\x60\0CS\0\0", "duplicate-tag (0008,0060)"),
        (b"\x09\0\x10\0OB\1\0\0\0\0\0", "reserved-bytes (0009,0010)"),
        (b"\x09\0\x10\0ZZ\0\0\2\0\0\0AB", "unknown-vr (0009,0010)"),
        (b"\x08\0\x60\0CS\2\0CT" + bytes(3), "trailing-zeros (0000,0000)"),
        (b"\x08\0\x60\0CS\2\0CT" + bytes(500), "trailing-zeros (0000,0000)"),
    ],
)
def test_common_malformations_are_findings(data: bytes, text: str) -> None:
    """What real senders get wrong is noted with its tag, and the walk goes on."""
    assert text in findings(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x08\0\x60\0", Reason.TRUNCATED),
        (b"\x08\0\x60\0CS\x08\0CT", Reason.TRUNCATED),
        (b"\x08\0\x60\0cs\2\0CT", Reason.STRUCTURE),
        (b"\x09\0\x10\0OB\0\0\xff\xff\xff\xff", Reason.STRUCTURE),
        (b"\xfe\xff\xdd\xe0\0\0\0\0", Reason.STRUCTURE),
        (b"\xe0\x7f\x10\0SQ\0\0\xff\xff\xff\xff\xfe\xff\xdd\xe0\0\0\0\0", Reason.STRUCTURE),
        (b"\x08\0\x40\x11SQ\0\0\x08\0\0\0\x08\0\x60\0CS\0\0", Reason.STRUCTURE),
        (b"\x08\0\x40\x11SQ\0\0\x08\0\0\0\xfe\xff\0\xe0\x09\0\0\0" + b"\x08\0\x60\0CS\0\0", Reason.STRUCTURE),
        (b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff", Reason.TRUNCATED),
        (b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x0d\xe0\0\0\0\0", Reason.STRUCTURE),
    ],
)
def test_what_cannot_be_read_is_rejected(data: bytes, reason: Reason) -> None:
    """Lengths that point outside and delimiters that end nothing are rejected with the word for it."""
    assert rejection(data) is reason
