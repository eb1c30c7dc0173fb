"""Announces each upload's place in its partition's outcome log, ``DIR/outcomes/<partition>/``.

The log has the spool's format, one partition of its own, and one writer: the worker that holds the
partition. Its records are OUTCOME records; what lies below a checkpoint's ``outcomes_end`` is counted there.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from ingest.contract.records import CorruptRecord, Kind, decode, encode_header, outcome_of
from ingest.contract.spool import (
    Appended,
    Damage,
    Frame,
    FrameWalk,
    GroupWalk,
    Layout,
    OsDisk,
    PoolLimits,
    SegmentFiles,
    SpoolFull,
    SpoolLocked,
    WriteFailed,
    make_log,
    open_log,
)
from workers.errors import Unavailable
from workers.log.checkpoint import Announced
from workers.threads import to_end

_SEGMENT: Final = 2 * 1024 * 1024  # bytes: hours of outcomes, and little for a partition that is seldom used
_RETAINED: Final = 4 * 1024 * 1024  # bytes of counted outcomes, at least, that are kept for the ledger
_MAXIMUM: Final = 64 * 1024 * 1024  # bytes; never reached while checkpoints can be written
_RETRY_AFTER: Final = 1.0  # seconds
_ONLY: Final = 0  # the number of the log's one partition


class OutcomeProducer:
    """The outcome log of one partition, open for writing; see `Announcer`."""

    def __init__(self, folder: Path, counted: int, retained: int = _RETAINED) -> None:
        """Recover the log in ``folder``, which is made if there is none.

        ``counted``: the position up to which a checkpoint counts; see `uncounted` for what is beyond.
        ``retained``: bytes of what is counted that are kept all the same, see ``ledger.kept_outcomes``.

        Raises:
            SpoolLocked: another process writes to it.
            SpoolMismatch: another release made it.
            OSError: the disk's.
        """
        self._disk = OsDisk()
        self._layout = Layout(folder)
        self._mark = counted
        self._appended: list[Announced] = []  # written, not yet synced
        with ExitStack() as resources:
            self._disk.make_folder(folder)
            lock = self._disk.lock(self._layout.lock)
            if lock is None:
                raise SpoolLocked(f"another worker writes to {folder}")
            resources.callback(self._disk.close, lock)
            # Nothing in reserve: the space that the spool leaves free is meant for this.
            limits = PoolLimits(_SEGMENT, _MAXIMUM, 0)
            self._meta = make_log(self._disk, self._layout, 1, limits)
            self._log, _, self.recovered = open_log(
                self._disk,
                self._layout,
                self._meta,
                limits,
                low_water_mark=lambda: self._mark - retained,
                committed=counted,
            )
            resources.callback(self._log.close)
            self._resources = resources.pop_all()

    def uncounted(self) -> tuple[list[Announced], int]:
        """What was announced and not counted before the last process ended, and the log's end.

        Raises:
            OSError: the disk's.
        """
        files = SegmentFiles(self._disk, self._layout, self._meta)
        try:
            end = self._log.durable_end
            return list(_outcomes(files, self._mark, end)), end
        finally:
            files.close()

    def counted(self, position: int) -> None:
        """A durable checkpoint counts everything below ``position``."""
        self._mark = position

    async def announce(self, outcomes: Sequence[Announced]) -> int:
        """See `Announcer`; what a failed call could write already is not written again by the next.

        Raises:
            Unavailable: there is no room now.
            SyncFailed: the process must end and recover.
        """
        try:
            return await to_end(self._announce, outcomes)
        except (SpoolFull, WriteFailed, OSError) as error:
            raise Unavailable(f"outcome log: {error}", _RETRY_AFTER) from error

    def close(self) -> None:
        """Let go of the log."""
        self._resources.close()

    def _announce(self, outcomes: Sequence[Announced]) -> int:
        waiting = [announced for announced in outcomes if announced not in self._appended]
        while waiting:
            count = self._log.append([_record(announced) for announced in waiting])
            self._appended += waiting[:count]
            del waiting[:count]
        end = self._log.sync()
        self._appended.clear()
        return end


def _record(announced: Announced) -> Appended:
    return Appended(_ONLY, encode_header(Kind.OUTCOME, announced.upload_id, 0, announced.outcome), ())


def _outcomes(files: SegmentFiles, start: int, end: int) -> Iterator[Announced]:
    """All outcomes from ``start`` to ``end``; what is damaged is left out and will be announced again."""
    walk = GroupWalk(files, start, end)
    while (group := walk.next(end)) is not None:
        for frame in FrameWalk(files, group):
            if isinstance(frame, Damage) or frame.position < start:  # a walk may begin earlier in the segment
                continue
            outcome = _outcome(files, frame)
            if outcome is not None:
                yield outcome


def _outcome(files: SegmentFiles, frame: Frame) -> Announced | None:
    try:
        record = decode(files.read(frame.record_position, frame.size))
        return Announced(record.upload_id, outcome_of(record)) if record.kind is Kind.OUTCOME else None
    except CorruptRecord:
        return None
