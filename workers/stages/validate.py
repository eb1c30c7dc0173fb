"""Validate: can the data set be read, is it what the command said, whose is it, what are its pixels?

What cannot be read or identified is `Rejected`. Malformations that real senders produce are findings.
Nothing in the data set is ever changed.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from ingest.contract.records import Instance
from workers.dataset.byte_order import little_endian
from workers.dataset.deflated import inflate
from workers.dataset.digest import ContentDigester, ContentDigests
from workers.dataset.elements import BEHIND_FILE_META, PIXEL_DATA, Element, Kind, Limits, Token, Walker
from workers.dataset.findings import Finding, Findings
from workers.dataset.identity import UID_TAGS, Identity, identify
from workers.dataset.payload import Payload
from workers.dataset.pixel_data import (
    DESCRIBING_TAGS,
    EXTENDED_OFFSET_TABLE,
    EXTENDED_OFFSET_TABLE_LENGTHS,
    LONGEST_TABLE,
    LOSSY_IMAGE_COMPRESSION,
    Fragments,
    PixelDescription,
    PixelSource,
    describe,
)
from workers.dataset.subject import SUBJECT_TAGS, Subject, subject_of
from workers.dataset.transfer_syntax import DEFLATED, LOSSY, Encoding, encoding_of
from workers.dataset.values import LONGEST, ValueCheck, check_group_lengths
from workers.errors import Reason, Rejected

_NEEDED = frozenset((*UID_TAGS, *SUBJECT_TAGS, *DESCRIBING_TAGS))
_VALUE = Kind.VALUE  # looked up once: this is a hot path


@dataclass(frozen=True, slots=True)
class Examination:
    """What later stages know of an instance. All positions count within ``data_set``."""

    transfer_syntax_uid: str
    encoding: Encoding
    data_set: Payload  # the payload itself, or what it inflates to
    elements: tuple[Element, ...]  # top level, in the order of the bytes
    identity: Identity
    subject: Subject
    pixels: PixelDescription | None
    digests: ContentDigests | None  # c1 without pixels; None where elements are out of order
    findings: tuple[str, ...]  # words of `Finding`, each with its tag

    def element(self, tag: int) -> Element | None:
        """The top-level element of that tag, the last if it occurs twice."""
        return next((element for element in reversed(self.elements) if element.tag == tag), None)


class _Reading:
    """One walk over the data set, from which everything is taken."""

    def __init__(self, data_set: Payload, encoding: Encoding, limits: Limits) -> None:
        self.findings = Findings()
        self.elements: list[Element] = []
        self.values: dict[int, tuple[Token, bytes]] = {}
        self.repeated: set[int] = set()
        self.fragments = Fragments()
        self._seen: set[int] = set()
        self._group_lengths: dict[int, int] = {}
        self._data_set = data_set
        self._limits = limits
        self._walker = Walker(data_set, encoding, limits, self.findings)
        self._check = ValueCheck(self.findings)
        self._digester = ContentDigester(self._walker, data_set)

    def read(self) -> ContentDigests | None:
        """Walk to the end.

        Raises:
            Rejected: the data set cannot be read, or names itself twice.
        """
        digest = self._digester.add
        opened: Token | None = None
        in_fragments = False
        for token in self._walker:
            digest(token)
            if token.depth:
                if in_fragments:
                    self.fragments.add(token)
            elif token.kind is _VALUE:
                self._top_level(token, token.value + token.length)
            elif opened is None:
                opened = token
                in_fragments = token.kind is Kind.FRAGMENTS
            else:
                self._top_level(opened, token.value)
                opened = None
                in_fragments = False
        if self._group_lengths:
            check_group_lengths(self.elements, self._group_lengths, self.findings)
        return self._digester.digests()

    def _top_level(self, token: Token, end: int) -> None:
        """Keep where a top-level element lies, and its value if it is needed."""
        kind, tag, vr, offset, value_offset, length, _, big = token
        if tag < BEHIND_FILE_META:
            # Stored behind our file meta, these would pass for it (PS3.10 7.1).
            reason = Reason.GROUP_0000 if tag >> 16 == 0 else Reason.GROUP_0002
            raise Rejected(reason, offset, f"an element of group {tag >> 16:04X} in the data set")
        if len(self.elements) == self._limits.top_level:
            raise Rejected(Reason.LIMIT, offset, f"more than {self._limits.top_level} top-level elements")
        self.elements.append(Element(tag, vr, offset, value_offset, length, end, big))
        if tag in self._seen:
            self._again(tag, offset)
        self._seen.add(tag)
        if length <= LONGEST and kind is _VALUE:
            value = self._walker.value(token)
            self._check.check(tag, vr, value)
            if tag in _NEEDED:
                self.values[tag] = token, bytes(value)
            elif not tag & 0xFFFF:
                self._group_lengths[tag] = int.from_bytes(value, "big" if big else "little")

    def _again(self, tag: int, offset: int) -> None:
        """An element that was there before: readers differ which of the two counts."""
        self.repeated.add(tag)
        self.findings.note(Finding.DUPLICATE_TAG, tag)
        if tag in UID_TAGS:
            raise Rejected(Reason.IDENTITY, offset, "a UID of the instance occurs twice")

    def table(self, tag: int) -> memoryview:
        """The value of an offset table as little endian; empty where absent or too long to be one."""
        element = next((element for element in self.elements if element.tag == tag), None)
        if element is None or not 0 < element.length <= LONGEST_TABLE:
            return memoryview(b"")
        value = self._data_set.read(element.value, element.length)
        return memoryview(little_endian(value, element.vr)) if element.big else value

    def basic_offset_table(self) -> memoryview:
        """The first item of encapsulated pixel data; always little endian (PS3.5 A.4)."""
        table = self.fragments.table
        if table is None or table.length > LONGEST_TABLE:
            return memoryview(b"")
        return self._data_set.read(table.value, table.length)

    def pixels(self, transfer_syntax_uid: str) -> PixelDescription | None:
        """The pixel description, its problems noted."""
        source = PixelSource(
            transfer_syntax_uid=transfer_syntax_uid,
            values=self.values,
            elements={element.tag: element for element in self.elements},
            fragments=self.fragments,
            basic_offsets=self.basic_offset_table(),
            extended_offsets=self.table(EXTENDED_OFFSET_TABLE),
            extended_lengths=self.table(EXTENDED_OFFSET_TABLE_LENGTHS),
            repeated=frozenset(self.repeated),
        )
        if (
            transfer_syntax_uid in LOSSY
            and PIXEL_DATA in source.elements
            and LOSSY_IMAGE_COMPRESSION not in source.elements
        ):
            self.findings.note(Finding.LOSSY_UNMARKED, LOSSY_IMAGE_COMPRESSION)
        return describe(source, self.findings)


def validate(
    payload: Payload, instance: Instance, scratch: Path | None = None, *, limits: Limits | None = None
) -> Examination:
    """Examine a data set as received. ``scratch``: folder for what a deflated one inflates to.

    Raises:
        Rejected: it cannot be read, cannot be identified, or is not the instance the command named.
    """
    limits = limits or Limits()
    syntax = instance.transfer_syntax_uid
    encoding = encoding_of(syntax)
    if encoding is None:
        raise Rejected(Reason.TRANSFER_SYNTAX, 0, "not a standard transfer syntax")
    data_set = payload
    if syntax in DEFLATED:
        data_set = inflate(payload, limits.inflated, scratch or Path(tempfile.gettempdir()))
    reading = _Reading(data_set, encoding, limits)
    digests = reading.read()
    identity = identify(reading.values, reading.findings)
    if identity.sop_instance_uid != instance.sop_instance_uid:
        raise Rejected(Reason.MISMATCH, 0, "(0008,0018) is not the command's Affected SOP Instance UID")
    if identity.sop_class_uid != instance.sop_class_uid:
        raise Rejected(Reason.MISMATCH, 0, "(0008,0016) is not the command's Affected SOP Class UID")
    pixels = reading.pixels(syntax)
    return Examination(
        syntax,
        encoding,
        data_set,
        tuple(reading.elements),
        identity,
        subject_of({tag: value for tag, (_, value) in reading.values.items() if tag in SUBJECT_TAGS}),
        pixels,
        digests,
        reading.findings.texts(),
    )
