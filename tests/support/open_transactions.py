"""Many open transactions whose peer is down, in a process of their own, so that what they cost in memory can be seen.

python -m tests.support.open_transactions fill FOLDER COUNT    # their records, as a receiver has written them
python -m tests.support.open_transactions hold FOLDER          # the engine over two simulated days; prints JSON
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from benchmarks.processes import resident
from ingest.commitment.engine import Engine
from ingest.commitment.rounds import fences_of
from ingest.contract.commitments import (
    CommitAccepted,
    CommitDecided,
    CommitProved,
    Finding,
    Found,
    Reference,
    digest_of,
    first_round,
)
from ingest.contract.identifiers import TransactionId
from ingest.contract.settings import Settings
from ingest.log.commitment_log import Written
from ingest.log.commitment_spool import SpoolCommitmentLog
from tests.support.commitment import CT, WALL, Hand, Modality, quiet
from tests.support.memory_log import MemoryLog

INSTANCES = 1000
TWO_DAYS = 2 * 86400.0  # s
PARTITIONS = 16  # of the instance log, as its default has it: so many proofs has each transaction
_BATCH = 20  # transactions written at the same time


def _settings(folder: Path) -> Settings:
    source = {"ae_titles": ["CT1"], "host": "127.0.0.1", "port": 104}
    return Settings.model_validate(
        {"data": folder, "commitment": {"enabled": True}, "sources": {"ct": source}}
    )


def _records(number: int, references: list[Reference]) -> list[Written]:
    """All of one transaction that is decided and not reported."""
    uid = f"1.2.840.1.{number}"
    transaction_id = TransactionId.of("CT1", uid)
    digest = digest_of(references)
    fences = fences_of(references, PARTITIONS)
    own = first_round(digest)
    accepted = CommitAccepted(
        uid, "CT1", "US", "ct", len(references), digest, len(fences), 1, 1, 0.0, WALL + number
    )
    records = [Written(transaction_id, accepted)]
    for part, fence in enumerate(fences):
        found = [Found(one.sop_class_uid, one.sop_instance_uid, Finding.PROVED) for one in fence.references]
        proved = CommitProved(own, part, len(fences), fence.partition, WALL + number)
        records.append(Written(transaction_id, proved, found))
    return [*records, Written(transaction_id, CommitDecided(own, WALL + number))]


async def fill(folder: Path, count: int) -> None:
    """Write them."""
    log = SpoolCommitmentLog(_settings(folder))
    await log.start()
    references = [Reference(CT, f"1.2.840.113619.2.55.3.{number}") for number in range(INSTANCES)]
    for first in range(0, count, _BATCH):
        numbers = range(first, min(first + _BATCH, count))
        await asyncio.gather(*(log.publish(_records(number, references)) for number in numbers))
    await log.close()


async def hold(folder: Path) -> dict[str, float]:
    """MiB after the start and two days later, and what was done meanwhile."""
    settings, clock, modality = _settings(folder), Hand(), Modality()
    modality.answers = [None] * 10_000
    engine = Engine(settings, MemoryLog(), SpoolCommitmentLog(settings), modality, clock)
    await engine.start()
    await quiet(engine)
    started = resident(os.getpid())
    end, wake_ups = clock.now + TWO_DAYS, 0
    while engine.transactions.next_time() < end:
        clock.now = engine.transactions.next_time()
        wake_ups += 1
        await quiet(engine)
    result = {
        "open": len(engine.transactions),
        "started": started,
        "later": resident(os.getpid()),
        "tries": modality.tries,
        "wake_ups": wake_ups,
    }
    await engine.close()
    return result


if __name__ == "__main__":
    verb, where, *rest = sys.argv[1:]
    if verb == "fill":
        asyncio.run(fill(Path(where), int(rest[0])))
    else:
        print(json.dumps(asyncio.run(hold(Path(where)))))  # noqa: T201 - its result
