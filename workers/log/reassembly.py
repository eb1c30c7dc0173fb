"""Records become uploads again: one INSTANCE record, or PART records sealed by an END record.

An upload is known by its upload id, never by its SOP Instance UID. A part index seen before is ignored.
What never got an END was never acknowledged and is dropped, by its ABORT record or by the EPOCH record of
the receiver's next start. What did get one may have been acknowledged: if parts are missing or a record is
damaged, it is still handed out, as damaged, with the bytes that are there.

Memory is bounded over all uploads together: above the limit the largest goes to the scratch sink.
"""

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import xxhash

from ingest.contract.identifiers import InvalidIdentifier, UploadId, check_uid
from ingest.contract.records import HEADER, VERSION, CorruptRecord, Instance, Kind, Record, instance_of
from workers.dataset.payload import MemoryPayload, Payload
from workers.log.checkpoint import Progress
from workers.log.entries import DamagedRecord, Entry, LogRecord
from workers.log.pending import PendingUpload, scratch_name
from workers.log.scratch import ScratchPayload

# Upload ids of what damage has cut off from its own; no receiver has these numbers.
_DAMAGE = b"\xff\xff\xff\xff"  # then the position of a record that names no upload
_UNSEALED = "the record that seals it cannot be read"
_STRAY = b"\xff\xff\xff\xfe"  # then a hash of the upload id that parts were wrongly put under


@dataclass(frozen=True)
class Upload:
    """One completely received instance, or what is left of one."""

    upload_id: UploadId
    partition: int
    instance: Instance
    payload: Payload
    first_position: int
    end_position: int  # behind its last record
    damage: str = ""  # what the log lost of it; empty when nothing
    file: ScratchPayload | None = None  # where the payload is, when it is not in memory

    @property
    def held(self) -> int:
        """Bytes of memory that its payload takes."""
        return 0 if self.file else self.payload.size


class Scratch(Protocol):
    """Where large uploads wait; its files need not survive the process."""

    async def write(self, name: str, offset: int, pieces: Iterable[bytes | memoryview]) -> None:
        """Write ``pieces`` at ``offset``; after an error the same call may come again.

        Raises:
            OSError: the file system's.
        """
        ...

    def spares(self, size: int) -> bool:
        """Whether ``size`` bytes can be had that nothing more important will need.

        Raises:
            OSError: the file system's.
        """
        ...

    def payload(self, name: str, size: int) -> ScratchPayload:
        """The file, of ``size`` bytes, as a payload."""
        ...

    async def remove(self, name: str) -> None:
        """Remove the file, which may not exist."""
        ...


