"""The uploads that a worker has read completely and not settled yet: in work, or waiting for the world.

What waits for the world, as for a store that is away, is put by: out of memory and out of the others' way. Where the
disk has no room for that it is kept in memory, and nothing more should be read.
"""

import asyncio
from typing import Final, NamedTuple

from workers.log.upload import Upload
from workers.partition import OwnedPartition

UPLOADS_AHEAD: Final = 256  # completed uploads in memory, whatever their size

Placing = asyncio.Task[bool]  # brings one upload to its place


class Facts(NamedTuple):
    """What is known of an upload without holding it."""

    owner: OwnedPartition
    sop_instance_uid: str
    received_at: int  # nanoseconds since 1970-01-01 UTC, receiver's clock; 0 where that is not known
    size: int  # bytes


class Unsettled:
    """By their tasks; ``left`` is set whenever one has gone, or is out of the way."""

    def __init__(self, left: asyncio.Event) -> None:
        self._left = left
        self._facts: dict[Placing, Facts] = {}
        self._uploads: dict[Placing, Upload] = {}  # those that are not put by
        self._held = 0  # bytes of memory, of those
        self._files = 0  # those in scratch files
        self._put_by: set[Placing] = set()
        self._kept: set[Placing] = set()

    def begin(self, task: Placing, upload: Upload, owner: OwnedPartition) -> None:
        """``task`` brings it to its place; it is settled when that is done."""
        instance = upload.instance
        self._facts[task] = Facts(owner, instance.sop_instance_uid, instance.received_at, instance.size)
        self._uploads[task] = upload
        self._held += upload.held
        self._files += upload.file is not None
        task.add_done_callback(self._gone)

    def put_by(self, task: Placing) -> None:
        """Its upload waits, and is not in memory any more."""
        self._let_go(task)
        self._kept.discard(task)
        self._put_by.add(task)
        self._left.set()

    def keep(self, task: Placing) -> None:
        """Its upload waits in memory."""
        self._kept.add(task)

    def facts(self) -> list[Facts]:
        """Of all of them; any thread may ask."""
        return list(self._facts.values())

    def of(self, owner: OwnedPartition) -> dict[Placing, str]:
        """Those of one partition, by their SOP Instance UIDs."""
        return {task: facts.sop_instance_uid for task, facts in self._facts.items() if facts.owner is owner}

    def tasks(self) -> set[Placing]:
        """All of them."""
        return set(self._facts)

    @property
    def kept(self) -> int:
        """How many wait in memory; any thread may ask."""
        return len(self._kept)

    @property
    def waiting(self) -> int:
        """How many wait for the world; any thread may ask."""
        return len(self._put_by) + len(self._kept)

    @property
    def in_work(self) -> int:
        """How many do not wait."""
        return len(self._facts) - self.waiting

    def are_full(self, *, memory: int, waiting: int, files: int) -> bool:
        """Whether no more should be read; limits: bytes in memory, uploads put by, uploads in scratch files in work."""
        return (
            len(self._uploads) >= UPLOADS_AHEAD
            or self._held >= memory
            or self._files >= files
            or len(self._put_by) >= waiting
            or bool(self._kept)
        )

    def _let_go(self, task: Placing) -> None:
        upload = self._uploads.pop(task, None)
        if upload is not None:
            self._held -= upload.held
            self._files -= upload.file is not None

    def _gone(self, task: Placing) -> None:
        del self._facts[task]
        self._let_go(task)
        self._put_by.discard(task)
        self._kept.discard(task)
        self._left.set()
