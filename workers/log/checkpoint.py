"""How far a partition has come: the low-water mark, and the steps that make an instance's place count.

An upload is open from its first record until it is counted, a fence until it is proved. The steps of an upload, in
the only safe order:

    1. placed      its object or lane entry is durable            (the pipeline, before `Progress.settle`)
    2. announced   its outcome is durable in the outcome log      (`commit`)
    3. counted     the checkpoint that holds it is durable        (`commit`)

A crash after 1 replays the upload, which finds its own object. After 2, the next start counts what the
outcome log holds beyond the checkpoint. So each upload has one outcome and is counted once.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from ingest.contract.checkpoint import Checkpoint, write_checkpoints
from ingest.contract.failpoints import Failpoint, reach
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Outcome, Place
from workers.errors import Unavailable
from workers.threads import to_end

DONE_AT_MOST: Final = 50_000  # uploads done above a low-water mark that one upload holds; a megabyte or two
_RETRY_AFTER: Final = 1.0  # seconds, where the system only says that it cannot now


class Announced(NamedTuple):
    """An upload's outcome."""

    upload_id: UploadId
    outcome: Outcome


class Announcer(Protocol):
    """The outcome log of one partition."""

    async def announce(self, outcomes: Sequence[Announced]) -> int:
        """Make outcomes durable; return the position behind the last one in the outcome log."""
        ...

    def counted(self, position: int) -> None:
        """A durable checkpoint counts everything below ``position``."""
        ...


