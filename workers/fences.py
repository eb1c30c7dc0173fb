"""The fences of a worker: each waits for exactly the uploads that it asks about, is proved, published and passed.

The steps of a fence, in the only safe order:

    1. waited      every upload of its partition that was completed before it, of an instance that it names,
                   is durable at its place; of others, and of uploads without an end, it waits for none
    2. proved      from the store, by whatever policy it asks for
    3. published   durable where the reporter finds it
    4. passed      the low-water mark may go on

A crash before 4 is durable repeats all of it, which changes nothing but the time of the proof. A fence takes no
slot of the codec, and nothing that it waits for waits for it.

So many may wait, and so many bytes. Beyond that a fence skips 1 and 2: nothing was found out about what it names
(`UNAVAILABLE`), and whoever asked asks again in a later round. So reading goes on in bounded memory, whatever a dead
store holds up, and no success is said without proof. Only where answers find no taker, reading stops as well.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

import structlog

from ingest.contract.commitments import CommitAsked, CommitProved, Finding, Found, Reference
from ingest.contract.failpoints import Failpoint, reach
from ingest.contract.identifiers import TransactionId
from ingest.contract.settings import MiB
from workers.errors import Unavailable
from workers.log.checkpoint import Progress
from workers.log.fence import Fence
from workers.log.proof import Proof, Proofs

# A reference takes 135 bytes at most: 120,000 of them wait. As much again may be on the way to whoever asked.
BYTES_AT_MOST: Final = 16 * MiB
FENCES_AT_MOST: Final = 1024
LONGEST_RETRY: Final = 60.0  # seconds between two tries to publish
REPORT_AFTER: Final = 60.0  # seconds of waiting for uploads, after which the log says so, and again

logger = structlog.get_logger(__name__)


class Prover(Protocol):
    """What finds out, from the stores, what became of instances."""

    async def prove(self, asked: CommitAsked, references: Sequence[Reference]) -> list[Found]:
        """One finding for each reference, in their order; what cannot be found out now is `UNAVAILABLE`."""
        ...


class Fences:
    """Those of one worker that are not passed yet."""

    def __init__(self, prover: Prover, proofs: Proofs) -> None:
        self._prover = prover
        self._proofs = proofs
        self._open: dict[asyncio.Task[None], tuple[Fence, Progress]] = {}
        self._held = 0  # bytes

    @property
    def is_full(self) -> bool:
        """Whether no more should be read until some are passed."""
        return self._has(2)

    def _has(self, times: int) -> bool:
        """Whether so many times what may wait is open."""
        return len(self._open) >= times * FENCES_AT_MOST or self._held >= times * BYTES_AT_MOST

    def begin(
        self,
        group: asyncio.TaskGroup,
        fence: Fence,
        progress: Progress,
        uploads: Mapping[asyncio.Task[bool], str],
    ) -> asyncio.Task[None]:
        """Bring a fence through its steps, or through the last two where too many wait.

        ``uploads``: those of its partition that are in work, all from before it, by their SOP Instance UIDs; a
        task says in the end whether the upload has its place.
        """
        if self._has(1):
            task = group.create_task(self._put_off(fence, progress))
        else:
            named = {reference.sop_instance_uid for reference in fence.references()}
            before = [task for task, uid in uploads.items() if uid in named]
            task = group.create_task(self._bring_through(fence, progress, before))
        self._open[task] = fence, progress
        self._held += fence.held
        task.add_done_callback(self._gone)
        return task

    def of(self, progress: Progress) -> list[asyncio.Task[None]]:
        """Those of one partition."""
        return [task for task, (_, its) in self._open.items() if its is progress]

    def leave(self) -> None:
        """Leave all to the next owner of their partitions, which will ask them again."""
        for task in list(self._open):
            task.cancel()

    def _gone(self, task: asyncio.Task[None]) -> None:
        fence, _ = self._open.pop(task)
        self._held -= fence.held

    async def _bring_through(
        self, fence: Fence, progress: Progress, before: Sequence[asyncio.Task[bool]]
    ) -> None:
        begun = time.monotonic()
        if not await _all_placed(fence, before):  # step 1
            return
        reach(Failpoint.BEFORE_PROOF)
        found = await self._prover.prove(fence.asked, fence.references())  # step 2
        reach(Failpoint.AFTER_PROOF)
        await self._publish(_proof(fence, found))  # step 3
        reach(Failpoint.PROOF_PUBLISHED)
        progress.passed(fence.fence_id, fence.end_position)  # step 4
        _report(fence, found, len(before), time.monotonic() - begun)

    async def _put_off(self, fence: Fence, progress: Progress) -> None:
        references = fence.references()
        logger.warning(
            "commitment put off: too many wait", partition=fence.partition, instances=len(references)
        )
        unknown = [Found(one.sop_class_uid, one.sop_instance_uid, Finding.UNAVAILABLE) for one in references]
        await self._publish(_proof(fence, unknown))
        progress.passed(fence.fence_id, fence.end_position)

    async def _publish(self, proof: Proof) -> None:
        pause = 0.0
        while True:
            try:
                await self._proofs.publish(proof)
            except Unavailable as error:
                logger.warning("proof held", partition=proof.proved.partition, reason=str(error))
                pause = min(max(2 * pause, error.retry_after), LONGEST_RETRY)
                await asyncio.sleep(pause)
            else:
                return


async def _all_placed(fence: Fence, before: Iterable[asyncio.Task[bool]]) -> bool:
    """Wait for uploads; False where the worker stops, and leaves one of them to the next."""
    left = set(before)
    placed = True
    while left:
        done, left = await asyncio.wait(left, timeout=REPORT_AFTER)
        placed = placed and all(not task.cancelled() and task.result() for task in done)
        if left and not done:
            logger.warning("commitment waits", partition=fence.partition, uploads=len(left))
    return placed


def _proof(fence: Fence, found: Sequence[Found]) -> Proof:
    asked = fence.asked
    proved = CommitProved(asked.round, asked.part, asked.parts, fence.partition, time.time_ns())
    return Proof(TransactionId(asked.transaction_id), proved, found)


def _report(fence: Fence, found: Sequence[Found], waited_for: int, seconds: float) -> None:
    findings = Counter(one.finding for one in found)
    logger.info(
        "commitment proved",
        transaction=fence.asked.transaction_id.hex(),
        partition=fence.partition,
        round=fence.asked.round,
        part=fence.asked.part,
        waited_for=waited_for,
        seconds=round(seconds, 3),
        **{finding.name.lower(): findings[finding] for finding in Finding if findings[finding]},
    )
