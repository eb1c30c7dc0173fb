"""Manifest: what we know of an object, kept inside it, in file meta Private Information (PS3.10 7.1).

(0002,0100) Private Information Creator UID is `CREATOR_UID`; (0002,0102) Private Information holds:

    offset  size  field
    0       8     magic and layout version, ``DICMMNF1``
    8       4     CRC-32C, little-endian, of the whole head: from the preamble to the end of this value, with
                  these four bytes as zero. So the Transfer Syntax UID and its kin are covered, too
    12      4     length n of the JSON text, little-endian
    16      n     JSON object of `Manifest`
    16+n    0-1   zero, to even length

JSON, so that `dcmdump` and any editor show it. Evolution: new fields have defaults; types and meanings never
change; a new layout takes a new magic. It holds digests of the patient's data, never the data.
"""

import struct
from collections.abc import Mapping
from typing import Final

import msgspec

from ingest.contract.identifiers import (
    InvalidIdentifier,
    UploadId,
    check_ae_title,
    check_uid,
)
from ingest.contract.records import Instance
from workers.storage.layout import check_digest

SCHEMA: Final = 1
# PS3.5 B.2: a UID derived from a UUID; it says "this Private Information is a manifest of ours".
CREATOR_UID: Final = "2.25.131742305521106848895612843866177263812"
MAXIMUM: Final = 32 * 1024  # bytes of (0002,0102): one ranged read of the head brings it whole

_MAGIC: Final = b"DICMMNF1"
_FRAME: Final = struct.Struct("<8sII")
CRC_AT: Final = 8  # where the CRC is within the value
_SOURCE_TEXT: Final = 64  # characters of an address, which no check of identifiers covers


class UnreadableManifest(ValueError):  # noqa: N818 - states what was found
    """No manifest of ours, or a damaged one: the object is unproved."""


class PixelProof(msgspec.Struct, frozen=True, omit_defaults=True):
    """The pixel part of content digest c1."""

    kind: str  # native: of decoded frames; encoded: of codestreams as they are; none: there are no pixels
    digest: str = ""  # SHA-256, 64 hex digits; of none: empty


