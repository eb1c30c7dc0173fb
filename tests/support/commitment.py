"""Storage commitment without wire and store: workers that find what a test says, peers that take reports or do not."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingest.commitment.engine import Engine
from ingest.commitment.transaction import Clock, Transaction
from ingest.contract.commitments import (
    CommitAsked,
    CommitProved,
    Finding,
    Found,
    Reference,
    commitment_of,
    references_of,
)
from ingest.contract.identifiers import TransactionId
from ingest.contract.records import Kind
from ingest.log.commitment_log import Written
from ingest.sender import AssociationFailed, NoAnswer, Peer
from tests.support.memory_log import MemoryLog

CT = "1.2.840.10008.5.1.4.1.1.2"
WALL = 1_700_000_000 * 10**9


@dataclass
class Hand:
    """A clock that a test moves."""

    now: float = 1000.0
    ahead: float = 0.0  # s that the wall clock was set forward

    def __call__(self) -> Clock:
        return Clock(self.now, WALL + int((self.now + self.ahead) * 1e9))


@dataclass
class Running(Hand):
    """A clock that runs, plus what a test adds: where a broker may be slow, what is tried again must become due."""

    begun: float = field(default_factory=time.monotonic)

    def __call__(self) -> Clock:
        now = self.now + time.monotonic() - self.begun
        return Clock(now, WALL + int(now * 1e9))


@dataclass
class Reported:
    """What a peer was sent."""

    peer: Peer | None
    transaction_uid: str
    committed: list[Found]
    failed: list[Found]


@dataclass
class Modality:
    """Takes reports on associations of their own; ``answers`` are the next statuses, None for no association.

    `NoAnswer` is raised.
    """

    answers: list[int | NoAnswer | None] = field(default_factory=list)
    reports: list[Reported] = field(default_factory=list)
    tries: int = 0
    more: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(
        self,
        peer: Peer,
        transaction_uid: str,
        committed: Sequence[Found],
        failed: Sequence[Found],
        retrieve_ae_title: str,
        *,
        propose_role: bool,
        within: float,
    ) -> int:
        self.tries += 1
        answer = self.answers.pop(0) if self.answers else 0
        await asyncio.sleep(0)
        if answer is None:
            self.more.set()
            raise AssociationFailed("refused")
        if isinstance(answer, NoAnswer):
            self.more.set()
            raise answer
        self.reports.append(Reported(peer, transaction_uid, list(committed), list(failed)))
        self.more.set()
        return answer


@dataclass
class Channel:
    """The association of a request."""

    answers: list[int | None] = field(default_factory=list)
    reports: list[Reported] = field(default_factory=list)
    leases: int = 0

    def keep(self) -> None:
        self.leases += 1

    def let_go(self) -> None:
        self.leases -= 1

    async def report(
        self,
        transaction_uid: str,
        committed: Sequence[Found],
        failed: Sequence[Found],
        retrieve_ae_title: str,
    ) -> int | None:
        answer = self.answers.pop(0) if self.answers else 0
        if answer is not None:
            self.reports.append(Reported(None, transaction_uid, list(committed), list(failed)))
        return answer


Found_in = Callable[[Reference], Finding]


def proofs_of(
    log: MemoryLog, find: Found_in, taken: set[bytes]
) -> list[tuple[TransactionId, CommitProved, list[Found]]]:
    """What a worker proves of the fences in an instance log that are not in ``taken`` yet."""
    proofs = []
    for record in log.records:
        if record.kind is not Kind.COMMIT_ASKED or bytes(record.upload_id) in taken:
            continue
        taken.add(bytes(record.upload_id))
        asked = commitment_of(record)
        assert isinstance(asked, CommitAsked)
        found = [Found(one.sop_class_uid, one.sop_instance_uid, find(one)) for one in references_of(record)]
        proved = CommitProved(asked.round, asked.part, asked.parts, 0, 1)
        proofs.append((TransactionId(asked.transaction_id), proved, found))
    return proofs


def leave_proofs(folder: Path, log: MemoryLog, find: Found_in, taken: set[bytes]) -> int:
    """The same as files for the receiver."""
    proofs = proofs_of(log, find, taken)
    for transaction_id, proved, found in proofs:
        header, payload = Written(transaction_id, proved, found).encode()
        path = folder / f"{transaction_id.hex()}-{proved.round}-{proved.part}"
        path.with_suffix(".new").write_bytes(header + payload)
        path.with_suffix(".new").rename(path)
    return len(proofs)


def open_transaction(engine: Engine, transaction_id: TransactionId) -> Transaction:
    """Accepted, and not yet closed."""
    transaction = engine.transactions.get(transaction_id)
    assert transaction is not None
    return transaction


async def until(condition: Callable[[], object], engine: Engine | None = None) -> None:
    """Wait for something that comes; pytest's timeout catches what does not."""
    while not condition():
        if engine is not None:
            engine.wake()
        await asyncio.sleep(0.005)


async def quiet(engine: Engine) -> None:
    """Let it do all that is due by its clock."""
    engine.wake()
    for _ in range(3):
        await asyncio.sleep(0.002)
    await until(lambda: engine.idle)
