"""What unknown sources may put into quarantine: anyone can send it, so it has a quota of its own.

The quota is one receiver's, for all unknown sources together, and for a period. What was taken is on disk before it is
acknowledged, in steps, so that a restart begins where the last one ended or somewhat later, never earlier. Several
receivers have as many quotas.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
from msgspec.structs import replace

from ingest.association.events import Rows
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Kind
from ingest.contract.settings import ReceiverSettings
from ingest.contract.unknown_sources import Taken, read_taken, write_taken
from ingest.dimse.status import OUT_OF_RESOURCES
from ingest.errors import QuotaUsedUp
from ingest.instance import ChunkPool, RecordLog, Share, Upload

logger = structlog.get_logger(__name__)

# Of the quota, what is written ahead: one write and sync of a small file for so much, and at most as much is counted
# though it never came, at each kill. The event loop waits for that sync, some sixty times a period at most: what goes
# on with a count that is not on disk would be more to get wrong than that is worth.
_STEP: Final = 32


class UnknownQuota:
    """Owned by one event loop. Without ``data`` nothing outlives the process; ``now`` gives seconds since 1970."""

    def __init__(
        self, settings: ReceiverSettings, data: Path | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self._data = data
        self._now = now
        self._failing = False
        self.period = 0  # how many have begun
        self.taken = self._durable = Taken()
        self.reload(settings)
        if data is not None:
            self._load(data)

    def reload(self, settings: ReceiverSettings) -> None:
        """Take these limits from now on; what was taken stays so."""
        self.instances = settings.unknown_instances
        self.bytes = settings.unknown_bytes
        self._period = settings.unknown_period

    def begin(self) -> None:
        """One more instance is about to come.

        Raises:
            QuotaUsedUp: it may not.
        """
        self._renew()
        if self.taken.bytes >= self.bytes or not self._take(1, 0):
            raise _used_up()

    def take(self, size: int) -> bool:
        """So many bytes of it have come; whether they may."""
        return self._take(0, size)

    def give_back(self, size: int, period: int) -> None:
        """An instance that was begun in a period, and of which so many bytes had been taken, will not be."""
        if period != self.period:
            return
        taken = self.taken
        self.taken = replace(taken, instances=max(0, taken.instances - 1), bytes=max(0, taken.bytes - size))

    def close(self) -> None:
        """Nothing more will come: write down exactly what has."""
        if self._data is not None and self.taken != self._durable:
            self._write(self._data, self.taken)

    @property
    def used(self) -> float:
        """How much of the quota is used up, of instances or of bytes; 1 is all. Any thread may ask."""
        taken = self.taken
        if self._is_over(taken, self._now()):
            return 0.0
        return max(taken.instances / self.instances, taken.bytes / self.bytes)

    def _load(self, data: Path) -> None:
        try:
            self.taken = self._durable = read_taken(data)
        except (OSError, ValueError):
            logger.exception("what unknown sources have sent is not known: it counts as all that they may")
            self.taken = Taken(self._now(), self.instances, self.bytes)
            self._write(data, self.taken)

    def _take(self, instances: int, size: int) -> bool:
        taken = self.taken
        wanted = replace(taken, instances=taken.instances + instances, bytes=taken.bytes + size)
        if wanted.instances > self.instances or wanted.bytes > self.bytes or not self._is_durable(wanted):
            return False
        self.taken = wanted
        return True

    def _is_over(self, taken: Taken, now: float) -> bool:
        return not taken.begun_at or now - taken.begun_at >= self._period

    def _renew(self) -> None:
        """Begin a new period if it is time."""
        now = self._now()
        if self._is_over(self.taken, now):
            self.period += 1
            self.taken = Taken(now)
            self._durable = Taken()  # the file tells of another period
        elif self.taken.begun_at > now:  # a clock was set back: the period does not last longer for it
            self.taken = replace(self.taken, begun_at=now)

    def _is_durable(self, wanted: Taken) -> bool:
        """Whether the file says at least as much; it is written, ahead, where it does not."""
        durable = self._durable
        if self._data is None or (wanted.instances <= durable.instances and wanted.bytes <= durable.bytes):
            return True
        ahead = Taken(
            wanted.begun_at,
            min(self.instances, wanted.instances + self.instances // _STEP),
            min(self.bytes, wanted.bytes + self.bytes // _STEP),
        )
        return self._write(self._data, ahead)

    def _write(self, data: Path, taken: Taken) -> bool:
        try:
            write_taken(data, taken)
        except OSError as error:
            if not self._failing:
                logger.error(  # noqa: TRY400 - it says all
                    "what unknown sources send cannot be counted, and is refused", errno=error.errno
                )
            self._failing = True
            return False
        self._failing = False
        self._durable = taken
        return True


class UnknownUpload(Upload):
    """An instance of an unknown source, each byte of it taken from the quota."""

    def __init__(
        self,
        log: RecordLog,
        chunks: ChunkPool | Share,
        upload_id: UploadId,
        instance: Instance,
        resume: Callable[[], None],
        *,
        quota: UnknownQuota,
        maximum: int,
    ) -> None:
        super().__init__(log, chunks, upload_id, instance, resume, maximum=maximum)
        self._quota = quota
        self._period = quota.period
        self._counted = 0
        self._may_be_given_back = True

    def write(self, data: memoryview) -> int:
        """See `Upload`."""
        taken = super().write(data)
        self._count()
        return taken

    def write_run(self, rows: Rows) -> int:
        """See `Upload`."""
        taken = super().write_run(rows)
        self._count()
        return taken

    def _append(self, kind: Kind, index: int, chunk: memoryview | None, payload: memoryview) -> None:
        if kind is not Kind.PART:  # from here on it may be received, whatever becomes of its answer
            self._may_be_given_back = False
        super()._append(kind, index, chunk, payload)

    def _count(self) -> None:
        more = self.size - self._counted
        if self._failure is not None or not more:
            return
        if self._quota.take(more):
            self._counted += more
        else:
            self._fail(_used_up())

    def _fail(self, failure: Exception) -> None:
        if self._may_be_given_back:
            self._may_be_given_back = False
            self._quota.give_back(self._counted, self._period)
        super()._fail(failure)


def _used_up() -> QuotaUsedUp:
    return QuotaUsedUp(OUT_OF_RESOURCES, "quota of unknown sources is used up")