NO_PIXELS: Final = PixelProof("none")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Identity, origin and proof of one object, and in a lane why it is there."""

    schema: int  # `SCHEMA` of the writer; a later one has only added fields
    upload_id: str  # 32 hex digits
    sop_class_uid: str = ""  # checked UIDs, or empty where there is none
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    # as received
    source_digest: str  # SHA-256 of the data set, 64 hex digits
    source_size: int  # bytes
    source_transfer_syntax_uid: str = ""
    seal: str = ""  # the receiver's XXH3-128, 32 hex digits
    calling_ae_title: str = ""
    called_ae_title: str = ""
    peer_address: str = ""
    received_at: int = 0  # nanoseconds since 1970-01-01 UTC, receiver's clock
    # as stored
    transfer_syntax_uid: str = ""
    size: int  # bytes of the data set
    digest: str  # SHA-256 of the data set, 64 hex digits
    placed_at: int = 0  # nanoseconds since 1970-01-01 UTC, worker's clock
    repaired: bool = False  # took the place of a damaged object
    passed_through: str = ""  # why the data set was not transcoded; empty where it was
    # content
    scheme: str = "c1"
    identity_digest: str = ""  # empty: not computed, as for elements out of order
    elements_digest: str = ""
    pixels: PixelProof | None = None  # None: not computed
    photometric_interpretation: str = ""  # of the source
    planar_configuration: int | None = None
    findings: tuple[str, ...] = ()
    findings_cut: int = 0  # further ones that found no room
    versions: Mapping[str, str] = {}  # of this software and its codecs
    # in a lane
    reason: str = ""  # a word from a closed list
    position: int = 0  # byte of the data set where the parser stood
    detail: str = ""  # a sentence without values
    classes: tuple[str, ...] = ()  # of a conflict: identity, elements, pixels; the loudest first
    differing_tags: tuple[str, ...] = ()
    differing_tags_cut: int = 0

    @property
    def upload(self) -> UploadId:
        """The upload that brought it."""
        return UploadId(bytes.fromhex(self.upload_id))

    @property
    def instance(self) -> Instance:
        """What the receiver said of it, for a replay."""
        return Instance(
            sop_class_uid=self.sop_class_uid,
            sop_instance_uid=self.sop_instance_uid,
            transfer_syntax_uid=self.source_transfer_syntax_uid,
            size=self.source_size,
            seal=bytes.fromhex(self.seal),
            calling_ae_title=self.calling_ae_title,
            called_ae_title=self.called_ae_title,
            peer_address=self.peer_address,
            received_at=self.received_at,
        )


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Manifest)


def received(upload_id: UploadId, instance: Instance, source_digest: str) -> Manifest:
    """The manifest of a data set as it was received; `msgspec.structs.replace` adds what stages find out.

    What is no usable identifier (the record that held it was damaged) is left out.
    """
    syntax = _uid_or_nothing(instance.transfer_syntax_uid)
    return Manifest(
        schema=SCHEMA,
        upload_id=upload_id.hex(),
        sop_class_uid=_uid_or_nothing(instance.sop_class_uid),
        sop_instance_uid=_uid_or_nothing(instance.sop_instance_uid),
        source_digest=source_digest,
        source_size=instance.size,
        source_transfer_syntax_uid=syntax,
        seal=instance.seal.hex(),
        calling_ae_title=_ae_title_or_nothing(instance.calling_ae_title),
        called_ae_title=_ae_title_or_nothing(instance.called_ae_title),
        peer_address=instance.peer_address[:_SOURCE_TEXT],
        received_at=instance.received_at,
        transfer_syntax_uid=syntax,
        size=instance.size,
        digest=source_digest,
    )


def encode_manifest(manifest: Manifest) -> bytes:
    """The value of (0002,0102) with a CRC of zero, at most `MAXIMUM` bytes: lists are cut, with a count."""
    body = _encoder.encode(manifest)
    while len(body) > MAXIMUM - _FRAME.size:
        manifest = _shorter(manifest)
        body = _encoder.encode(manifest)
    value = _FRAME.pack(_MAGIC, 0, len(body)) + body
    return value + bytes(len(value) % 2)


def decode_manifest(value: bytes | memoryview) -> Manifest:
    """The manifest in the value of (0002,0102), whose CRC the caller checks with the rest of the head.

    Raises:
        UnreadableManifest: wrong magic, length or content.
    """
    view = memoryview(value)
    if len(view) < _FRAME.size or len(view) > MAXIMUM:
        raise UnreadableManifest("the private information has not the size of a manifest")
    magic, _, length = _FRAME.unpack_from(view)
    end = _FRAME.size + length
    if magic != _MAGIC:
        raise UnreadableManifest("not a manifest of a version this release reads")
    if end + length % 2 != len(view):
        raise UnreadableManifest("the manifest does not fill its element")
    try:
        manifest = _decoder.decode(view[_FRAME.size : end])
        _check(manifest)
    except (msgspec.MsgspecError, ValueError) as error:
        raise UnreadableManifest(f"manifest content: {error}") from None
    return manifest


def _check(manifest: Manifest) -> None:
    """Refuse what no release has written, and keys and records are made of.

    Raises:
        ValueError: what is wrong.
    """
    if len(manifest.upload) != UploadId.SIZE or manifest.upload.hex() != manifest.upload_id:
        raise ValueError("it names no upload")
    bytes.fromhex(manifest.seal)
    check_digest(manifest.source_digest)
    if manifest.sop_instance_uid:
        check_uid(manifest.sop_instance_uid)


def _shorter(manifest: Manifest) -> Manifest:
    """With half of its longer list."""
    findings, tags = manifest.findings, manifest.differing_tags
    if len(tags) > len(findings):
        kept = len(tags) // 2
        return msgspec.structs.replace(
            manifest,
            differing_tags=tags[:kept],
            differing_tags_cut=manifest.differing_tags_cut + len(tags) - kept,
        )
    assert findings, "everything else in a manifest is bounded"
    kept = len(findings) // 2
    return msgspec.structs.replace(
        manifest, findings=findings[:kept], findings_cut=manifest.findings_cut + len(findings) - kept
    )


def _uid_or_nothing(text: str) -> str:
    try:
        return check_uid(text)
    except InvalidIdentifier:
        return ""


def _ae_title_or_nothing(text: str) -> str:
    try:
        return check_ae_title(text)
    except InvalidIdentifier:
        return ""
