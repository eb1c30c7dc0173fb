"""Files to send: found, and read no further than their file meta information."""

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.cli.send import gather
from ingest.sender import Summary
from ingest.sender.files import DicomFile, NotSendable, find_files, read_head

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


def element(number: int, vr: bytes, value: bytes) -> bytes:
    if vr in {b"OB", b"UN"}:
        return struct.pack("<HH2sHI", 2, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", 2, number, vr, len(value)) + value


def part10(*elements: bytes, data_set: bytes = b"\x08\x00\x18\x00UI\x02\x001\x00") -> bytes:
    meta = b"".join(elements)
    return bytes(128) + b"DICM" + element(0, b"UL", struct.pack("<I", len(meta))) + meta + data_set


def head(sop_class: str = CT, instance: str = "1.2", syntax: str = EXPLICIT) -> list[bytes]:
    uids = {2: sop_class, 3: instance, 16: syntax}
    return [
        element(1, b"OB", b"\0\1"),
        *(element(number, b"UI", uid.encode() + b"\0" * (len(uid) % 2)) for number, uid in uids.items()),
    ]


def test_head_is_read(tmp_path: Path) -> None:
    """Class, instance, syntax, and where the data set is."""
    path = tmp_path / "a.dcm"
    path.write_bytes(part10(*head()))
    file = read_head(path)
    status = path.stat()
    assert file == DicomFile(path, CT, "1.2", EXPLICIT, status.st_size - 10, 10, status.st_mtime_ns)


def test_other_files_are_none(tmp_path: Path) -> None:
    """A text, an empty file and a DICOMDIR are no instances."""
    path = tmp_path / "a"
    for content in (b"", b"DICM", b"text" * 100, part10(*head("1.2.840.10008.1.3.10"))):
        path.write_bytes(content)
        assert read_head(path) is None


@pytest.mark.parametrize(
    "content",
    [
        part10(*head())[:140],
        part10(*head(instance="1..2")),
        part10(*head(syntax="")),
        part10(*head()[:2]),
        part10(*head(), data_set=b""),
        part10(*head(), data_set=b"odd"),
        part10(*head(), element(0x102, b"OB", b"1234")[:-2]),
        bytes(128) + b"DICM" + element(0, b"UL", struct.pack("<I", 0xFFFFFFFE)) + bytes(100),
        bytes(128) + b"DICM" + element(2, b"UI", b"1.2\0") + bytes(100),
    ],
    ids=["cut", "uid", "no-syntax", "no-instance", "empty", "odd", "cut-element", "huge-length", "no-length"],
)
def test_unusable_file_is_named(tmp_path: Path, content: bytes) -> None:
    """A PS3.10 file that cannot be sent says why, and takes no memory for a length that it only claims."""
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    with pytest.raises(NotSendable):
        read_head(path)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_file_none_or_not_sendable(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes
) -> None:
    """Only the documented error escapes, whatever follows the magic word."""
    path = tmp_path_factory.getbasetemp() / "any.dcm"
    path.write_bytes(bytes(128) + b"DICM" + tail)
    with contextlib.suppress(NotSendable):
        read_head(path)


def test_folders_are_walked_in_order(tmp_path: Path) -> None:
    """Files below a folder are found, named files are marked, a loop of links ends."""
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("b/c/2", "b/1", "a"):
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path / "b")
    found = list(find_files([tmp_path / "a", tmp_path / "b"], lambda error: pytest.fail(str(error))))
    assert found == [
        (tmp_path / "a", True),
        (tmp_path / "b" / "1", False),
        (tmp_path / "b" / "c" / "2", False),
    ]


@pytest.fixture
def folder_of_nobody() -> Iterator[Path]:
    """A folder, and a process without the right to read whatever it likes."""
    nobody, root = 65534, 0
    with TemporaryDirectory() as name:
        folder = Path(name)
        if os.geteuid() == root:
            os.chown(folder, nobody, nobody)
            os.seteuid(nobody)
        try:
            yield folder
        finally:
            if os.getuid() == root:
                os.seteuid(root)


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o400])
def test_a_folder_that_may_not_be_read_is_named(folder_of_nobody: Path, mode: int) -> None:
    """What is in it was not sent: with what could be read alone, nobody would know."""
    closed = folder_of_nobody / "closed"
    closed.mkdir()
    for path in (closed / "1", folder_of_nobody / "2"):
        path.write_bytes(part10(*head()))
    closed.chmod(mode)
    summary = Summary()
    files, skipped = gather((folder_of_nobody,), summary)
    closed.chmod(0o700)
    assert ([file.path.name for file in files], skipped) == (["2"], 0)
    is_listed = bool(mode & 0o400)
    assert summary.failures == [(closed / "1" if is_listed else closed, "not sent: Permission denied")]
