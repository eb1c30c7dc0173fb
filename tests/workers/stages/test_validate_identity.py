"""Validate: who is it, is it what the command said; what cannot be known is rejected, the rest is a finding."""

import random
import zlib
from pathlib import Path

import msgspec
import pytest

from ingest.contract.records import Instance
from tests.support.element_trees import El, encode
from tests.support.instances import SECONDARY_CAPTURE, SOP_INSTANCE, SYNTAXES, encoded, image, recorded, ui
from workers.dataset.elements import Limits
from workers.dataset.payload import FilePayload, MemoryPayload
from workers.errors import Reason, Rejected
from workers.stages.validate import Examination, validate

DEFLATED = "1.2.840.10008.1.2.1.99"


def examined(**changes: El | None) -> Examination:
    data, instance = encoded("explicit", **changes)
    return validate(MemoryPayload([data]), instance)


def reason(data: bytes, instance: Instance, limits: Limits | None = None) -> Reason:
    with pytest.raises(Rejected) as caught:
        validate(MemoryPayload([data]), instance, limits=limits)
    assert 0 <= caught.value.position <= max(len(data), 1)
    assert "Doe" not in str(caught.value)
    assert SOP_INSTANCE not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("mode", sorted(SYNTAXES))
def test_a_good_instance(mode: str) -> None:
    """A sound image in each native encoding is known whole, without findings, and with one content digest."""
    data, instance = encoded(mode)
    examination = validate(MemoryPayload([data]), instance)
    assert examination.findings == ()
    assert examination.identity.sop_class_uid == SECONDARY_CAPTURE
    assert examination.identity.sop_instance_uid == SOP_INSTANCE
    assert examination.identity.study_instance_uid == "1.2.3.4"
    assert examination.identity.series_instance_uid == "1.2.3.4.1"
    assert examination.digests == examined().digests is not None
    assert [element.tag for element in examination.elements] == [element.tag for element in image()]
    assert examination.elements[-1].end == len(data)
    rows = examination.element(0x0028_0010)
    assert rows is not None
    assert data[rows.value : rows.end] in (b"\4\0", b"\0\4")
    assert examination.element(0x0028_0008) is None


@pytest.mark.parametrize("tag", [0x0008_0016, 0x0008_0018, 0x0020_000D, 0x0020_000E])
@pytest.mark.parametrize(
    "value", [None, b"", b"\0\0", b"../../etc ", b"1..2", b"1.2.\xff1", b"1" * 65 + b"\0", b"1" * 2000]
)
def test_an_instance_without_a_usable_uid_is_rejected(tag: int, value: bytes | None) -> None:
    """SOP Class, SOP Instance, Study and Series UID: missing, empty, too long or no UID is `identity`."""
    data, instance = encoded("explicit", **{f"x{tag:08X}": None if value is None else El(tag, "UI", value)})
    assert reason(data, instance) is Reason.IDENTITY


def test_a_uid_twice_is_no_identity() -> None:
    """Two SOP Instance UIDs, of which readers would take either, are rejected."""
    tree = image()
    assert reason(*_with(encode([*tree[:2], tree[1], *tree[2:]], "explicit"))) is Reason.IDENTITY


def _with(data: bytes) -> tuple[bytes, Instance]:
    return data, recorded(data)


def test_uids_are_kept_as_sent() -> None:
    """A leading zero is a finding, padding of either kind is none, and the string stays as it came."""
    examination = examined(
        x0020000D=El(0x0020_000D, "UI", b"1.02.3"), x0020000E=El(0x0020_000E, "UI", b"1.2 ")
    )
    assert examination.identity.study_instance_uid == "1.02.3"
    assert examination.identity.series_instance_uid == "1.2"
    assert examination.findings == ("uid-leading-zero (0020,000D)",)


