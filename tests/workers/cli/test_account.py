"""Where every received instance is: exact at any moment, whatever runs meanwhile."""

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.checkpoint import Checkpoint, read_checkpoints, write_checkpoints
from ingest.contract.records import Place
from workers.cli.account import Move, balance, read_account
from workers.cli.backlog import Completed

PARTITIONS = 3
SIZE = 10  # positions that an upload takes in this log


@dataclass
class System:
    """Receiver, workers and an administrator in one; each step is one that the real ones take atomically."""

    chance: random.Random
    end: int = 0
    uploads: list[Completed] = field(default_factory=list)
    placed: dict[bytes, Place] = field(default_factory=dict)
    settled: dict[int, dict[bytes, Place]] = field(default_factory=lambda: {n: {} for n in range(PARTITIONS)})
    moves: list[Move] = field(default_factory=list)

    def receive(self) -> None:
        self.end += SIZE
        upload_id = len(self.uploads).to_bytes(16, "big")
        self.uploads.append(Completed(self.chance.randrange(PARTITIONS), upload_id, self.end, 100, self.end))

    def place(self) -> None:
        waiting = [upload for upload in self.uploads if upload.upload_id not in self.placed]
        if waiting:
            self.placed[self.chance.choice(waiting).upload_id] = self.chance.choice(list(Place))

    def move(self) -> None:
        """An administrator sees an entry as soon as it is placed, before any checkpoint tells."""
        moved = {move.upload_id for move in self.moves}
        entries = [
            one for one, place in self.placed.items() if place is Place.QUARANTINED and one not in moved
        ]
        if entries:
            self.moves.append(Move(self.chance.choice(entries), Place.QUARANTINED, Place.DISCARDED))

    def checkpoint(self) -> None:
        partition = self.chance.randrange(PARTITIONS)
        for upload in self.uploads:
            if upload.partition == partition and upload.upload_id in self.placed:
                self.settled[partition][upload.upload_id] = self.placed[upload.upload_id]

    def checkpoints(self) -> dict[int, Checkpoint]:
        return {number: self._checkpoint(number) for number in range(PARTITIONS)}

    def _checkpoint(self, partition: int) -> Checkpoint:
        settled = self.settled[partition]
        own = [upload for upload in self.uploads if upload.partition == partition]
        open_ones = [upload.end_position - SIZE for upload in own if upload.upload_id not in settled]
        mark = min(open_ones, default=self.end)
        done = {
            one.upload_id: one.end_position
            for one in own
            if one.upload_id in settled and one.end_position > mark
        }
        return Checkpoint(
            partition=partition, low_water_mark=mark, done=done, counters=Counter(settled.values())
        )

    def scan(self, marks: dict[int, int], limit: int) -> list[Completed]:
        """What is between the marks and the limit, without the segments that are recycled by now."""
        recycled = min(checkpoint.low_water_mark for checkpoint in self.checkpoints().values())
        return [
            upload
            for upload in self.uploads
            if max(recycled, marks[upload.partition]) <= upload.end_position - SIZE
            and upload.end_position <= limit
        ]

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.chance.choice((self.receive, self.receive, self.place, self.move, self.checkpoint))()


@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 30), min_size=5, max_size=5))
def test_account_is_exact_whatever_happens_between_the_reads(chance: random.Random, steps: list[int]) -> None:
    """Each upload complete at the durable end is counted once; none twice; no place is below zero."""
    system = System(chance)
    system.steps(steps[0] * 3)
    moves = list(system.moves)
    system.steps(steps[1])
    marks = {number: checkpoint.low_water_mark for number, checkpoint in system.checkpoints().items()}
    system.steps(steps[2])
    limit = system.end
    at_limit = len(system.uploads)
    system.steps(steps[3])
    completed = system.scan(marks, limit)
    system.steps(steps[4])
    account = balance(completed, system.checkpoints(), moves)

    settled = {upload_id for own in system.settled.values() for upload_id in own}
    expected = {upload.upload_id for upload in system.uploads[:at_limit]} | settled
    assert account.received == len(expected)
    assert min(account.places.values()) >= 0
    assert account.backlog == len(expected - settled)


def test_nothing_is_there(tmp_path: Path) -> None:
    """A folder that nobody has used counts nothing, and is not made."""
    account = read_account(tmp_path / "none", [])
    assert (account.received, account.backlog, account.oldest) == (0, 0, None)
    assert not (tmp_path / "none").exists()


def test_checkpoints_count_without_a_spool(tmp_path: Path) -> None:
    """Counters are sums of outcomes: they stay when the spool is gone."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for partition in (0, 10):
        counters = {Place.STORED: 2, Place.CONFLICT: 1}
        write_checkpoints(folder, [Checkpoint(partition=partition, counters=counters)])
    (folder / "0.new").write_bytes(b"a checkpoint that a crash left half written")
    assert sorted(read_checkpoints(tmp_path)) == [0, 10]
    account = read_account(tmp_path, [])
    assert account.received == 6
    assert account.places[Place.STORED] == 4


@pytest.mark.parametrize("waits", [True, False])
def test_move_of_an_upload_that_is_not_counted_yet_waits(waits: bool) -> None:
    """Discarded before the checkpoint counted it as quarantined: it is backlog, and nothing else."""
    upload = Completed(0, b"u" * 16, 10, 100, 0)
    checkpoint = Checkpoint(
        partition=0,
        low_water_mark=0 if waits else 10,
        counters={} if waits else {Place.QUARANTINED: 1},
    )
    account = balance([upload], {0: checkpoint}, [Move(upload.upload_id, Place.QUARANTINED, Place.DISCARDED)])
    assert account.backlog == waits
    assert account.places[Place.DISCARDED] == (not waits)
    assert account.places[Place.QUARANTINED] == 0
