"""Records become uploads again: one INSTANCE record, or PART records sealed by an END record.

An upload is known by its upload id, never by its SOP Instance UID. A part index seen before is ignored.
What never got an END was never acknowledged and is dropped: by its ABORT record, by the EPOCH record of the
receiver's next start, or, where the log bounds how long a record may be on its way, when no receiver can be at work
on it any more. What did get one may have been acknowledged: if parts are missing or a record is damaged, it is still
handed out, as damaged, with the bytes that are there. So are parts whose upload id was hit, by the log's own time.

A fence (`Fence`) is no upload: it is handed out beside them, and is counted nowhere.

Memory is bounded over all uploads together: above the limit the largest goes to the scratch sink.
"""

import contextlib
import errno
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Protocol

import xxhash

from ingest.contract.identifiers import UploadId
from ingest.contract.records import HEADER, CorruptRecord, Kind, Record
from workers.log.checkpoint import Progress
from workers.log.entries import DamagedRecord, Entry, LogRecord
from workers.log.expiry import Expiry
from workers.log.fence import Fence, fence_of, was_fence
from workers.log.pending import PendingUpload, scratch_name
from workers.log.scratch import ScratchPayload
from workers.log.upload import Upload, instance_in, legible, remains, unknown, unnamed, whole

_UNSEALED = "the record that seals it cannot be read"
_SEALING = (Kind.INSTANCE, Kind.END)
# As `upload.unnamed`, no receiver's: then comes a hash of the upload id that parts were wrongly put under.
_STRAY = b"\xff\xff\xff\xfe"


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
    of its partition, and is given again when `add` raised. ``expire_after``: seconds without a record, after
    which an upload will never end. ``stray_after``: seconds of the log's time after which parts under a damaged
    upload id are handed out as what is left of another upload; no sound one ends by it.
    """

    def __init__(
        self,
        progress: Mapping[int, Progress],
        scratch: Scratch,
        memory_limit: int,
        expire_after: float = math.inf,
        stray_after: float = math.inf,
    ) -> None:
        self._progress = progress
        self._scratch = scratch
        self._memory_limit = memory_limit
        self._expiry = Expiry(expire_after, stray_after)
        self._pending: dict[UploadId, PendingUpload] = {}
        self._fences: list[Fence] = []  # begun, and not taken yet
        self.unreadable = 0  # fences that are lost; whoever reports them sets it back
        self.late = 0  # records of expired uploads; whoever reports them sets it back
        self.held = 0  # bytes of incomplete uploads in memory
        self.orphans = 0  # uploads dropped without END; whoever reports them sets it back

    async def add(self, entry: Entry, now: float = 0.0) -> list[Upload]:
        """Take one entry of the log, read at ``now`` (monotonic); return the uploads that it completes.

        Raises:
            OSError: the scratch sink's; nothing has changed then.
        """
        progress = self._progress[entry.partition]
        expired = self._expiry.expired(entry, self._pending.values())
        await self._move_all(expired)
        if isinstance(entry, DamagedRecord):
            completed = await self._damaged(entry, progress)
        else:
            completed = await self._record(entry, entry.record, progress)
        self._expiry.touch(entry, now, self._pending)
        completed += await self._expire_all(expired, entry.next_position, progress)
        for upload in completed:
            progress.complete(upload.upload_id, upload.first_position, upload.sealed_at)
        progress.advance(entry.next_position)
        return completed

    def take_fences(self) -> list[Fence]:
        """Those that the last entry brought; of the same partition, the uploads before them were handed out before."""
        fences, self._fences = self._fences, []
        return fences

    def waits_since(self, partition: int) -> float:
        """When the record came that the longest waiting upload waits behind (monotonic); infinite without one."""
        waiting = (one.touched.own for one in self._pending.values() if one.partition == partition)
        return min(waiting, default=math.inf)

    async def expire(self, partition: int, now: float) -> list[Upload]:
        """Drop what has waited too long in a partition that was read to its end; as `add` otherwise.

        Raises:
            OSError: the scratch sink's; nothing has changed then.
        """
        progress = self._progress[partition]
        expired = self._expiry.expired_at(now, partition, self._pending.values())
        await self._move_all(expired)
        completed = await self._expire_all(expired, progress.read_to, progress)
        for upload in completed:
            progress.complete(upload.upload_id, upload.first_position, upload.sealed_at)
        return completed

    async def release(self, upload: Upload) -> None:
        """The upload's payload is not needed any more."""
        if upload.file:
            upload.file.close()
            # Else it goes with the folder; the upload has its place, whatever becomes of its file.
            with contextlib.suppress(OSError):
                await self._scratch.remove(upload.file.name)

    def forget(self, partition: int) -> None:
        """The partition is another's now; its scratch files are removed by whoever says so."""
        for pending in [one for one in self._pending.values() if one.partition == partition]:
            self._forget(pending)
        self._expiry.forget(partition)

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
        try:
            await self._scratch.write(name, 0, upload.payload.blocks())
        except OSError:
            # Nobody else would: the upload stays in memory, and knows of no file.
            with contextlib.suppress(OSError):
                await self._scratch.remove(name)
            raise
        file = self._scratch.payload(name, upload.payload.size)
        return replace(upload, payload=file, file=file)

    async def _expire_all(
        self, expired: Iterable[PendingUpload], end: int, progress: Progress
    ) -> list[Upload]:
        uploads = []
        for pending in expired:
            if self._pending.get(pending.upload_id) is not pending:
                continue  # the entry itself has ended it
            if pending.doubtful:
                uploads += await self._stray(pending, end, progress)
            else:
                self._expiry.give_up(pending)
                uploads += await self._end_all([pending], end, progress)
        return uploads

    async def _record(self, entry: LogRecord, record: Record, progress: Progress) -> list[Upload]:
        if record.kind is Kind.EPOCH:
            return await self._epoch(entry, record.upload_id, progress)
        if progress.knows(record.upload_id) or self._comes_late(entry):
            return []
        if record.kind in _SEALING and progress.counted_at(entry.position):
            await self._leave(record.upload_id, progress)
            return []
        match record.kind:
            case Kind.INSTANCE:
                stray = self._pending.get(record.upload_id)
                return [*await self._stray(stray, entry.next_position, progress), whole(entry, record)]
            case Kind.PART:
                await self._part(entry, record, progress)
            case Kind.END:
                return [replace(await self._end(entry, record), sealed_at=entry.position)]
            case Kind.ABORT:
                await self._drop(record.upload_id, progress)
            case Kind.COMMIT_ASKED:
                self._ask(entry, progress)
            case _:
                pass  # belongs to another log
        return []

    def _ask(self, entry: LogRecord, progress: Progress) -> None:
        """Hand a fence out, unless this is a producer's retry; one that cannot be read holds nothing up."""
        try:
            fence = fence_of(entry)
        except CorruptRecord:
            self.unreadable += 1
            return
        if not progress.waits_at(fence.fence_id):
            progress.hold(fence.fence_id, entry.position)
            self._fences.append(fence)

    def _comes_late(self, entry: LogRecord) -> bool:
        """See `Expiry.comes_late`."""
        late = self._expiry.comes_late(entry.record.upload_id, entry.appended_at)
        self.late += late
        return late

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
        instance = instance_in(record)
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
            instance=unknown(pending.size),
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
        # A damaged upload id may name an upload that never comes, and would wait for ever.
        misnamed = [pending for pending in here if pending.doubtful and pending not in dead]
        await self._move_all(dead + misnamed)
        uploads = await self._end_all(dead, entry.next_position, progress)
        for pending in misnamed:
            uploads += await self._stray(pending, entry.next_position, progress)
        return uploads

    async def _move_all(self, ended: Iterable[PendingUpload]) -> None:
        """Bring together what of these is kept, before anything changes, so that a retry finds all."""
        for pending in ended:
            if pending.written and pending.held and (pending.suspect or pending.doubtful):
                await self._move(pending)

    async def _end_all(self, ended: Iterable[PendingUpload], end: int, progress: Progress) -> list[Upload]:
        """No record comes for these any more: drop them, but keep those whose END may be among damage."""
        uploads = []
        for pending in ended:
            if pending.suspect:
                uploads.append(await self._complete(pending, end, _UNSEALED))
            else:
                await self._drop(pending.upload_id, progress)
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
        if was_fence(entry.data):
            self.unreadable += 1
            return []
        record = legible(entry.data)
        if record is not None and record.kind is Kind.PART:
            if not progress.knows(record.upload_id):
                await self._part(entry, record, progress)  # the seal over the whole tells whether it is sound
            return []
        upload_id = unnamed(entry.position)
        handed_out = progress.knows(upload_id)
        if record is not None and record.kind is Kind.END and not handed_out:
            if progress.counted_at(entry.position):
                await self._leave(record.upload_id, progress)
                return []
            if self._seals(record):
                sealed = await self._end(entry, record)
                return [replace(sealed, damage=_UNSEALED, sealed_at=entry.position)]
        if record is None or record.kind is Kind.END:
            for pending in self._pending.values():
                pending.suspect |= pending.partition == entry.partition
        if handed_out or progress.counted_at(entry.position) or len(entry.data) <= HEADER.size:
            return []  # in the last case no room for an instance: it was ABORT or EPOCH, or all that was there is lost
        return [remains(entry, upload_id, record)]

    def _seals(self, record: Record) -> bool:
        """Whether a damaged END fits the upload that it names."""
        pending = self._pending.get(record.upload_id)
        instance = instance_in(record)
        return (
            pending is not None and instance is not None and not pending.missing(instance.size, record.index)
        )

    async def _drop(self, upload_id: UploadId, progress: Progress) -> None:
        self.orphans += upload_id in self._pending
        await self._leave(upload_id, progress)

    async def _leave(self, upload_id: UploadId, progress: Progress) -> None:
        """What there is of the upload has no further use."""
        progress.drop(upload_id)
        pending = self._pending.get(upload_id)
        if pending is not None:
            self._forget(pending)
            if pending.written:
                # Else it goes with the folder; the entry must not come twice for it.
                with contextlib.suppress(OSError):
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
