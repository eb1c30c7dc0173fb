"""`Progress` of a partition on Kafka: done uploads by position, so that the account fits beside a committed offset.

Each upload that waits, as for a dead store, splits the ranges of those done above the mark. Where they leave no more
room, what is announced is not yet counted: a commit says less than is known then, and who continues from it places
those uploads again, finds them in their places, and counts them. So a commit is always possible, the uploads that
wait are not limited by its size, and each is still counted once.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from ingest.contract.checkpoint import Checkpoint
from ingest.contract.identifiers import UploadId
from workers.log.checkpoint import Announced, Progress
from workers.log.commit_metadata import LIMIT, OffsetCheckpoint, Range, encode_metadata, is_within
from workers.log.upload import is_unnamed

if TYPE_CHECKING:
    from ingest.contract.records import Outcome

UNDONE_AT_MOST: Final = 16_384  # uploads completed and not counted, a kilobyte of memory each
# Bytes of a commit that ranges may fill; the rest is for reasons, attempts and what holds the mark.
ROOM: Final = LIMIT * 3 // 4
_RANGE: Final = 16  # bytes: two numbers of at most six bytes in Base64
_REMAINS: Final = 48  # bytes: an upload id and a position, of what no record of its own ends
FRUITLESS: Final = 3  # owners in a row that were gone before anything moved; the next one is careful

# What an owner can have had in hand or done without a commit when it ended.
CAREFUL_UPLOADS: Final = 1024


class OffsetProgress(Progress):
    """One partition's account between two commits; see `Progress`."""

    def __init__(self, checkpoint: OffsetCheckpoint, end: int) -> None:
        """Continue from ``checkpoint``, in whose ``starts`` this start is counted already.

        ``end``: where the log ended then; what ended the owners before was below it.
        """
        super().__init__(checkpoint)
        self._end = end
        self._counted = 0  # uploads, in this life
        self._first = checkpoint
        self._ranges = checkpoint.done_ranges
        # Upload id -> position of its own last record, of those completed that are in no range yet.
        self._seals: dict[bytes, int] = {}
        self._announced: dict[UploadId, Outcome] = {}  # and not yet counted
        self._marked: set[UploadId] = set()
        self._too_long = False
        self.lost = checkpoint.lost

    @property
    def is_careful(self) -> bool:
        """Whether an upload of this partition may be what ends every process: one at a time, each marked.

        Not only until the mark moves on: what was done and not yet committed when they ended lies before it, too.
        """
        return (
            self._first.starts > FRUITLESS
            and self._counted < CAREFUL_UPLOADS
            and self.low_water_mark < self._end
        )

    @property
    def is_full(self) -> bool:
        """See `Progress`."""
        return self._too_long or len(self._completed) >= UNDONE_AT_MOST

    def counted_at(self, position: int) -> bool:
        """See `Progress`."""
        return is_within(position, self._ranges)

    def complete(self, upload_id: UploadId, position: int, sealed_at: int | None = None) -> None:
        """See `Progress`."""
        super().complete(upload_id, position, sealed_at)
        if sealed_at is not None:
            self._seals[upload_id] = sealed_at

    def count(self, announced: Iterable[Announced], outcomes_end: int) -> None:
        """See `Progress`."""
        for upload_id, outcome in announced:
            self._settled.pop(upload_id, None)
            self._marked.discard(upload_id)
            self._announced[upload_id] = outcome
        self._outcomes_end = outcomes_end
        self._count_what_fits()

    def _count_what_fits(self) -> None:
        """Count, from the lowest position on, as many of those announced as a commit has room for.

        What holds the mark always counts, as that makes room, and so do all together where they close the gaps between
        others: else an upload without an end could keep from being read what would end it. So all is counted in the end,
        whatever the order.
        """
        while self._announced:
            room = ROOM - len(encode_metadata(self.checkpoint()))
            fitting = []
            for upload_id in sorted(self._announced, key=self._position):
                room -= self._size_of(upload_id)
                if room < 0:
                    break
                fitting.append(upload_id)
            if not fitting:
                holds_the_mark = min(self._open, key=self._open.__getitem__)
                if holds_the_mark in self._announced:
                    fitting = [holds_the_mark]
                elif self._has_room_for_all():
                    fitting = list(self._announced)
                else:
                    return
            super().count(
                [Announced(found, self._announced.pop(found)) for found in fitting], self._outcomes_end
            )
            self._counted += len(fitting)

    def _has_room_for_all(self) -> bool:
        """Whether a commit has room when all that are announced are counted."""
        now = self.checkpoint()
        counted = msgspec.structs.replace(
            now, done_ranges=tuple(self._merged(now.low_water_mark, self._announced))
        )
        remains = sum(map(self._is_kept_by_id, self._announced))
        return len(encode_metadata(counted)) + _REMAINS * remains <= ROOM

    def _size_of(self, upload_id: UploadId) -> int:
        """What a commit grows by at most when it is counted."""
        by_range = _RANGE if upload_id in self._seals else 0
        return by_range + (_REMAINS if self._is_kept_by_id(upload_id) else 0)

    def _is_kept_by_id(self, upload_id: bytes) -> bool:
        """Whether its position does not say all: it has none, or is that of damage, which may have sealed another upload."""
        return upload_id not in self._seals or is_unnamed(upload_id)

    def _position(self, upload_id: UploadId) -> int:
        return self._seals.get(upload_id, self._open[upload_id])

    def passed(self, fence_id: UploadId, end_position: int) -> None:  # noqa: ARG002 - as in the base
        """See `Progress`; nothing is noted of it, as a commit has no room: above a mark, a restart asks again."""
        self._open.pop(fence_id, None)

    def mark(self, upload_id: UploadId) -> None:
        """The next commit counts an attempt for this upload, in case it ends the process."""
        self._marked.add(upload_id)

    def unmark(self, upload_id: UploadId) -> None:
        """It did not."""
        self._marked.discard(upload_id)

    def checkpoint(self) -> OffsetCheckpoint:
        """See `Progress`."""
        base = super().checkpoint()
        mark = base.low_water_mark
        moved = mark > self._first.low_water_mark
        self._ranges = tuple(self._merged(mark, base.done))
        # From now on the ranges know them, and memory does not grow while one long upload holds the mark.
        self._done = {
            upload_id: end for upload_id, end in base.done.items() if self._is_kept_by_id(upload_id)
        }
        self._seals = {upload_id: at for upload_id, at in self._seals.items() if upload_id in self._completed}
        attempts = dict(base.attempts)
        for upload_id in self._marked:
            attempts[bytes(upload_id)] = attempts.get(bytes(upload_id), 0) + 1
        return OffsetCheckpoint(
            partition=base.partition,
            low_water_mark=mark,
            done=dict(self._done),
            counters=base.counters,
            attempts=attempts,
            reasons=base.reasons,
            done_ranges=self._ranges,
            starts=0 if moved and not self.is_careful else self._first.starts,
            lost=self.lost,
            marked=frozenset(self._marked),
        )

    def changed(self) -> Checkpoint | None:
        """See `Progress`; one too long for a commit waits until uploads above the mark are done."""
        self._count_what_fits()  # the mark may have moved, as when an orphan has expired
        checkpoint = super().changed()
        if isinstance(checkpoint, OffsetCheckpoint):
            self._too_long = len(encode_metadata(checkpoint)) > LIMIT
            if self._too_long:
                return None
        return checkpoint

    def _merged(self, mark: int, counted: Container[bytes]) -> Iterator[Range]:
        """The positions done, from the mark on, in as few ranges as there can be; ``counted``: uploads, beside the ranges before.

        Two become one where everything between them was read and no upload that is not done ends there: what
        else is there, a part or an abort, ends no upload.
        """
        done = [Range(at, at) for upload_id, at in self._seals.items() if upload_id in counted]
        undone = sorted(
            at
            for upload_id, at in self._seals.items()
            if upload_id in self._completed and upload_id not in counted
        )
        current: Range | None = None
        for found in sorted([*done, *self._ranges]):
            if found.last < mark:
                continue
            part = Range(max(found.first, mark), found.last)
            if current is None:
                current = part
            elif part.first <= current.last + 1 or (
                part.first <= self.read_to
                and bisect_right(undone, part.first) == bisect_right(undone, current.last)
            ):
                current = Range(current.first, max(current.last, part.last))
            else:
                yield current
                current = part
        if current is not None:
            yield current


