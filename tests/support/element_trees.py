"""Data sets as trees, written by an encoder of the tests' own in every native encoding, and drawn by Hypothesis.

A tree is a list of elements in tag order. A value is bytes with little endian numbers, or a list of trees: the
items of a sequence.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import strategies as st

UNDEFINED = 0xFFFF_FFFF
LONG_VRS = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
WIDTHS = {"US": 2, "SS": 2, "OW": 2, "AT": 2, "UL": 4, "SL": 4, "FL": 4, "OF": 4, "OL": 4}
WIDTHS |= {"FD": 8, "OD": 8, "OV": 8, "SV": 8, "UV": 8}


class El(NamedTuple):
    """One element of a tree."""

    tag: int
    vr: str
    value: "bytes | list[Tree]"
    undefined: bool = False


Tree = list[El]


def swapped(value: bytes, width: int) -> bytes:
    """Each number's bytes reversed."""
    return b"".join(value[at : at + width][::-1] for at in range(0, len(value), width))


def encode(tree: Sequence[El], mode: str) -> bytes:
    """The tree in ``mode``: "implicit", "explicit" or "big"."""
    order = ">" if mode == "big" else "<"
    out = b""
    for element in tree:
        tag = struct.pack(order + "HH", element.tag >> 16, element.tag & 0xFFFF)
        if isinstance(element.value, list):
            value = b"".join(encode_item(item, mode, undefined=element.undefined) for item in element.value)
            if element.undefined:
                value += struct.pack(order + "HHI", 0xFFFE, 0xE0DD, 0)
        else:
            value = swapped(element.value, WIDTHS.get(element.vr, 1)) if mode == "big" else element.value
        length = UNDEFINED if element.undefined else len(value)
        if mode == "implicit":
            out += tag + struct.pack("<I", length) + value
        elif element.vr in LONG_VRS:
            out += tag + element.vr.encode() + b"\0\0" + struct.pack(order + "I", length) + value
        else:
            out += tag + element.vr.encode() + struct.pack(order + "H", length) + value
    return out


def encode_item(tree: Sequence[El], mode: str, *, undefined: bool) -> bytes:
    """One item of a sequence."""
    order = ">" if mode == "big" else "<"
    content = encode(tree, mode)
    if undefined:
        end = struct.pack(order + "HHI", 0xFFFE, 0xE00D, 0)
        return struct.pack(order + "HHI", 0xFFFE, 0xE000, UNDEFINED) + content + end
    return struct.pack(order + "HHI", 0xFFFE, 0xE000, len(content)) + content


# Tags with the VR that the dictionary gives them, so that implicit and explicit forms mean the same.
PLAIN = {
    0x0008_0060: "CS", 0x0008_0070: "LO", 0x0008_0090: "PN", 0x0009_0010: "LO", 0x0009_1001: "UN",
    0x0009_1002: "OB", 0x0018_0050: "DS", 0x0018_9073: "FD", 0x0018_1151: "IS", 0x0020_0052: "UI",
    0x0028_0009: "AT", 0x0028_0010: "US", 0x0028_9001: "UL", 0x0040_A160: "UT", 0x0018_6020: "SL",
    0x0054_1300: "DS", 0x0066_0016: "OF", 0x0066_0023: "OW", 0x0072_0082: "SV", 0x0042_0011: "OB",
}  # fmt: skip
SEQUENCES = [0x0008_1140, 0x0009_1003, 0x0040_A730, 0x0088_0200, 0x5200_9230]
_TEXT = {"CS", "LO", "PN", "DS", "IS", "UI", "UT"}


def _value(vr: str) -> st.SearchStrategy[bytes]:
    if vr in _TEXT:
        return st.text("AZ09. ", max_size=7).map(lambda text: (text + " " * (len(text) % 2)).encode())
    width = WIDTHS.get(vr, 2)
    width = 4 if vr == "AT" else width
    return st.lists(st.binary(min_size=width, max_size=width), max_size=3).map(b"".join)


def trees(depth: int = 3) -> st.SearchStrategy[Tree]:
    """Ordered trees with nesting up to ``depth``."""
    plain = st.sampled_from(sorted(PLAIN)).flatmap(
        lambda tag: _value(PLAIN[tag]).map(lambda value: El(tag, PLAIN[tag], value))
    )
    element = plain
    if depth:
        sequence = st.builds(
            El,
            st.sampled_from(SEQUENCES),
            st.just("SQ"),
            st.lists(st.deferred(lambda: trees(depth - 1)), max_size=3),
            st.booleans(),
        )
        element = st.one_of(plain, plain, sequence)
    return st.lists(element, max_size=6).map(
        lambda elements: sorted({element.tag: element for element in elements}.values())
    )
