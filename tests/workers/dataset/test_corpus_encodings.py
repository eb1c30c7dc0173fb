"""Real files in every encoding that DCMTK writes: one digest, one set of values."""

import contextlib
import io
import random
import subprocess
import warnings
from pathlib import Path

import msgspec
import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.support.datasets import data_set_bytes, has_file_meta, read, transfer_syntax
from tests.support.element_trees import WIDTHS, swapped
from tests.support.instances import recorded
from tests.support.pipeline import CORPUS
from workers.dataset.digest import content_digests, differing_tags
from workers.dataset.elements import Element, Kind, Token, Walker
from workers.dataset.explicit_vr import explicit_vr
from workers.dataset.payload import JoinedPayload, MemoryPayload
from workers.dataset.transfer_syntax import Encoding, encoding_of, is_encapsulated
from workers.errors import Rejected
from workers.stages.validate import validate

pytestmark = pytest.mark.real

FILES = sorted(path for path in CORPUS.glob("*.dcm") if has_file_meta(path))


def loaded(path: Path) -> tuple[MemoryPayload, Encoding]:
    encoding = encoding_of(str(transfer_syntax(path)))
    assert encoding is not None
    return MemoryPayload([data_set_bytes(path)]), encoding


def conversions(path: Path, folder: Path) -> list[Path]:
    """The file as DCMTK writes it natively in other encodings; none where it is compressed."""
    if is_encapsulated(str(transfer_syntax(path))):
        return []
    written = []
    for options in (("+ti", "-e"), ("+te", "+e"), ("+tb", "-e")):
        target = folder / f"{options[0][1:]}.dcm"
        subprocess.run(["dcmconv", *options, path, target], check=True, capture_output=True)
        written.append(target)
    return written


def index(payload: MemoryPayload, encoding: Encoding) -> list[Element]:
    elements: list[Element] = []
    opened: Token | None = None
    for token in Walker(payload, encoding):
        if token.depth:
            continue
        if token.kind is not Kind.VALUE and opened is None:
            opened = token
            continue
        first = opened or token
        end = token.value + token.length
        elements.append(Element(first.tag, first.vr, first.offset, first.value, first.length, end, first.big))
        opened = None
    return elements


def as_pydicom(data: bytes, encoding: Encoding) -> Dataset:
    return pydicom.filereader.read_dataset(
        io.BytesIO(data),
        is_implicit_VR=encoding is Encoding.IMPLICIT_LITTLE,
        is_little_endian=encoding is not Encoding.EXPLICIT_BIG,
    )


def differences(one: Dataset, other: Dataset, *, big: bool, top: bool = True) -> list[str]:
    """Tags whose values pydicom reads otherwise. It keeps OW of big endian data sets as the bytes that came."""
    aside = {0x7FE0_0010} if top else set()
    tags = {int(tag) for tag in (*one.keys(), *other.keys())} - aside
    out = []
    for tag in sorted(tag for tag in tags if tag & 0xFFFF):
        if tag not in one or tag not in other:
            out.append(f"{tag:08X} is only in one")
            continue
        first, second = one[tag], other[tag]
        if first.VR == second.VR == "SQ":
            assert len(first.value) == len(second.value)
            for a, b in zip(first.value, second.value, strict=True):
                out += differences(a, b, big=big, top=False)
            continue
        value = first.value
        if big and isinstance(value, bytes):
            value = swapped(value, WIDTHS.get(first.VR, 1))
        if value != second.value:
            out.append(f"{tag:08X} {first.VR} {second.VR}")
    return out


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_encoding_of_a_real_file(path: Path, tmp_path: Path) -> None:
    """DCMTK's implicit, explicit and big endian forms have the file's digest; so has each re-encoded by us,
    and pydicom reads the same values from it as from its source."""
    original, original_encoding = loaded(path)
    digests = content_digests(original, original_encoding)
    assert digests is not None
    for form in (path, *conversions(path, tmp_path)):
        payload, encoding = loaded(form)
        assert differing_tags((original, original_encoding), (payload, encoding), 1) == ()
        assert content_digests(payload, encoding) == digests
        before, after = explicit_vr(payload, encoding, index(payload, encoding))
        joined = JoinedPayload([before, after])
        result = bytes(joined.read(0, joined.size))
        assert content_digests(MemoryPayload([result]), Encoding.EXPLICIT_LITTLE) == digests
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = as_pydicom(bytes(payload.read(0, payload.size)), encoding)
            written = as_pydicom(result, Encoding.EXPLICIT_LITTLE)
            big = encoding is Encoding.EXPLICIT_BIG
            # pydicom reads LUT descriptors of undefined-length items before it knows their sign.
            assert [d for d in differences(source, written, big=big) if "00283002" not in d] == []


# What readers stumble over: undefined lengths, items and delimiters where none belong, other VRs.
SPLINTERS = (
    b"\xff\xff\xff\xff",
    b"\xfe\xff\x00\xe0",
    b"\xfe\xff\x0d\xe0\0\0\0\0",
    b"\xfe\xff\xdd\xe0\0\0\0\0",
    b"\xe0\x7f\x10\x00",
    b"SQ",
    b"UN",
    b"",
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_damaged_forms_of_a_real_file(path: Path) -> None:
    """Splinters written over, put into and cut out of its head: examined or rejected, and nothing else."""
    chance = random.Random(path.stem)
    data = data_set_bytes(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = read(path)
        record = msgspec.structs.replace(
            recorded(b"", str(transfer_syntax(path))),
            sop_class_uid=str(names.get("SOPClassUID", "")),
            sop_instance_uid=str(names.get("SOPInstanceUID", "")),
        )
    for _ in range(30):
        head = bytearray(data[:6000])
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(head) - 8)
            head[at : at + chance.choice((0, 4, 8))] = chance.choice(SPLINTERS)
        with contextlib.suppress(Rejected):
            examination = validate(MemoryPayload([head, memoryview(data)[6000:]]), record)
            assert examination.identity.sop_instance_uid == record.sop_instance_uid


def test_a_deflated_file_of_another_toolkit(tmp_path: Path) -> None:
    """What DCMTK deflates is examined as what it was, with the same content digest."""
    path = CORPUS / "LittleEndianExplicit_CT_small.dcm"
    target = tmp_path / "deflated.dcm"
    subprocess.run(["dcmconv", "+td", path, target], check=True, capture_output=True)
    names = read(path)
    record = msgspec.structs.replace(
        recorded(b"", "1.2.840.10008.1.2.1.99"),
        sop_class_uid=str(names.SOPClassUID),
        sop_instance_uid=str(names.SOPInstanceUID),
    )
    examination = validate(MemoryPayload([data_set_bytes(target)]), record, tmp_path)
    assert examination.digests == content_digests(*loaded(path))
    assert examination.pixels is not None
    assert not examination.pixels.problems
