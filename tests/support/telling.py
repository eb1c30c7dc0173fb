"""What is to be told of each instance: the ways that one may take, by what is sent, and how what was said of it is read."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.acceptance import Sent
from tests.support.admin import Samples
from tests.support.element_trees import El, Tree, encode
from tests.support.instances import SECONDARY_CAPTURE, SYNTAXES, image, ui
from tests.support.pixel_objects import GRAY, description, encapsulated, native, noise
from tests.support.pixel_objects import fragments as items
from tests.support.scu import CT, EXPLICIT, ct_data_set
from workers.pixels.form import FrameForm

ROOT = "1.2.826.0.1.3680043.9.11"
FIRST, COMMITTED, TWICE, ROTTEN, OF_ANOTHER_CLASS = (f"{ROOT}.{number}" for number in (1, 2, 3, 4, 10))
DEFLATED = "1.2.840.10008.1.2.1.99"
RLE = "1.2.840.10008.1.2.5"


@dataclass(frozen=True)
class Way:
    """An instance, and what is to be told of it."""

    sent: Sent
    outcome: str = "acknowledged"  # or why the receiver does not take it
    place: str = ""  # nowhere, if it is not taken
    reason: str = ""
    transcode: str = ""  # what became of its pixels, where it came that far
    calling: str = "TESTER"
    status: int = 0

    @property
    def source(self) -> str:
        return {"TESTER": "ct-1", "NARROW": "narrow"}.get(self.calling, "(other)")


def kept(sent: Sent, passage: str) -> Way:
    """Stored with the bytes it came in, for this reason."""
    return Way(sent, place="stored", reason=passage, transcode=passage)


def apart(sent: Sent, place: str, reason: str) -> Way:
    return Way(sent, place=place, reason=reason)


def secondary(number: int, data: bytes, syntax: str = EXPLICIT) -> Sent:
    return Sent(SECONDARY_CAPTURE, f"{ROOT}.{number}", data, syntax)


def gray(number: int, mode: str = "explicit", **changes: Any) -> Sent:
    uid = El(0x0008_0018, "UI", ui(f"{ROOT}.{number}"))
    data, _ = native(GRAY, [noise(GRAY)], mode, x00080018=uid, **changes)
    return secondary(number, data, SYNTAXES[mode])


def encapsulated_frames(number: int, syntax: str, *, fragments: int, frames: int) -> Sent:
    """Of so many fragments, with so many frames said."""
    uid = El(0x0008_0018, "UI", ui(f"{ROOT}.{number}"))
    value = items([bytes(64)] * fragments)
    data, _ = encapsulated(GRAY, value, syntax, frames=frames, x00080018=uid)
    return secondary(number, data, syntax)


def compressed(number: int, syntax: str) -> Sent:
    uid = El(0x0008_0018, "UI", ui(f"{ROOT}.{number}"))
    data, _ = encapsulated(GRAY, items([b"\xff\xd8\xff\xd9"]), syntax, x00080018=uid)
    return secondary(number, data, syntax)


def of_form(number: int, form: FrameForm) -> Sent:
    """A frame of zeros."""
    uid = El(0x0008_0018, "UI", ui(f"{ROOT}.{number}"))
    value = bytes(-(-form.rows * form.columns * form.bits_allocated // 16) * 2)
    pixels = El(0x7FE0_0010, "OB" if form.bits_allocated == 8 else "OW", value)
    return secondary(number, encode(image(**description(form), x00080018=uid, x7FE00010=pixels), "explicit"))


def tree_of(number: int, form: FrameForm, pixels: bytes, **changes: El) -> Tree:
    uid = El(0x0008_0018, "UI", ui(f"{ROOT}.{number}"))
    return image(**description(form), x00080018=uid, x7FE00010=El(0x7FE0_0010, "OW", pixels), **changes)


def out_of_order(number: int) -> Sent:
    """Two elements change places."""
    tree = tree_of(number, GRAY, noise(GRAY).tobytes())
    tree[3], tree[4] = tree[4], tree[3]
    return secondary(number, encode(tree, "explicit"))


def odd_twice(number: int) -> Sent:
    """An odd length that evens out that of the pixels, as long as these stay what they are."""
    form = FrameForm(33, 33, 1, 8, 8, False)
    odd = El(0x0008_0050, "SH", b"A1B")
    return secondary(number, encode(tree_of(number, form, noise(form).tobytes(), x00080050=odd), "explicit"))


def nested(depth: int) -> El:
    """Sequences within each other."""
    inner = El(0x0008_1140, "SQ", [])
    for _ in range(depth):
        inner = El(0x0008_1140, "SQ", [[inner]])
    return inner


def deflated(sent: Sent) -> Sent:
    """The same in Deflated Explicit VR Little Endian (PS3.5 A.5)."""
    deflater = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    data = deflater.compress(sent.data) + deflater.flush()
    return sent._replace(data=data + bytes(len(data) % 2), syntax=DEFLATED)


def bad(number: int, change: Callable[[bytes], bytes], syntax: str = EXPLICIT) -> Sent:
    return Sent(CT, f"{ROOT}.{number}", change(ct_data_set(f"{ROOT}.{number}")), syntax)


def paths() -> list[Way]:
    """Those that bytes on the wire can bring about, in the order in which they are sent."""
    first = Sent(CT, FIRST, ct_data_set(FIRST))
    pixels = first.data[:-1] + bytes([first.data[-1] ^ 1])
    study = b"1.2.3.4\0"
    found = [
        kept(first, "small"),
        kept(Sent(CT, COMMITTED, ct_data_set(COMMITTED)), "small"),
        kept(Sent(CT, ROTTEN, ct_data_set(ROTTEN)), "small"),
        kept(Sent(CT, TWICE, ct_data_set(TWICE)), "small"),
        Way(Sent(CT, TWICE, ct_data_set(TWICE)), place="duplicate"),
        Way(gray(10), place="stored", transcode="transcoded"),
        Way(gray(10), place="duplicate"),
        # Of another study, and of the series of the one before.
        Way(gray(11, x0020000D=El(0x0020_000D, "UI", ui("1.2.3.9"))), place="stored", transcode="transcoded"),
        Way(first, place="duplicate"),
        apart(first._replace(data=pixels), "conflict", "pixels"),
        apart(first._replace(data=first.data.replace(b"Doe^Jane", b"Doe^John")), "conflict", "identity"),
        apart(first._replace(data=first.data.replace(b"CS\2\0CT", b"CS\2\0MR")), "conflict", "elements"),
        # Each reason for quarantine that bytes on the wire can bring about.
        apart(bad(20, lambda data: data[:-100]), "quarantined", "truncated"),
        apart(bad(21, lambda data: data.replace(study, b"../../x\0")), "quarantined", "identity"),
        apart(bad(22, lambda data: data + b"\2\0\x10\0UI\4\x001.2\0"), "quarantined", "group-0002"),
        apart(bad(23, lambda data: data + b"\0\0\2\0UI\4\x001.2\0"), "quarantined", "group-0000"),
        apart(bad(24, lambda data: data + b"\xfc\xff\xfc\xff??\0\0"), "quarantined", "structure"),
        # What the receiver cannot look into.
        apart(deflated(gray(25))._replace(data=b"\xff" * 100), "quarantined", "inflate"),
        apart(deflated(gray(26))._replace(uid=f"{ROOT}.27"), "quarantined", "mismatch"),
        apart(gray(28, x00081140=nested(200)), "quarantined", "limit"),
        # What keeps its bytes, and why.
        kept(gray(30, x7FE00010=None), "no-pixels"),
        kept(gray(31, x00280102=El(0x0028_0102, "US", b"\x0f\0")), "high-bit"),
        kept(gray(32, x00280010=None), "description"),
        kept(gray(33, x60000102=El(0x6000_0102, "US", b"\x0c\0")), "overlay"),
        kept(gray(34, mode="big"), "big-endian"),
        kept(gray(35, xFFFAFFFA=El(0xFFFA_FFFA, "SQ", [[]])), "signature"),
        kept(gray(36, x00280008=El(0x0028_0008, "IS", b"2 ")), "length"),
        kept(gray(37, x00280004=El(0x0028_0004, "CS", b"YBR_FULL_422")), "ybr-422"),
        kept(compressed(40, "1.2.840.10008.1.2.4.50"), "lossy"),
        kept(compressed(41, "1.2.840.10008.1.2.4.70"), "jpeg-lossless"),
        kept(compressed(42, "1.2.840.10008.1.2.4.80"), "jpeg-ls"),
        kept(compressed(43, "1.2.840.10008.1.2.4.90"), "already-jpeg2000"),
        kept(compressed(44, "1.2.840.10008.1.2.4.201"), "htj2k"),
        kept(compressed(45, RLE), "rle"),
        kept(compressed(46, "1.2.840.10008.1.2.4.100"), "video"),
        kept(compressed(47, "1.2.840.10008.1.2.1.98"), "other-syntax"),
        kept(
            gray(
                60,
                x7FE00010=None,
                x7FE00008=El(0x7FE0_0008, "OF", bytes(GRAY.size * 2)),
                x00280100=El(0x0028_0100, "US", b"\x20\0"),
                x00280101=El(0x0028_0101, "US", b"\x20\0"),
                x00280102=El(0x0028_0102, "US", b"\x1f\0"),
            ),
            "float",
        ),
        kept(gray(61, x00280004=El(0x0028_0004, "CS", b"SOMETHING ")), "photometric"),
        kept(of_form(62, FrameForm(40, 48, 1, 1, 1, False)), "one-bit"),
        kept(of_form(63, FrameForm(40, 48, 1, 32, 25, False)), "bits"),
        kept(out_of_order(64), "tag-order"),
        kept(odd_twice(65), "elements"),
        kept(deflated(of_form(66, FrameForm(11_600, 11_600, 1, 8, 8, False))), "large"),
        # What the receiver does not take.
        Way(bad(50, lambda data: data.replace(b".50", b".99")), "other-uids", status=0xA900),
        Way(Sent(CT, "1.x", ct_data_set("1.x")), "invalid-uid", status=0x0117),
        Way(gray(51), "instance-too-long", calling="NARROW", status=0xA700),
    ]
    stranger = Way(first, place="quarantined", reason="unknown-source", calling="STRANGER")
    return [*found, stranger, Way(first, "unknown-quota", calling="STRANGER", status=0xA700)]


def counts(metrics: Samples, metric: str) -> dict[tuple[str, ...], float]:
    """All samples of a counter that are not 0, by the values of its labels in the order of their names."""
    return {
        tuple(value for _, value in labels): number
        for (name, labels), number in metrics.items()
        if name == f"dicom_ingest_{metric}" and number
    }


def events(lines: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == name]
