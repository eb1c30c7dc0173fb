"""Commitment as a modality sees it: from N-ACTION to the N-EVENT-REPORT of 1,000 instances, against bare reads of them."""

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.arms import RATE, Arm, Comparison, Sample, alternate
from benchmarks.data import KINDS, template
from benchmarks.load import Load, send
from benchmarks.pipeline import receiver, settings_line, stored, wait_settled, workers
from benchmarks.scenarios.commitment_beside import ENVIRONMENT
from benchmarks.scenarios.network import next_run
from benchmarks.scenarios.scale import Scale
from ingest.contract.commitments import Reference
from ingest.sender import Peer
from ingest.sender.commitment import commit

OURS: Final = "ours, N-ACTION to N-EVENT-REPORT"
BARE: Final = "bare read + SHA-256"
_KIND: Final = "ct"
_SENDERS: Final = 4
_TIMEOUT: Final = 120.0  # s


def request_whole(scale: Scale, count: int, read_all: Callable[[list[Path]], None]) -> Comparison:
    """One transaction of ``count`` instances; ``read_all`` reads and hashes as many files at a time as a worker does."""
    title = f"Commitment of {count} instances by one request, {KINDS[_KIND].label}, one worker"
    scale.progress(title)
    data = scale.scratch / "whole"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        process, address = stack.enter_context(receiver(data, ENVIRONMENT))
        cores = sorted(os.sched_getaffinity(0))
        processes = [process, *stack.enter_context(workers(data, 1, cores, ENVIRONMENT))]
        send(address, Load(_KIND, count, _SENDERS, run=next_run()))
        wait_settled(data, count, processes)
        objects = stored(data)
        arms = [
            Arm(OURS, lambda: _timed(count, lambda: _request(address, objects))),
            Arm(BARE, lambda: _timed(count, lambda: read_all(objects))),
        ]
        comparison = Comparison(title, "MB/s", alternate(arms, scale.rounds, scale.progress))
    # Of so few as the quick form has, most of it are a few syncs and wake-ups one after the other.
    comparison.add_ratio(BARE, OURS, at_most=True, guarded=not scale.quick)
    comparison.notes.append(
        "Ours includes the request, its fences in the log, the proofs and the report, made durable one after the other."
    )
    comparison.settings = {"receiver and worker": settings_line(ENVIRONMENT)}
    return comparison


def _timed(count: int, work: Callable[[], None]) -> Sample:
    begun = time.perf_counter()
    work()
    volume = count * template(KINDS[_KIND]).size
    return {RATE: volume / (time.perf_counter() - begun), "volume": float(volume)}


def _request(address: tuple[str, int], objects: list[Path]) -> None:
    """As the modality that stored them, on one association."""
    references = [Reference(KINDS[_KIND].sop_class_uid, path.stem) for path in objects]
    peer = Peer(*address, "DICOM-INGEST", "MODALITY", _TIMEOUT)
    outcome = asyncio.run(commit(peer, references, seconds=_TIMEOUT))
    if len(outcome.committed) != len(references):
        raise RuntimeError(f"not committed: {outcome.problem or outcome.failed}")