class Reassembler:
    """The uploads of a worker's partitions; pure but for the scratch sink.

    ``memory_limit`` is in bytes, for all incomplete uploads together. Each entry is given once, in the order
    of its partition, and is given again when `add` raised.
    """

    def __init__(self, progress: Mapping[int, Progress], scratch: Scratch, memory_limit: int) -> None:
        self._progress = progress
        self._scratch = scratch
        self._memory_limit = memory_limit
        self._pending: dict[UploadId, PendingUpload] = {}
        self.held = 0  # bytes of incomplete uploads in memory
        self.orphans = 0  # uploads dropped without END; whoever reports them sets it back

    async def add(self, entry: Entry) -> list[Upload]:
        """Take one entry of the log; return the uploads that it completes.

        Raises:
            OSError: the scratch sink's; nothing has changed then.
        """
        progress = self._progress[entry.partition]
        if isinstance(entry, DamagedRecord):
            completed = await self._damaged(entry, progress)
        else:
            completed = await self._record(entry, entry.record, progress)
        for upload in completed:
            progress.complete(upload.upload_id, upload.first_position)
        progress.advance(entry.next_position)
        return completed

    async def release(self, upload: Upload) -> None:
        """The upload's payload is not needed any more."""
        if upload.file:
            upload.file.close()
            await self._scratch.remove(upload.file.name)

    async def put_by(self, upload: Upload) -> Upload:
        """The same upload without its payload in memory, since it has to wait.

        Raises:
            OSError: the scratch sink's; also where the store may be waiting for the very room that it has.
        """
        if upload.file:
            upload.file.close()
        if not self._scratch.spares(upload.held):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if upload.file:
            return upload
        name = scratch_name(upload.partition, upload.upload_id)
        await self._scratch.write(name, 0, upload.payload.blocks())
        file = self._scratch.payload(name, upload.payload.size)
        return replace(upload, payload=file, file=file)

    async def _record(self, entry: LogRecord, record: Record, progress: Progress) -> list[Upload]:
        if record.kind is Kind.EPOCH:
            return await self._epoch(entry, record.upload_id, progress)
        if progress.knows(record.upload_id):
            return []
        match record.kind:
            case Kind.INSTANCE:
                stray = self._pending.get(record.upload_id)
                return [*await self._stray(stray, entry.next_position, progress), _whole(entry, record)]
            case Kind.PART:
                await self._part(entry, record, progress)
            case Kind.END:
                return [await self._end(entry, record)]
            case Kind.ABORT:
                await self._drop(record.upload_id, progress)
            case Kind.OUTCOME:
                pass  # belongs to the other log
        return []

    async def _part(self, entry: Entry, record: Record, progress: Progress) -> None:
        sound = isinstance(entry, LogRecord)
        pending = self._pending.get(record.upload_id)
        if pending is not None and pending.has(record.index, sound=sound):
            return
        await self._make_room(len(record.payload))
        if pending is None:
            pending = PendingUpload(record.upload_id, entry.partition, entry.position, doubtful=not sound)
            self._pending[record.upload_id] = pending
            progress.begin(record.upload_id, entry.position)
        self.held += pending.hold(record.index, record.payload, sound=sound)

    async def _end(self, entry: Entry, record: Record) -> Upload:
        instance = _instance(record)
        pending = self._pending.get(record.upload_id)
        if pending is None:
            pending = PendingUpload(record.upload_id, entry.partition, entry.position)
        if instance is None:
            return await self._complete(pending, entry.next_position, _UNSEALED)
        damage = pending.missing(instance.size, record.index)
        if not damage:
            for index in [index for index in pending.unsound if index >= record.index]:
                self._discard(pending, index)
        return replace(await self._complete(pending, entry.next_position, damage), instance=instance)

    async def _complete(self, pending: PendingUpload, end: int, damage: str) -> Upload:
        """Hand out what is there, as an unknown instance."""
        if pending.written and pending.held:
            await self._move(pending)
        self._forget(pending)
        file = self._scratch.payload(pending.scratch, pending.scratch_size) if pending.written else None
        return Upload(
            upload_id=pending.upload_id,
            partition=pending.partition,
            instance=_unknown(pending.size),
            payload=pending.payload(file),
            first_position=pending.first_position,
            end_position=end,
            damage=damage,
            file=file,
        )

    async def _epoch(self, entry: LogRecord, started: UploadId, progress: Progress) -> list[Upload]:
        """A receiver has started: what it left without END is dead, unless damage may have been its END."""
        here = [pending for pending in self._pending.values() if pending.partition == entry.partition]
        dead = [pending for pending in here if _is_older(pending.upload_id, started)]
        suspects = [pending for pending in dead if pending.suspect]
        # A damaged upload id may name an upload that never comes, and would wait for ever.
        misnamed = [pending for pending in here if pending.doubtful and pending not in dead]
        for pending in suspects + misnamed:
            if pending.written and pending.held:  # before anything changes, so that a retry finds all
                await self._move(pending)
        for pending in dead:
            if not pending.suspect:
                await self._drop(pending.upload_id, progress)
        end = entry.next_position
        uploads = [await self._complete(pending, end, _UNSEALED) for pending in suspects]
        for pending in misnamed:
            uploads += await self._stray(pending, end, progress)
        return uploads

    async def _stray(self, pending: PendingUpload | None, end: int, progress: Progress) -> list[Upload]:
        """Parts that damage put under the upload id of another upload, which may come yet."""
        if pending is None:
            return []
        upload = await self._complete(pending, end, "its upload id is damaged")
        progress.drop(upload.upload_id)
        upload_id = UploadId(_STRAY + xxhash.xxh3_128_digest(upload.upload_id)[len(_STRAY) :])
        if progress.knows(upload_id):
            await self.release(upload)
            return []
        return [replace(upload, upload_id=upload_id)]

    async def _damaged(self, entry: DamagedRecord, progress: Progress) -> list[Upload]:
        """Keep what can be kept. Its header may name the wrong upload: no sound one may suffer from that."""
        record = _legible(entry.data)
        if record is not None and record.kind is Kind.PART:
            if not progress.knows(record.upload_id):
                await self._part(entry, record, progress)  # the seal over the whole tells whether it is sound
            return []
        if record is not None and record.kind is Kind.END and self._seals(record):
            return [replace(await self._end(entry, record), damage=_UNSEALED)]
        if record is None or record.kind is Kind.END:
            for pending in self._pending.values():
                pending.suspect |= pending.partition == entry.partition
        upload_id = _unnamed(entry.position)
        if len(entry.data) <= HEADER.size or progress.knows(upload_id):
            return []  # no room for an instance: it was ABORT or EPOCH, or all that was there is lost
        return [_remains(entry, upload_id, record)]

    def _seals(self, record: Record) -> bool:
        """Whether a damaged END fits the upload that it names."""
        pending = self._pending.get(record.upload_id)
        instance = _instance(record)
        return (
            pending is not None and instance is not None and not pending.missing(instance.size, record.index)
        )

    async def _drop(self, upload_id: UploadId, progress: Progress) -> None:
        progress.drop(upload_id)
        pending = self._pending.get(upload_id)
        if pending is not None:
            self.orphans += 1
            self._forget(pending)
            if pending.written:
                await self._scratch.remove(pending.scratch)

    def _forget(self, pending: PendingUpload) -> None:
        if self._pending.pop(pending.upload_id, None) is not None:
            self.held -= pending.held_size

    def _discard(self, pending: PendingUpload, index: int) -> None:
        self.held -= pending.held_size
        pending.discard(index)
        self.held += pending.held_size

    async def _make_room(self, size: int) -> None:
        while self.held and self.held + size > self._memory_limit:
            await self._move(max(self._pending.values(), key=lambda pending: pending.held_size))

    async def _move(self, pending: PendingUpload) -> None:
        await self._scratch.write(pending.scratch, pending.scratch_size, pending.pieces())
        self.held -= pending.held_size
        pending.moved()


