"""The spool against the disk: SpoolWriter with 1 and 16 publishers, bare pwritev + fdatasync of the same bytes.

    python -m benchmarks.micro.spool [--gigabytes 1] [--rounds 3] [--folder .]

The bare arm overwrites recycled segments of the same size with groups of the same size from one thread, and
does nothing else. Arms alternate; the table shows the median of the rounds and the spread. The last lines say
what a publish costs the event loop: the whole cost of a record where the disk is not the limit.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from ingest.contract.checkpoint import Checkpoint, write_checkpoints
from ingest.contract.records import Kind, encode_header
from ingest.contract.settings import LogSettings, Settings
from ingest.log import SpoolWriter

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30
SEGMENTS = 16
SEGMENT = 32 * MiB


def bare(folder: Path, size: int, group: int, total: int) -> float:
    """MB/s of overwriting segments in turn, ``group`` records a sync."""
    fds = []
    for number in range(SEGMENTS):
        fd = os.open(folder / f"bare-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(fd).st_size < SEGMENT:
            for position in range(0, SEGMENT, MiB):
                os.pwrite(fd, b"\x5a" * MiB, position)
            os.fsync(fd)
        fds.append(fd)
    payloads = [memoryview(os.urandom(size)) for _ in range(group)]
    places = [(fd, at) for fd in fds for at in range(0, SEGMENT - size * group + 1, size * group)]
    done = at = 0
    start = time.perf_counter()
    while done < total:
        fd, position = places[at % len(places)]
        os.pwritev(fd, payloads, position)
        os.fdatasync(fd)
        done += size * group
        at += 1
    elapsed = time.perf_counter() - start
    for fd in fds:
        os.close(fd)
    return done / elapsed / 1e6


async def spool(folder: Path, size: int, publishers: int, total: int, loop_cost: list[float]) -> float:
    """MB/s of the writer; each publisher waits for its record before it publishes the next."""
    data = folder / "data"
    (data / "checkpoints").mkdir(parents=True, exist_ok=True)
    config = Settings(data=data, log=LogSettings(partitions=1, maximum_size=SEGMENTS * SEGMENT, reserve=0))
    settled(data, 0)
    writer = SpoolWriter(config)
    await writer.start()
    payloads = [[memoryview(os.urandom(size))] for _ in range(publishers)]
    headers = [encode_header(Kind.PART, b"x" * 16, 0, None, payload) for payload in payloads]

    async def publisher(number: int, records: int) -> None:
        for _ in range(records):
            await writer.publish(0, headers[number], payloads[number])

    async def settler() -> None:  # the workers keep up
        while True:
            await asyncio.sleep(0.05)
            await asyncio.to_thread(settled, data, writer.durable_end)

    settling = asyncio.create_task(settler())
    records = max(1, total // size // publishers)
    # Before the time runs, as the pool grows.
    await asyncio.gather(*(publisher(number, records // 4 + 1) for number in range(publishers)))
    start, cpu = time.perf_counter(), time.thread_time()
    await asyncio.gather(*(publisher(number, records) for number in range(publishers)))
    elapsed = time.perf_counter() - start
    loop_cost.append((time.thread_time() - cpu) / (records * publishers) * 1e6)
    settling.cancel()
    await writer.close()
    return records * publishers * size / elapsed / 1e6


def settled(data: Path, position: int) -> None:
    """Let the spool use its segments again."""
    write_checkpoints(data / "checkpoints", [Checkpoint(partition=0, low_water_mark=position)])


def arms(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    """One line for each size of record and number of publishers."""
    total = int(options.gigabytes * GiB)
    for size in (512 * KiB, 128 * KiB):
        for group in (1, 16):
            bares: list[float] = []
            spools: list[float] = []
            cost: list[float] = []
            for _ in range(options.rounds):
                bares.append(bare(folder, size, group, total))
                spools.append(uvloop.run(spool(folder, size, group, total, cost)))
            ratio = statistics.median(spools) / statistics.median(bares)
            yield (
                f"{size // KiB:4} KiB x {group:2}: bare {statistics.median(bares):6.0f} "
                f"({min(bares):.0f}-{max(bares):.0f}) MB/s, spool {statistics.median(spools):6.0f} "
                f"({min(spools):.0f}-{max(spools):.0f}) MB/s, ratio {ratio:.2f}, "
                f"event loop {statistics.median(cost):.1f} us a record"
            )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path.cwd())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for line in arms(options, Path(folder)):
            print(line)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
