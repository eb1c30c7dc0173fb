"""A partition of the log while a worker owns it."""

from dataclasses import dataclass

from workers.log.checkpoint import Announcer, Progress
from workers.log.in_hand import Marks
from workers.log.upload import Upload


@dataclass(frozen=True, eq=False)
class OwnedPartition:
    """What a worker has of one partition, from `Worker.add` until `Worker.drop`."""

    progress: Progress
    in_hand: Marks
    outcomes: Announcer

    @property
    def number(self) -> int:
        """The partition's number in the log."""
        return self.progress.partition

    def tries(self, upload: Upload) -> "CountedTries":
        """Those of one of its uploads."""
        return CountedTries(upload, self.progress)


@dataclass(frozen=True)
class CountedTries:
    """See `Tries`; kept in the partition's checkpoint."""

    upload: Upload
    progress: Progress

    @property
    def count(self) -> int:
        """See `Tries.count`."""
        return self.progress.attempts(self.upload.upload_id)

    def failed(self) -> None:
        """See `Tries.failed`."""
        self.progress.attempt([self.upload.upload_id])
