"""Which uploads no record will come for any more: by the log's own time, or by ours where a log was read to its end."""

import math
from collections.abc import Iterable, Mapping

from ingest.contract.identifiers import UploadId
from workers.log.entries import Entry, LogRecord
from workers.log.log_clock import LogClock
from workers.log.pending import Moment, PendingUpload
from workers.log.upload import legible

_GIVEN_UP = 4096  # expired uploads remembered: a broker that stood still may append what was refused long ago
_STEPS = 16  # the log's clock is looked at so often within the time after which an upload expires


class Expiry:
    """Of a worker's partitions; pure. Times are in seconds, see `Reassembler`."""

    def __init__(self, expire_after: float, stray_after: float) -> None:
        self._expire_after = expire_after
        self._stray_after = min(expire_after, stray_after)
        self._clocks: dict[int, LogClock] = {}
        self._looked: dict[int, int] = {}  # when the log's clock last made us look for expired uploads
        self._given_up: dict[UploadId, int] = {}  # when the last record of each was appended

    def expired(self, entry: Entry, pending: Iterable[PendingUpload]) -> list[PendingUpload]:
        """Those of the entry's partition that, by the log's clock, no record will come for; not the entry's own."""
        if math.isinf(self._stray_after):
            return []
        step = int(1000 * self._stray_after) // _STEPS
        clock = self._clocks.setdefault(entry.partition, LogClock(step))
        elapsed = clock.after(entry.appended_at)
        if elapsed < self._looked.get(entry.partition, 0) + step:
            return []
        self._looked[entry.partition] = elapsed
        own = entry.record.upload_id if isinstance(entry, LogRecord) else None
        return [
            one
            for one in pending
            if one.partition == entry.partition
            and one.upload_id != own
            and elapsed - one.touched.log > 1000 * self._patience(one)
        ]

    def expired_at(self, now: float, partition: int, pending: Iterable[PendingUpload]) -> list[PendingUpload]:
        """Those of a partition that was read to its end for which nothing came for too long (``now``: monotonic)."""
        return [
            one
            for one in pending
            if one.partition == partition and now - one.touched.own > self._expire_after
        ]

    def touch(self, entry: Entry, now: float, pending: Mapping[UploadId, PendingUpload]) -> None:
        """The log's time goes on, and the entry's own upload is alive."""
        clock = self._clocks.get(entry.partition)
        if clock is None:
            return
        clock.advance(entry.appended_at)
        record = entry.record if isinstance(entry, LogRecord) else legible(entry.data)
        own = pending.get(record.upload_id) if record is not None else None
        if own is not None:
            own.touched = Moment(clock.elapsed, now)
            own.appended_at = entry.appended_at

    def give_up(self, pending: PendingUpload) -> None:
        """It has expired."""
        self._given_up[pending.upload_id] = pending.appended_at
        while len(self._given_up) > _GIVEN_UP:
            del self._given_up[next(iter(self._given_up))]

    def comes_late(self, upload_id: UploadId, appended_at: int) -> bool:
        """Whether a record is of an upload that has expired, as far as that is remembered, and its END cannot be answered with success.

        Its receiver goes by these times as well. A leader whose clock is behind makes a pause short that was long: then
        it is not refused, and is an upload that has lost what we dropped.
        """
        before = self._given_up.get(upload_id)
        if before is None:
            return False
        if appended_at - before > 1000 * self._expire_after:
            return True
        del self._given_up[upload_id]
        return False

    def forget(self, partition: int) -> None:
        """The partition is another's now."""
        self._clocks.pop(partition, None)
        self._looked.pop(partition, None)

    def _patience(self, pending: PendingUpload) -> float:
        """Nothing is lost where a doubtful one ends too early: what comes later is handed out by itself, as damaged."""
        return self._stray_after if pending.doubtful else self._expire_after
