"""The checkpoint of one log partition: how far its worker has come, and where every instance so far ended.

Workers write it, ``status`` counts with it, and the spool recycles what lies below every mark; hence it is
part of the contract. One file a partition, ``DIR/checkpoints/<partition>``, replaced atomically:

    offset  size  field
    0       8     magic and format version, ``DICMCKP1``
    8       4     CRC-32C of the bytes that follow, little-endian
    12      n     MessagePack map of `Checkpoint`

Evolution: new fields have defaults; types and meanings never change; a new layout takes a new magic.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec
from crc32c import crc32c

from ingest.contract.folder_sync import replace_synced, sync_folder
from ingest.contract.records import Place

MAGIC: Final = b"DICMCKP1"
_BODY: Final = len(MAGIC) + 4


class CorruptCheckpoint(ValueError):  # noqa: N818 - states what was found
    """A checkpoint file that this release cannot read; only an administrator can decide what follows."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What is settled in one partition, all of it durable when this is.

    ``low_water_mark`` is the position of the first record of the oldest upload that has not reached its
    place, or the position behind the last record read when there is none. An upload in ``done`` ends above
    the mark and must be neither processed nor counted again, though it may begin below it.
    """

    partition: int
    low_water_mark: int = 0  # position in the log
    done: Mapping[bytes, int] = {}  # upload id -> position behind its last record
    counters: Mapping[Place, int] = {}  # instances by place, since the partition was made
    attempts: Mapping[bytes, int] = {}  # upload id -> tries that took their worker or codec with them
    outcomes_end: int = 0  # position in the partition's outcome log; outcomes below it are in the counters
    reasons: Mapping[str, int] = {}  # of the counters, by "<place>/<reason>", where there was a reason

    def count(self, place: Place) -> int:
        """Instances that ended at ``place``."""
        return self.counters.get(place, 0)

    @property
    def settled(self) -> int:
        """Instances that ended at any place."""
        return sum(self.counters.values())


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Checkpoint)


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The bytes of a checkpoint file."""
    body = _encoder.encode(checkpoint)
    return MAGIC + crc32c(body).to_bytes(4, "little") + body


def decode_checkpoint(data: bytes) -> Checkpoint:
    """The checkpoint in the bytes of its file.

    Raises:
        CorruptCheckpoint: wrong magic, CRC or content.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise CorruptCheckpoint("not a checkpoint of a version this release reads")
    body = data[_BODY:]
    if crc32c(body) != int.from_bytes(data[len(MAGIC) : _BODY], "little"):
        raise CorruptCheckpoint("checkpoint fails its CRC-32C")
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptCheckpoint(f"checkpoint content: {error}") from None


def checkpoint_path(folder: Path, partition: int) -> Path:
    """Where the checkpoint of ``partition`` is; ``folder`` is ``DIR/checkpoints``."""
    return folder / str(partition)


def read_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint at ``path``; None when there is none yet, which means: from the log's start.

    Raises:
        CorruptCheckpoint: the file cannot be read as a checkpoint; the message names it.
        OSError: the file system's.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return decode_checkpoint(data)
    except CorruptCheckpoint as error:
        raise CorruptCheckpoint(f"{path}: {error}") from None


def read_checkpoints(data: Path) -> dict[int, Checkpoint]:
    """Every partition's checkpoint that there is in a data folder.

    Raises:
        CorruptCheckpoint: one cannot be read.
        OSError: the file system's.
    """
    folder = data / "checkpoints"
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.isdecimal():
            checkpoint = read_checkpoint(path)
            if checkpoint is not None:
                found[int(path.name)] = checkpoint
    return found


def has_placed(data: Path) -> bool:
    """Whether workers on a data folder have placed anything: then stores that are not there are away, not new.

    Raises:
        CorruptCheckpoint, OSError: see `read_checkpoints`.
    """
    return any(found.counters for found in read_checkpoints(data).values())


def write_checkpoints(folder: Path, checkpoints: Iterable[Checkpoint]) -> None:
    """Replace partitions' checkpoints in ``folder``, each atomically, with one sync of the folder.

    Durable when this returns. One worker writes one partition.

    Raises:
        OSError: the file system's; each partition has its checkpoint before or the new one.
    """
    for checkpoint in checkpoints:
        replace_synced(checkpoint_path(folder, checkpoint.partition), encode_checkpoint(checkpoint))
    sync_folder(folder)