class CheckpointWriter(Protocol):
    """Where checkpoints are kept."""

    async def write(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Make these durable in the place of those before.

        Raises:
            Unavailable: not now; each partition has its checkpoint before or the new one.
        """
        ...


class Progress:
    """One partition's account between two checkpoints. Pure; positions only grow."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Continue from ``checkpoint``."""
        self.partition = checkpoint.partition
        self._read_to = checkpoint.low_water_mark
        self._open: dict[UploadId, int] = {}  # first position
        self._unsealed: set[UploadId] = set()  # of the open ones: uploads whose end was not read
        self._completed: set[UploadId] = set()  # of the open ones
        self._settled: dict[UploadId, Outcome] = {}
        self._done: dict[bytes, int] = dict(checkpoint.done)
        self._counters = Counter(checkpoint.counters)
        self._reasons = Counter(checkpoint.reasons)
        self._attempts = Counter(checkpoint.attempts)
        self._outcomes_end = checkpoint.outcomes_end
        self._written = checkpoint
        self._abandoned = False

    @property
    def read_to(self) -> int:
        """The position behind the last record seen."""
        return self._read_to

    @property
    def low_water_mark(self) -> int:
        """The first record of the oldest open upload; where reading has come to when none is open."""
        return min(self._open.values(), default=self._read_to)

    @property
    def is_full(self) -> bool:
        """Whether the checkpoint has no room for more uploads done above the low-water mark.

        Never while an upload whose end was not read holds that: only by reading on is it found. The log's size is the
        limit then.
        """
        if len(self._done) < DONE_AT_MOST or not self._open:
            return False
        return min(self._open, key=self._open.__getitem__) not in self._unsealed

    def knows(self, upload_id: UploadId) -> bool:
        """Whether all of this upload was read already: further records of it mean nothing."""
        return upload_id in self._done or upload_id in self._completed

    def begin(self, upload_id: UploadId, position: int) -> None:
        """The first record of an upload was read at ``position``."""
        assert position >= self._read_to
        self._open.setdefault(upload_id, position)
        self._unsealed.add(upload_id)

    def hold(self, fence_id: UploadId, position: int) -> None:
        """A fence was read at ``position``."""
        assert position >= self._read_to
        self._open.setdefault(fence_id, position)

    def counted_at(self, position: int) -> bool:  # noqa: ARG002 - of a log whose checkpoint has no upload ids
        """Whether the upload that the record at ``position`` ends was counted before this process read it."""
        return False

    def complete(self, upload_id: UploadId, position: int, sealed_at: int | None = None) -> None:  # noqa: ARG002 - as above
        """The last record of the upload that began at ``position`` was read: it must reach a place.

        ``sealed_at``: the position of the record that is this upload's end, if one is.
        """
        self._open.setdefault(upload_id, position)
        self._unsealed.discard(upload_id)
        self._completed.add(upload_id)

    def drop(self, upload_id: UploadId) -> None:
        """An upload turned out never to become an instance."""
        self._open.pop(upload_id, None)
        self._unsealed.discard(upload_id)
        self._attempts.pop(upload_id, None)

    def waits_at(self, fence_id: UploadId) -> bool:
        """Whether a fence that was read is not proved yet."""
        return fence_id in self._open

    def passed(self, fence_id: UploadId, end_position: int) -> None:
        """What a fence asked is proved and published: it holds nothing back any more, and is not asked again."""
        self._open.pop(fence_id, None)
        self._done[bytes(fence_id)] = end_position

    def advance(self, position: int) -> None:
        """Everything below ``position`` was read and, where it begins an upload, begun."""
        assert position >= self._read_to
        self._read_to = position

    def read_up_to(self, position: int) -> None:
        """Nothing more of this partition is below ``position``; one that is passed already changes nothing."""
        self._read_to = max(self._read_to, position)

    def settle(self, upload_id: UploadId, outcome: Outcome) -> None:
        """An upload is durable at its place (step 1); it is counted by the next `commit`."""
        assert upload_id in self._completed
        self._settled[upload_id] = outcome

    def attempts(self, upload_id: UploadId) -> int:
        """Tries of this upload that took the worker or the codec with them."""
        return self._attempts[upload_id]

    def attempt(self, upload_ids: Iterable[UploadId]) -> None:
        """Count one such try for each."""
        self._attempts.update(upload_id for upload_id in upload_ids if upload_id not in self._done)

    def settled(self) -> list[Announced]:
        """What waits to be announced and counted, in the order it was settled."""
        return [Announced(*item) for item in self._settled.items()]

    def count(self, announced: Iterable[Announced], outcomes_end: int) -> None:
        """These are in the outcome log (step 2), which is counted up to ``outcomes_end``."""
        for upload_id, outcome in announced:
            self._settled.pop(upload_id, None)
            self._open.pop(upload_id, None)
            self._completed.discard(upload_id)
            self._attempts.pop(upload_id, None)
            self._done[bytes(upload_id)] = outcome.end_position
            self._counters[outcome.place] += 1
            if outcome.reason:
                self._reasons[f"{outcome.place}/{outcome.reason}"] += 1
        self._outcomes_end = outcomes_end

    def checkpoint(self) -> Checkpoint:
        """The account as it stands, without what is settled but not yet announced."""
        mark = self.low_water_mark
        self._done = {upload_id: end for upload_id, end in self._done.items() if end > mark}
        return Checkpoint(
            partition=self.partition,
            low_water_mark=mark,
            done=dict(self._done),
            counters={place: count for place in Place if (count := self._counters[place])},
            attempts={bytes(upload_id): tries for upload_id, tries in self._attempts.items()},
            outcomes_end=self._outcomes_end,
            reasons=dict(self._reasons),
        )

    def abandon(self) -> None:
        """The partition is another's now: whatever happens here, there is nothing more to write."""
        self._abandoned = True

    def changed(self) -> Checkpoint | None:
        """The checkpoint to write, None when the last one written says the same."""
        if self._abandoned:
            return None
        checkpoint = self.checkpoint()
        return None if checkpoint == self._written else checkpoint

    def written(self, checkpoint: Checkpoint) -> None:
        """``checkpoint`` is durable (step 3)."""
        assert checkpoint.low_water_mark >= self._written.low_water_mark
        self._written = checkpoint


async def commit(
    accounts: Sequence[tuple[Progress, Announcer]], write: Callable[[Sequence[Checkpoint]], Awaitable[None]]
) -> None:
    """Announce and count what is settled, then replace the checkpoints (steps 2 and 3).

    ``write`` makes checkpoints durable. One call at a time. A partition that cannot be announced does not
    keep the others from it. After a failure nothing is lost: the next call writes what this one did not.

    Raises:
        Unavailable: an outcome log or ``write`` has no room now.
        SpoolError: an outcome log must be recovered by a new process.
    """
    failures = await asyncio.gather(*(_announce(*account) for account in accounts), return_exceptions=True)
    changed = [(account, checkpoint) for account in accounts if (checkpoint := account[0].changed())]
    if changed:
        await write([checkpoint for _, checkpoint in changed])
        reach(Failpoint.AFTER_COMMIT)
        for (progress, announcer), checkpoint in changed:
            progress.written(checkpoint)
            announcer.counted(checkpoint.outcomes_end)
    for failure in failures:
        if failure is not None:
            raise failure


async def _announce(progress: Progress, announcer: Announcer) -> None:
    settled = progress.settled()
    if settled:
        reach(Failpoint.BEFORE_OUTCOME)
        end = await announcer.announce(settled)
        reach(Failpoint.AFTER_OUTCOME)
        progress.count(settled, end)


class CheckpointFolder:
    """Checkpoints as files in a folder; see `CheckpointWriter`."""

    def __init__(self, folder: Path) -> None:
        """``folder``: an existing one."""
        self._folder = folder

    async def write(self, checkpoints: Sequence[Checkpoint]) -> None:
        """See `CheckpointWriter`; the event loop goes on meanwhile."""
        try:
            await to_end(write_checkpoints, self._folder, checkpoints)
        except OSError as error:
            raise Unavailable(f"checkpoint: {error.strerror}", _RETRY_AFTER) from error