def started(checkpoint: OffsetCheckpoint) -> OffsetCheckpoint:
    """What a new owner commits before it works."""
    return msgspec.structs.replace(checkpoint, starts=checkpoint.starts + 1)


def given_back(checkpoint: OffsetCheckpoint) -> OffsetCheckpoint:
    """What an owner commits that is asked to leave, and not by an error: its start, and what it was at, has cost nobody anything."""
    attempts = Counter(checkpoint.attempts) - Counter(checkpoint.marked)
    starts = max(checkpoint.starts - 1, 0)
    return msgspec.structs.replace(checkpoint, starts=starts, attempts=attempts, marked=frozenset())


class CommittedMarks:
    """`Marks` of a partition whose only durable place is its commit: made while it is careful, as they cost one each."""

    left: frozenset[UploadId] = frozenset()

    def __init__(self, progress: OffsetProgress) -> None:
        self._progress = progress

    def clear_left(self) -> None:
        """Nothing is left: attempts are in the commit."""

    def is_suspect(self, upload_id: UploadId) -> bool:  # noqa: ARG002 - any may be the one
        """See `Marks`."""
        return self._progress.is_careful

    def mark(self, upload_id: UploadId) -> bool:
        """See `Marks`."""
        if self._progress.is_careful:
            self._progress.mark(upload_id)
            return True
        return False

    def clear(self, upload_id: UploadId) -> None:
        """See `Marks`."""
        self._progress.unmark(upload_id)