def _is_older(upload_id: UploadId, started: UploadId) -> bool:
    """Whether an upload belongs to an earlier start of the receiver that has now ``started``."""
    return upload_id.receiver == started.receiver and upload_id.epoch < started.epoch


def _whole(entry: LogRecord, record: Record) -> Upload:
    """The upload in an INSTANCE record."""
    instance = _instance(record)
    size = len(record.payload)
    return Upload(
        upload_id=record.upload_id,
        partition=entry.partition,
        instance=instance or _unknown(size),
        payload=MemoryPayload([record.payload]),
        first_position=entry.position,
        end_position=entry.next_position,
        damage="" if instance and instance.size == size else "its record contradicts itself",
    )


def _remains(entry: DamagedRecord, upload_id: UploadId, record: Record | None) -> Upload:
    """A damaged record as an upload of its own, with as much of an instance as can be made out."""
    instance = _instance(record) if record is not None and record.kind is Kind.INSTANCE else None
    data = record.payload if record is not None and instance is not None else entry.data
    return Upload(
        upload_id=upload_id,
        partition=entry.partition,
        instance=instance or _unknown(len(data)),
        payload=MemoryPayload([data]),
        first_position=entry.position,
        end_position=entry.next_position,
        damage="its record fails its check sum",
    )


def _unnamed(position: int) -> UploadId:
    """The upload id of damage at ``position`` that names no upload, the same at every replay."""
    return UploadId(_DAMAGE + position.to_bytes(UploadId.SIZE - len(_DAMAGE), "big"))


def _unknown(size: int) -> Instance:
    """Stands for the metadata of an instance that lost it."""
    return Instance("", "", "", size, b"", "", "", "", 0)


def _instance(record: Record) -> Instance | None:
    """The metadata, None when it is damaged or, being from a damaged record, holds an unusable UID."""
    try:
        instance = instance_of(record)
        check_uid(instance.sop_instance_uid)
    except (CorruptRecord, InvalidIdentifier):
        return None
    return instance


def _legible(data: memoryview) -> Record | None:
    """A record that fails its check, read by its header, if that fits the bytes and the kind."""
    if len(data) < HEADER.size:
        return None
    version, kind, metadata_size, payload_size, _, upload_id, index = HEADER.unpack_from(data)
    body = HEADER.size + metadata_size
    if version != VERSION or body + payload_size != len(data):
        return None
    fits = {
        Kind.INSTANCE: metadata_size and index == 1,
        Kind.PART: payload_size and not metadata_size,
        Kind.END: metadata_size and not payload_size,
    }
    if not fits.get(kind, False):
        return None
    return Record(Kind(kind), UploadId(upload_id), index, data[HEADER.size : body], data[body:])
