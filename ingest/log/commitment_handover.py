"""What others leave for the receiver in folders: proofs of workers, requests of administrators.

A file is there whole under its final name, durably, or not at all. `Handover` reads it, and forgets it once the log
has what it says.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from ingest.contract.commitments import CommitProved, commitment_of, found_of
from ingest.contract.identifiers import TransactionId
from ingest.contract.records import MAX_RECORD, CorruptRecord, Record, decode
from ingest.contract.spool import Disk
from ingest.contract.spool.disk import read_file, replace_file
from ingest.log.commitment_log import Request, Written, request_record

logger = structlog.get_logger(__name__)

_BATCH: Final = 256  # files at a time
_PROOF: Final = re.compile(r"[0-9a-f]{32}-[0-9]{1,20}-[0-9]{1,6}\Z")
_REQUEST: Final = re.compile(r"([0-9a-f]{32})-(retry|expire)\Z")


def proof_folder(data: Path) -> Path:
    """Where workers put what they proved."""
    return data / "proofs"


def request_folder(data: Path) -> Path:
    """Where administrators put what they ask for."""
    return data / "commitments-requests"


def leave_request(disk: Disk, data: Path, transaction_id: TransactionId, request: Request) -> None:
    """Ask the receiver for something, whether it runs or not; durable when this returns.

    Raises:
        OSError: the disk's.
    """
    folder = request_folder(data)
    disk.make_folder(folder)
    disk.sync_folder(data)
    replace_file(disk, folder / f"{transaction_id.hex()}-{request}", b"")


def waiting_requests(disk: Disk, data: Path) -> Iterator[tuple[TransactionId, Request]]:
    """What the receiver has not seen yet."""
    for name in sorted(disk.names(request_folder(data))):
        if match := _REQUEST.match(name):
            yield TransactionId(bytes.fromhex(match[1])), Request(match[2])


class Left(NamedTuple):
    """A file, and the record to write for it: whole as the worker encoded it, or ours to encode."""

    path: Path
    record: bytes


class Handover:
    """Both folders. One thread at a time."""

    def __init__(self, disk: Disk, data: Path) -> None:
        self._disk = disk
        self._proofs = proof_folder(data)
        self._bad = self._proofs / "bad"
        self._requests = request_folder(data)
        self._unreadable: set[str] = set()  # files that were told of
        for folder in (self._proofs, self._bad, self._requests):
            disk.make_folder(folder)
        disk.sync_folder(data)

    def look(self, limit: int) -> list[Left]:
        """What is there, as far as it goes in one batch: until ``limit`` bytes of proofs are reached.

        Raises:
            OSError: the disk's.
        """
        found = []
        for name in self._disk.names(self._requests):
            if match := _REQUEST.match(name):
                commitment = request_record(Request(match[2]), time.time_ns())
                header, _ = Written(TransactionId(bytes.fromhex(match[1])), commitment).encode()
                found.append(Left(self._requests / name, header))
        proofs = [name for name in sorted(self._disk.names(self._proofs)) if _PROOF.match(name)]
        self._unreadable.intersection_update(proofs)
        size = 0
        for name in proofs:
            if len(found) >= _BATCH or size >= limit:
                break
            if (record := self._proof(name)) is not None:
                found.append(Left(self._proofs / name, record))
                size += len(record)
        return found

    def forget(self, left: list[Left]) -> None:
        """The log has them; should that not be durable, they are copied once more.

        Raises:
            OSError: the disk's.
        """
        for file in left:
            self._disk.unlink(file.path)

    def _proof(self, name: str) -> bytes | None:
        """The record in a file, or None of what is none, which is put aside, and of what cannot be read now."""
        path = self._proofs / name
        try:
            data = read_file(self._disk, path, MAX_RECORD + 1)
        except OSError as error:
            if name not in self._unreadable:
                logger.error("a proof cannot be read; the others go on", file=name, error=error.strerror)  # noqa: TRY400 - it says all
            self._unreadable.add(name)
            return None
        if data is None:
            return None
        try:
            _check(decode(data))
        except CorruptRecord as error:
            logger.warning("a worker left what is no proof; it is put aside", file=name, error=str(error))
            self._disk.rename(path, self._bad / name)
            return None
        return data


def _check(record: Record) -> None:
    if not isinstance(commitment_of(record), CommitProved):
        raise CorruptRecord("it is no proof")
    found_of(record)