def test_shared_uids_are_a_finding() -> None:
    """Study, series and instance that share a UID are noted; readers tell them apart by place."""
    examination = examined(x0020000E=El(0x0020_000E, "UI", ui("1.2.3.4")))
    assert examination.findings == ("uid-shared (0020,000E)",)


def test_the_command_must_agree() -> None:
    """A data set that names another instance or class than the command is a mismatch."""
    for tag in (0x0008_0016, 0x0008_0018):
        data, instance = encoded("explicit", **{f"x{tag:08X}": El(tag, "UI", ui("1.2.3.9"))})
        assert reason(data, instance) is Reason.MISMATCH


@pytest.mark.parametrize("tag", [0x0008_0050, 0x0010_0010, 0x0010_0020])
@pytest.mark.parametrize("value", [None, b"", b"  ", b"^^^^", b"\0\0"])
def test_an_unidentified_patient_is_a_finding(tag: int, value: bytes | None) -> None:
    """Emergencies are legal: no name, ID or accession number is noted, never refused."""
    examination = examined(**{f"x{tag:08X}": None if value is None else El(tag, "LO", value)})
    assert f"patient-unidentified ({tag >> 16:04X},{tag & 0xFFFF:04X})" in examination.findings


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        (El(0x0000_0002, "UI", b"1.2 "), Reason.GROUP_0000),
        (El(0x0002_0010, "UI", b"1.2 "), Reason.GROUP_0002),
        (El(0x0002_0000, "UL", bytes(4)), Reason.GROUP_0002),
    ],
)
@pytest.mark.parametrize("mode", sorted(SYNTAXES))
def test_command_and_meta_elements_are_rejected(element: El, expected: Reason, mode: str) -> None:
    """Group 0000 and 0002 anywhere at top level: behind our own file meta they would pass for it."""
    for tree in ([element, *image()], [*image(), element]):
        data = encode(tree, mode)
        assert reason(data, recorded(data, SYNTAXES[mode])) is expected


def test_what_is_no_data_set() -> None:
    """Other syntaxes, another encoding than announced, bytes that are cut: each has its word."""
    data, instance = encoded("explicit")
    other = msgspec.structs.replace
    assert reason(data, other(instance, transfer_syntax_uid="1.2.3")) is Reason.TRANSFER_SYNTAX
    for syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.2"):
        assert reason(data, other(instance, transfer_syntax_uid=syntax)) in (
            Reason.TRUNCATED,
            Reason.STRUCTURE,
        )
    assert reason(data[:-1], instance) is Reason.TRUNCATED
    assert reason(b"", instance) is Reason.IDENTITY
    assert reason(data, instance, Limits(elements=5)) is Reason.LIMIT
    assert reason(data, instance, Limits(top_level=5)) is Reason.LIMIT


@pytest.mark.parametrize(
    ("element", "finding"),
    [
        (El(0x0008_0005, "CS", b"ISO_IR 6"), "character-set (0008,0005)"),
        (El(0x0008_0070, "LO", b"M\xfcller"), "text-encoding (0008,0070)"),
        (El(0x0008_0070, "LO", b"x" * 66), "value-length (0008,0070)"),
        (El(0x0008_0020, "DA", b"2024.01.01"), "value-length (0008,0020)"),
        (El(0x0018_0050, "DS", b"abc "), "value-syntax (0018,0050)"),
        (El(0x0020_0013, "IS", b"1.5 "), "value-syntax (0020,0013)"),
        (El(0x0028_0106, "US", b"123"), "value-length (0028,0106)"),
        (El(0x0010_1010, "AS", b"30 Y"), "value-syntax (0010,1010)"),
        (El(0x0009_1001, "LO", b"AB"), "no-private-creator (0009,1001)"),
        (El(0x0008_0000, "UL", b"\1\0\0\0"), "group-length (0008,0000)"),
        (El(0x0008_0060, "CS", b"CT "), "odd-length (0008,0060)"),
    ],
)
def test_careless_values_are_findings(element: El, finding: str) -> None:
    """What senders write against PS3.5 is noted with its tag, and the instance goes on."""
    assert finding in examined(**{f"x{element.tag:08X}": element}).findings


