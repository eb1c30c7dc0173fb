"""The last refusals of a data folder: what was not taken, from connections to requests of storage commitment, and why.

``DIR/refusals/current.jsonl`` is appended to; with `KEPT` lines it becomes ``previous.jsonl``. So the last `KEPT` are
always there, and never more than twice as many. One line is one refusal, or several of the same kind within a second.
What a peer says of itself is in it only after `shown`.
"""

import contextlib
import enum
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from ingest.contract.identifiers import InvalidIdentifier, check_ae_title, check_uid

KEPT: Final = 1000  # refusals
_LONGEST_TEXT: Final = 64  # characters of what is no AE title
_LONGEST_LINE: Final = 4096  # bytes


class RefusalOf(enum.StrEnum):
    """What was not taken."""

    CONNECTION = "connection"
    HANDSHAKE = "handshake"  # of TLS
    ASSOCIATION = "association"
    CONTEXT = "context"
    INSTANCE = "instance"
    COMMITMENT = "commitment"  # a request of it


class Refusal(msgspec.Struct, frozen=True):
    """One line; new fields go last and have defaults."""

    at: int  # nanoseconds since 1970-01-01 UTC, of the last of them
    refused: RefusalOf
    calling_ae_title: str
    called_ae_title: str
    address: str
    reason: str  # a word from a closed list
    subject: str  # a checked SOP Class UID, or a sentence of ours
    remedy: str  # the setting to change, or what else helps
    times: int = 1


def shown(ae_title: str) -> str:
    """An AE title as it may be shown: as it is, or escaped, cut and in quotes where it is none."""
    try:
        return check_ae_title(ae_title)
    except InvalidIdentifier:
        cut = ae_title[:_LONGEST_TEXT].encode("unicode_escape").decode("ascii")
        return f'"{cut[:_LONGEST_TEXT]}"' if ae_title else ""


def shown_uid(uid: str) -> str:
    """A UID as it may be shown."""
    try:
        return check_uid(uid)
    except InvalidIdentifier:
        return "(not a UID)"


def refusals_folder(data: Path) -> Path:
    """Where they are."""
    return data / "refusals"


class RefusalJournal:
    """Appends to the files; owned by one process, and by one thread at a time."""

    def __init__(self, data: Path) -> None:
        self._folder = refusals_folder(data)
        self._lines = -1  # of the current file; not yet known

    def append(self, refusals: Sequence[Refusal]) -> None:
        """Write them. Not synced: nothing depends on it.

        Raises:
            OSError: the file system's.
        """
        if self._lines < 0:
            self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._lines = _count_lines(self._current)
        while refusals:
            room = KEPT - self._lines
            if room <= 0:
                self._current.replace(self._previous)
                self._lines = 0
                continue
            self._write(refusals[:room])
            refusals = refusals[room:]

    def _write(self, refusals: Sequence[Refusal]) -> None:
        lines = [msgspec.json.encode(refusal) + b"\n" for refusal in refusals]
        text = b"".join(line for line in lines if len(line) <= _LONGEST_LINE)
        fd = os.open(self._current, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        with open(fd, "r+b", buffering=0) as file:  # noqa: PTH123 - a descriptor, for the mode of the file
            end = file.seek(0, os.SEEK_END)
            if end and os.pread(fd, 1, end - 1) != b"\n":
                text = b"\n" + text  # a kill or a full disk has cut the last line
            file.write(text)
        self._lines += len(refusals)

    @property
    def _current(self) -> Path:
        return self._folder / "current.jsonl"

    @property
    def _previous(self) -> Path:
        return self._folder / "previous.jsonl"


def read_refusals(data: Path) -> list[Refusal]:
    """The last `KEPT`, oldest first; to be called while a receiver runs or not. What is no refusal is passed over.

    Raises:
        OSError: the file system's.
    """
    folder = refusals_folder(data)
    current = _read(folder / "current.jsonl")  # first: what becomes the previous one meanwhile is not missed
    return [*_read(folder / "previous.jsonl"), *current][-KEPT:]


def _read(path: Path) -> list[Refusal]:
    found = []
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for line in islice(file, KEPT):
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                found.append(msgspec.json.decode(line, type=Refusal))
    return found


def _count_lines(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return sum(1 for _ in islice(file, KEPT))
    except FileNotFoundError:
        return 0
