"""Small data sets of a whole instance, and what a receiver would have recorded of them."""

import xxhash

from ingest.contract.records import Instance
from tests.support.element_trees import El, Tree, encode

EXPLICIT = "1.2.840.10008.1.2.1"
SYNTAXES = {"implicit": "1.2.840.10008.1.2", "explicit": EXPLICIT, "big": "1.2.840.10008.1.2.2"}
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SOP_INSTANCE = "1.2.3.4.5"


def ui(text: str) -> bytes:
    """A UID padded to even length."""
    return text.encode() + b"\0" * (len(text) % 2)


def image(**changes: El | None) -> Tree:
    """An image of 4 rows and 6 columns at 16 bits; ``changes`` replace, add or take out elements, named ``x00280010`` by tag."""
    elements = [
        El(0x0008_0016, "UI", ui(SECONDARY_CAPTURE)),
        El(0x0008_0018, "UI", ui(SOP_INSTANCE)),
        El(0x0008_0050, "SH", b"A1"),
        El(0x0010_0010, "PN", b"Doe^Jane"),
        El(0x0010_0020, "LO", b"ID 1"),
        El(0x0020_000D, "UI", ui("1.2.3.4")),
        El(0x0020_000E, "UI", ui("1.2.3.4.1")),
        El(0x0028_0002, "US", b"\1\0"),
        El(0x0028_0004, "CS", b"MONOCHROME2 "),
        El(0x0028_0010, "US", b"\4\0"),
        El(0x0028_0011, "US", b"\6\0"),
        El(0x0028_0100, "US", b"\x10\0"),
        El(0x0028_0101, "US", b"\x0c\0"),
        El(0x0028_0102, "US", b"\x0b\0"),
        El(0x0028_0103, "US", b"\0\0"),
        El(0x7FE0_0010, "OW", bytes(range(48))),
    ]
    by_tag: dict[int, El | None] = {element.tag: element for element in elements}
    by_tag |= {int(name[1:], 16): element for name, element in changes.items()}
    return sorted(element for element in by_tag.values() if element is not None)


def recorded(data_set: bytes, syntax: str = EXPLICIT, sop_class: str = SECONDARY_CAPTURE) -> Instance:
    """The record of its reception."""
    return Instance(
        sop_class_uid=sop_class,
        sop_instance_uid=SOP_INSTANCE,
        transfer_syntax_uid=syntax,
        size=len(data_set),
        seal=xxhash.xxh3_128_digest(data_set),
        calling_ae_title="MODALITY",
        called_ae_title="DICOM-INGEST",
        peer_address="127.0.0.1",
        received_at=0,
    )


def encoded(mode: str, **changes: El | None) -> tuple[bytes, Instance]:
    """`image` in one of `SYNTAXES`, and its record."""
    data_set = encode(image(**changes), mode)
    return data_set, recorded(data_set, SYNTAXES[mode])
