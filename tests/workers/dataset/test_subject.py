"""Subject: the same of an examination and of a head, whatever the encoding; nothing of it is shown."""

import struct
import zlib
from pathlib import Path

import pytest

from tests.support.datasets import data_set_bytes, has_file_meta
from tests.support.placing import CORPUS, instance_of
from tests.support.scu import explicit
from workers.dataset.payload import MemoryPayload
from workers.dataset.subject import HEAD, Subject, read_subject
from workers.errors import Rejected
from workers.stages.validate import validate

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
FILES = sorted(path for path in CORPUS.rglob("*.dcm") if has_file_meta(path))


def data_set(patient: bytes = b"12345", terms: bytes = b"ISO_IR 100") -> bytes:
    return (
        explicit(0x08, 0x05, b"CS", terms)
        + explicit(0x08, 0x50, b"SH", b" A1 ")
        + explicit(0x10, 0x10, b"PN", b"ONE^TWO")
        + explicit(0x10, 0x20, b"LO", patient)
        + explicit(0x10, 0x21, b"LO", b"NORTH")
        + explicit(0x20, 0x0D, b"UI", b"1.2.3")
        + explicit(0x20, 0x0E, b"UI", b"1.2.3.4")
    )


def read(data: bytes, syntax: str = EXPLICIT) -> Subject:
    return read_subject(MemoryPayload([data]), syntax)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_head_tells_what_an_examination_tells(path: Path) -> None:
    """Of every file of the corpus that can be read: else a rebuilt ledger is another one."""
    data = data_set_bytes(path)
    instance = instance_of(data, path)
    try:
        examined = validate(MemoryPayload([data]), instance).subject
    except Rejected:
        return
    assert read(data[:HEAD], instance.transfer_syntax_uid) == examined


def test_values_are_trimmed_and_checked() -> None:
    """Spaces at the ends are not significant; what is no UID is none."""
    found = read(data_set(b"  12345 "))
    assert (found.patient_id, found.issuer, found.accession_number) == ("12345", "NORTH", "A1")
    assert (found.study_instance_uid, found.series_instance_uid) == ("1.2.3", "1.2.3.4")
    assert not found.is_unidentified
    assert read(data_set(b"")).is_unidentified
    assert read(data_set().replace(b"1.2.3\0", b"1.2./.")).study_instance_uid == ""


def test_a_number_is_the_same_in_every_character_set() -> None:
    """By Specific Character Set (PS3.5 6.1); with one that is unknown it is at least always the same."""
    latin = read(data_set("Ä1".encode("latin-1")))
    utf8 = read(data_set("Ä1".encode(), b"ISO_IR 192"))
    latin_9 = read(data_set("Ä1".encode("iso8859-15"), b"ISO_IR 203"))
    assert latin.patient_id == latin_9.patient_id == utf8.patient_id == "Ä1"
    assert read(data_set(b"\xff1", b"NONE")) == read(data_set(b"\xff1", b"NONE"))


def test_a_deflated_head_is_inflated() -> None:
    """As far as it goes, and no further than a head."""
    deflater = zlib.compressobj(wbits=-15)
    deflated = deflater.compress(data_set() + bytes(50_000_000)) + deflater.flush()
    assert read(deflated[:4000], DEFLATED) == read(data_set())
    assert read(b"\xff" * 100, DEFLATED) == read(b"\xff" * 100, DEFLATED)


@pytest.mark.parametrize("size", range(0, 118, 7))
def test_a_cut_head_tells_what_is_before_the_cut(size: int) -> None:
    """Never an error."""
    assert read(data_set()[:size]).study_instance_uid in ("", "1.2.3")


class Watched(MemoryPayload):
    """Counts the bytes that are looked at."""

    looked_at = 0

    def read(self, offset: int, length: int) -> memoryview:
        self.looked_at += length
        return super().read(offset, length)


ITEMS = b"\xfe\xff\0\xe0\0\0\0\0" * 200_000


@pytest.mark.parametrize(
    ("data", "syntax"),
    [
        (bytes(200_000) + b"\1\0", IMPLICIT),
        (bytes(8) * 5_000 + b"\0\0\0\0\2\0\0\0\1\1" * 5_000, IMPLICIT),
        (struct.pack("<HH2sHI", 0x0008, 0x0006, b"UN", 0, len(ITEMS)) + ITEMS + data_set(), EXPLICIT),
        (struct.pack("<HHI", 0x0009, 0x1001, len(ITEMS)) + ITEMS, IMPLICIT),
    ],
    ids=["zeros", "zeros and others", "items of UN", "items"],
)
def test_it_takes_no_longer_than_a_head(data: bytes, syntax: str) -> None:
    """Of an upload in memory it is read between two turns of the event loop; of one of these that took eleven seconds."""
    payload = Watched([data])
    assert read_subject(payload, syntax).study_instance_uid == ""
    assert payload.looked_at < 1_000_000


def test_nothing_of_it_is_shown() -> None:
    """Not even by accident, in a log line or a traceback."""
    assert "12345" not in repr(read(data_set()))
