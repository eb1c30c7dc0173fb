"""The thread that has the next segment ready: one number, one file."""

import threading
from typing import TYPE_CHECKING, cast

from ingest.log.segment_supply import SegmentSupply

if TYPE_CHECKING:
    from ingest.contract.spool import SegmentPool


class Pool:
    """Gives every segment, and remembers which."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def lacks_space(self) -> None:
        """There is space."""

    def take(self, number: int) -> int:
        self.taken.append(number)
        return number


class Meeting(SegmentSupply):
    """Its thread looks in the very moment in which the writer has its segment and has not counted it."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "_number" and hasattr(self, "_thread"):
            self.looking = threading.Thread(target=self._step)
            self.looking.start()
            self.looking.join(0.5)
        super().__setattr__(name, value)


def test_a_segment_in_use_is_never_taken_again() -> None:
    """Its file would be replaced by another, and all that is written to it from then on lost."""
    pool = Pool()
    supply = Meeting(cast("SegmentPool", pool), 5)
    supply._step()
    assert supply.take(5, 0.0) == 5
    supply.looking.join()
    assert pool.taken == [5, 6]
