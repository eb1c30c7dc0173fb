"""Segments made and used again on a disk that refuses for a moment, as while no descriptors are left."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingest.contract.spool import Layout, OsDisk, PoolLimits, SegmentPool, SpoolFull

SIZE = 4096
MAXIMUM = 3 * SIZE


class Refusing(OsDisk):
    """A call of the name that is set fails each time, ``after`` so many that do not."""

    refused = ""
    after = 0

    def sync_folder(self, path: Path) -> None:
        self._refuse("sync_folder")
        super().sync_folder(path)

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        self._refuse("open")
        return super().open(path, write=write, create=create)

    def unlink(self, path: Path) -> None:
        self._refuse("unlink")
        super().unlink(path)

    @contextmanager
    def refusing(self, name: str, after: int = 0) -> Iterator[None]:
        self.refused, self.after = name, after
        with pytest.raises(OSError, match="Too many open files"):
            yield
        self.refused = ""

    def _refuse(self, name: str) -> None:
        if name == self.refused:
            self.after -= 1
            if self.after < 0:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class Bench:
    """A pool with a mark that is set."""

    def __init__(self, folder: Path) -> None:
        self.disk = Refusing()
        self.layout = Layout(folder)
        self.disk.make_folder(self.layout.segments)
        self.mark = 0
        self.pool = SegmentPool(self.disk, self.layout, PoolLimits(SIZE, MAXIMUM, 0), lambda: self.mark, 0)

    def take(self, number: int) -> None:
        self.disk.close(self.pool.take(number))

    @property
    def numbers(self) -> list[int]:
        return sorted(self.layout.segment_numbers(self.disk))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("refused", ["sync_folder", "open"])
def test_a_segment_that_is_used_again_is_not_looked_for_under_its_old_number(
    bench: Bench, refused: str
) -> None:
    """Its file has the new one already, and the log would be full for as long as the process lives."""
    for number in range(3):
        bench.take(number)
    bench.mark = 2 * SIZE
    with bench.disk.refusing(refused):
        bench.pool.take(3)
    bench.take(3)
    assert 3 in bench.numbers
    assert bench.pool.size <= MAXIMUM


def test_a_segment_that_could_not_be_opened_is_there_all_the_same(bench: Bench) -> None:
    """No other is needed in its place, which a full log does not have."""
    bench.pool.prepare(MAXIMUM)
    for number in range(2):
        bench.take(number)
    with bench.disk.refusing("open"):
        bench.pool.take(2)
    bench.take(2)
    assert bench.numbers == [0, 1, 2]
    with pytest.raises(SpoolFull):
        bench.pool.take(3)


def test_a_shrink_that_was_broken_off_goes_on(bench: Bench) -> None:
    """What was removed is not removed again."""
    bench.pool.prepare(MAXIMUM)
    with bench.disk.refusing("unlink", after=1):
        bench.pool.shrink()
    bench.pool.shrink()
    assert bench.pool.size == len(bench.numbers) * SIZE == SIZE