def test_sound_values_are_no_findings() -> None:
    """Values with padding, several values, private blocks with a creator and text in its character set pass."""
    group_10 = encode([El(0x0010_0010, "PN", b"Doe^Jane"), El(0x0010_0020, "LO", b"ID 1")], "explicit")
    examination = examined(
        x00080005=El(0x0008_0005, "CS", b"ISO_IR 192"),
        x00100000=El(0x0010_0000, "UL", (len(group_10) + 12).to_bytes(4, "little")),
        x00080008=El(0x0008_0008, "CS", b"ORIGINAL\\PRIMARY\\AXIAL"),
        x00080020=El(0x0008_0020, "DA", b"20240101"),
        x00080070=El(0x0008_0070, "LO", "Müller ".encode()),
        x00090010=El(0x0009_0010, "LO", b"X "),
        x00091001=El(0x0009_1001, "LO", b"AB"),
        x00101010=El(0x0010_1010, "AS", b"030Y"),
        x00180050=El(0x0018_0050, "DS", b"-1.5e-3\\ 2"),
    )
    assert examination.findings == ()


def test_findings_are_bounded() -> None:
    """A thousand careless elements make a short list that says that it was cut."""
    many = {f"x{tag:08X}": El(tag, "LO", b"A") for tag in range(0x0009_1000, 0x0009_1400)}
    findings = examined(**many).findings
    assert len(findings) == 65
    assert findings[-1] == "more"


def deflated(data: bytes, tail: bytes = b"") -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflater.compress(data) + deflater.flush() + tail


@pytest.mark.parametrize("tail", [b"", b"\0"])
def test_deflated_data_sets_are_inflated(tail: bytes, tmp_path: Path) -> None:
    """A deflated data set is examined as what it inflates to, in memory or in a scratch file."""
    large = El(0x0009_1001, "OB", bytes(9_000_000))
    creator = El(0x0009_0010, "LO", b"X ")
    for tree in (image(), sorted([*image(), creator, large])):
        data = deflated(encode(tree, "explicit"), tail)
        examination = validate(MemoryPayload([data]), recorded(data, DEFLATED), tmp_path)
        assert examination.findings == ()
        assert examination.pixels is not None
        whole = examination.data_set.read(0, examination.data_set.size)
        assert bytes(whole) == encode(tree, "explicit")
        if isinstance(examination.data_set, FilePayload):
            examination.data_set.close()
    assert not list(tmp_path.iterdir())


def test_deflated_bombs_and_damage() -> None:
    """A bomb stops at the limit, damage and missing ends are told apart."""
    bomb = deflated(bytes(50_000_000))
    assert reason(bomb, recorded(bomb, DEFLATED), Limits(inflated=10_000_000)) is Reason.LIMIT
    good = deflated(encode(image(), "explicit"))
    assert reason(good[:-5], recorded(good, DEFLATED)) is Reason.TRUNCATED
    assert reason(b"\xff" * 40, recorded(good, DEFLATED)) is Reason.INFLATE


def test_only_rejected_escapes() -> None:
    """Thousands of damaged forms of an image are examined or rejected; nothing else happens."""
    chance = random.Random(7)
    for mode in sorted(SYNTAXES):
        original, instance = encoded(mode, x00081140=El(0x0008_1140, "SQ", [image()[:5]], undefined=True))
        for _ in range(700):
            data = bytearray(original)
            for _ in range(chance.randint(1, 3)):
                at = chance.randrange(len(data))
                data[at : at + chance.choice((0, 1, 2, 4))] = chance.randbytes(chance.choice((0, 1, 2, 4)))
            try:
                examination = validate(MemoryPayload([data]), instance)
            except Rejected:
                continue
            assert examination.identity.sop_instance_uid == SOP_INSTANCE
