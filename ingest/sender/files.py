"""PS3.10 files to send: found in folders, and read only as far as their file meta information.

Layout (PS3.10 section 7.1): 128 bytes of preamble, ``DICM``, then group 0002 as explicit VR little endian,
whose first element (0002,0000) says how many bytes the rest of the group has; then the data set.
"""

import os
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from ingest.contract.identifiers import InvalidIdentifier, check_uid

_PREAMBLE: Final = 128
_MAGIC: Final = b"DICM"
_FIRST: Final = struct.Struct("<HH2sHI")  # (0002,0000) UL, length 4, and its value
_GROUP: Final = 0x0002
_MEDIA_CLASS: Final = 0x0002
_MEDIA_INSTANCE: Final = 0x0003
_TRANSFER_SYNTAX: Final = 0x0010
# VRs with a 32-bit length (PS3.5 7.1.2) that group 0002 may hold.
_LONG: Final = frozenset({b"OB", b"OW", b"UN", b"UT", b"SQ"})
_MAXIMUM_META: Final = 256 * 1024  # bytes; real ones have some hundred, ours with a manifest up to 33 KiB
# Media Storage Directory: an index of other files, not an instance.
_DIRECTORY: Final = "1.2.840.10008.1.3.10"


class NotSendable(ValueError):  # noqa: N818 - states what was found
    """A file that no C-STORE can carry; the message never repeats its content."""


class DicomFile(NamedTuple):
    """A file to send: where its data set is, and what negotiation needs."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    offset: int  # bytes before the data set
    size: int  # bytes of the data set
    modified_at: int  # ns since 1970, by its file system

    def is_still(self, file: int) -> bool:
        """Whether an open file is this one, unchanged since it was looked at; ``file``: its descriptor."""
        status = os.fstat(file)
        return (status.st_mtime_ns, status.st_size) == (self.modified_at, self.offset + self.size)


def find_files(paths: Iterable[Path], unreadable: Callable[[OSError], None]) -> Iterator[tuple[Path, bool]]:
    """Each file once named, or found below a folder, in order; and whether it was named itself.

    Links to folders are not followed, so that a loop has an end. ``unreadable`` is told of each folder that cannot be listed.
    """
    for path in paths:
        if path.is_dir():
            found = [
                Path(folder, name) for folder, _, names in os.walk(path, onerror=unreadable) for name in names
            ]
            yield from ((one, False) for one in sorted(found) if _may_be_a_file(one))
        else:
            yield path, True


def _may_be_a_file(path: Path) -> bool:
    """Whether it is one, or nobody can tell, as whoever opens it hears."""
    try:
        return path.is_file()
    except OSError:
        return True


def read_head(path: Path) -> DicomFile | None:
    """What the file meta information says; None for a file that is no instance (no PS3.10 file, a DICOMDIR).

    Raises:
        NotSendable: a PS3.10 file whose meta information or length cannot be used.
        OSError: the file system's.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        head = file.read(_PREAMBLE + len(_MAGIC) + _FIRST.size)
        if head[_PREAMBLE : _PREAMBLE + len(_MAGIC)] != _MAGIC:
            return None
        values = _elements(file.read(_group_length(head)))
        offset = file.tell()
    size = status.st_size - offset
    sop_class = _uid(values, _MEDIA_CLASS)
    if sop_class == _DIRECTORY:
        return None
    if size <= 0 or size % 2:
        raise NotSendable("the data set is empty or has an odd length")
    instance, syntax = _uid(values, _MEDIA_INSTANCE), _uid(values, _TRANSFER_SYNTAX)
    return DicomFile(path, sop_class, instance, syntax, offset, size, status.st_mtime_ns)


def _group_length(head: bytes) -> int:
    try:
        group, element, vr, length, value = _FIRST.unpack_from(head, _PREAMBLE + len(_MAGIC))
    except struct.error:
        raise NotSendable("the file ends in its meta information") from None
    if (group, element, vr, length) != (_GROUP, 0, b"UL", 4):
        raise NotSendable("the file meta information has no group length")
    if value > _MAXIMUM_META:
        raise NotSendable(f"the file meta information claims more than {_MAXIMUM_META} bytes")
    return int(value)


def _elements(meta: bytes) -> dict[int, bytes]:
    """The values of group 0002 by element number."""
    values: dict[int, bytes] = {}
    position = 0
    while position < len(meta):
        try:
            group, element, vr, length = struct.unpack_from("<HH2sH", meta, position)
            position += 8
            if vr in _LONG:
                (length,) = struct.unpack_from("<I", meta, position)
                position += 4
        except struct.error:
            raise NotSendable("the file meta information is cut short") from None
        if group != _GROUP or position + length > len(meta):
            raise NotSendable("the file meta information is malformed")
        values[element] = meta[position : position + length]
        position += length
    return values


def _uid(values: dict[int, bytes], element: int) -> str:
    try:
        return check_uid(values.get(element, b"").decode("latin-1").rstrip("\0 "))
    except InvalidIdentifier as error:
        raise NotSendable(f"(0002,{element:04X}): {error}") from None
