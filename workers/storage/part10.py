"""A data set as a PS3.10 file: preamble, prefix, File Meta Information with our manifest, data set.

The reader believes only a head that this module could have written: zero preamble, group 0002 in order, our
creator UID, the manifest last, ending where (0002,0000) says. What lies behind that length is the data set,
whatever it looks like: a peer's forged group 0002 stored there is never taken for ours.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from crc32c import crc32c

from ingest.contract.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from workers.dataset.payload import Payload
from workers.storage.manifest import (
    CRC_AT,
    CREATOR_UID,
    MAXIMUM,
    Manifest,
    UnreadableManifest,
    decode_manifest,
    encode_manifest,
)

_PREFIX: Final = bytes(128) + b"DICM"  # PS3.10 7.1; an executable's header could hide in a preamble
_GROUP_LENGTH: Final = struct.Struct("<HH2sHI")
_GROUP_AT: Final = len(_PREFIX) + _GROUP_LENGTH.size
_SHORT: Final = struct.Struct("<HH2sH")
_LONG: Final = struct.Struct("<HH2sHI")
_META_GROUP: Final = 2
_CREATOR: Final = 0x0100
_INFORMATION: Final = 0x0102
_LONG_VRS: Final = frozenset({b"OB", b"UR", b"UN", b"UT"})

HEAD: Final = MAXIMUM + 1024  # bytes that hold any head: four UIDs, three AE titles and the manifest


class Head(NamedTuple):
    """What stands before the data set."""

    manifest: Manifest
    size: int  # bytes; the data set starts here


def encode_head(manifest: Manifest) -> bytes:
    """All that stands before the data set, which follows as it is."""
    value = encode_manifest(manifest)
    private = _uid(_CREATOR, CREATOR_UID) + _element(_INFORMATION, b"OB", value)
    head = bytearray(_head(manifest, manifest.transfer_syntax_uid, private))
    at = len(head) - len(value) + CRC_AT
    head[at : at + 4] = crc32c(head).to_bytes(4, "little")
    return bytes(head)


def pieces_of(manifest: Manifest, data_set: Payload) -> Iterator[bytes | memoryview]:
    """The whole file, piece by piece; ``data_set``: the one that ``manifest`` is about."""
    yield encode_head(manifest)
    yield from data_set.blocks()


def encode_plain_head(manifest: Manifest, transfer_syntax_uid: str) -> bytes:
    """The same for a copy in another transfer syntax, for which the manifest's proofs do not hold."""
    return _head(manifest, transfer_syntax_uid, b"")


def _head(manifest: Manifest, transfer_syntax_uid: str, private: bytes) -> bytes:
    elements = [
        _element(0x0001, b"OB", b"\0\1"),
        _uid(0x0002, manifest.sop_class_uid),
        _uid(0x0003, manifest.sop_instance_uid),
        _uid(0x0010, transfer_syntax_uid),
        _uid(0x0012, IMPLEMENTATION_CLASS_UID),
        _text(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
        # Whoever sent it is the last we know to have written it (PS3.10 Table 7.1-1).
        _text(0x0016, b"AE", manifest.calling_ae_title),
        _text(0x0017, b"AE", manifest.calling_ae_title),
        _text(0x0018, b"AE", manifest.called_ae_title),
        private,
    ]
    group = b"".join(elements)
    return _PREFIX + _GROUP_LENGTH.pack(_META_GROUP, 0, b"UL", 4, len(group)) + group


def decode_head(data: bytes | memoryview) -> Head:
    """The head of an object whose first `HEAD` bytes, or all if there are fewer, are ``data``.

    Raises:
        UnreadableManifest: this is no head of ours, or a damaged one.
    """
    view = memoryview(data)
    if len(view) < _GROUP_AT or view[: len(_PREFIX)] != _PREFIX:
        raise UnreadableManifest("the preamble or prefix is not ours")
    group, element, vr, length, size = _GROUP_LENGTH.unpack_from(view, len(_PREFIX))
    if (group, element, vr, length) != (_META_GROUP, 0, b"UL", 4):
        raise UnreadableManifest("the file meta does not begin with its length")
    end = _GROUP_AT + size
    if end > min(HEAD, len(view)):
        raise UnreadableManifest("the file meta is longer than ours can be, or cut")
    values = _values(view[_GROUP_AT:end])
    if bytes(values.get(_CREATOR, b"")).rstrip(b"\0") != CREATOR_UID.encode("ascii"):
        raise UnreadableManifest("the private information is not ours")
    if max(values) != _INFORMATION:
        raise UnreadableManifest("the manifest is not last in the file meta")
    manifest = decode_manifest(values[_INFORMATION])
    at = end - len(values[_INFORMATION]) + CRC_AT
    crc = crc32c(view[at + 4 : end], crc32c(bytes(4), crc32c(view[:at])))
    if crc != int.from_bytes(view[at : at + 4], "little"):
        raise UnreadableManifest("the head fails its CRC-32C")
    return Head(manifest, end)


def _values(view: memoryview) -> dict[int, memoryview]:
    """The elements of group 0002 by element number, each once and in order."""
    values: dict[int, memoryview] = {}
    position = previous = 0
    while position < len(view):
        if position + _LONG.size > len(view):
            raise UnreadableManifest("the file meta ends within an element")
        group, element, vr, length = _SHORT.unpack_from(view, position)
        start = position + _SHORT.size
        if vr in _LONG_VRS:
            *_, length = _LONG.unpack_from(view, position)
            start = position + _LONG.size
        position = start + length
        if group != _META_GROUP or element <= previous or position > len(view):
            raise UnreadableManifest("the file meta is out of order")
        values[element] = view[start:position]
        previous = element
    return values


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    if vr in _LONG_VRS:
        return _LONG.pack(_META_GROUP, element, vr, 0, len(value)) + value
    return _SHORT.pack(_META_GROUP, element, vr, len(value)) + value


def _uid(element: int, uid: str) -> bytes:
    """A UID, padded with NUL; nothing where there is none, as in quarantine."""
    value = uid.encode("ascii")
    return _element(element, b"UI", value + bytes(len(value) % 2)) if uid else b""


def _text(element: int, vr: bytes, text: str) -> bytes:
    """A text, padded with a space; nothing where there is none."""
    value = text.encode("ascii")
    return _element(element, vr, value + b" " * (len(value) % 2)) if text else b""
