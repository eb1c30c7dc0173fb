"""Encode, decode, compare, and nothing around it: as bare calls, and through our pool of codec processes.

The bare calls are what a script with pylibjpeg-openjpeg would do, one process a core, and the limit of every
worker that proves what it stores. Our pool adds the processes that a crash may cost, and the way to them.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

from openjpeg.utils import decode_pixel_data, encode_pixel_data

from benchmarks.data import KINDS, Kind, template
from benchmarks.processes import forked
from workers.pixels.codec import Codec
from workers.pixels.form import FrameForm

_MEMORY = 2 * 1024**3  # bytes of address space of a codec process
_TIMEOUT = 120.0  # s
_Work = Callable[[Connection, str, int, tuple[int, ...]], None]


def bare_seconds(kind: str, frames: int, cores: Sequence[int]) -> float:
    """Time of encoding and proving ``frames`` frames of ``kind``, as many processes as ``cores``, on them."""
    shares = [
        (frames // len(cores) + (number < frames % len(cores)), tuple(cores)) for number in range(len(cores))
    ]
    return _seconds(_bare, kind, shares)


def pool_seconds(kind: str, frames: int, cores: Sequence[int]) -> float:
    """The same by one of our codec pools, with a process for each of ``cores``."""
    return _seconds(_pool, kind, [(frames, tuple(cores))])


def _seconds(work: _Work, kind: str, shares: Sequence[tuple[int, tuple[int, ...]]]) -> float:
    """Start a process for each share, let all begin together; first beginning to last end."""
    started = []
    for count, cores in shares:
        ours, theirs = forked.Pipe()
        process = forked.Process(target=work, args=(theirs, kind, count, cores))
        process.start()
        theirs.close()
        started.append((process, ours))
    for _, channel in started:
        channel.recv()
    for _, channel in started:
        channel.send(None)
    times = [channel.recv() for _, channel in started]
    for process, channel in started:
        process.join()
        channel.close()
    return float(max(end for _, end in times) - min(begun for begun, _ in times))


def _frames(kind: Kind, count: int) -> list[bytes]:
    distinct = template(kind).distinct_frames
    return [distinct[number % len(distinct)] for number in range(count)]


def _bare(channel: Connection, kind: str, count: int, cores: tuple[int, ...]) -> None:
    os.sched_setaffinity(0, cores)
    frames = _frames(KINDS[kind], count)
    encode_and_prove(KINDS[kind], template(KINDS[kind]).distinct_frames[0])
    channel.send(None)
    channel.recv()
    begun = time.monotonic()
    for frame in frames:
        encode_and_prove(KINDS[kind], frame)
    channel.send((begun, time.monotonic()))


def encode_and_prove(kind: Kind, frame: bytes) -> bytes:
    """The codestream of ``frame``, decoded again and found equal."""
    codestream = encode_pixel_data(
        frame,
        rows=kind.rows,
        columns=kind.columns,
        samples_per_pixel=1,
        bits_allocated=16,
        bits_stored=kind.bits_stored,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
    )
    assert decode_pixel_data(codestream, version=2) == frame
    return bytes(codestream)


def _pool(channel: Connection, kind: str, count: int, cores: tuple[int, ...]) -> None:
    os.sched_setaffinity(0, cores)
    asyncio.run(_drive_pool(channel, KINDS[kind], count, len(cores)))


async def _drive_pool(channel: Connection, kind: Kind, count: int, processes: int) -> None:
    form = FrameForm(kind.rows, kind.columns, 1, 16, kind.bits_stored, signed=False)
    frames = iter(_frames(kind, count))
    first = template(kind).distinct_frames[0]

    async def work(codec: Codec) -> None:
        for frame in frames:
            await codec.encode_proved(frame, form)

    async with Codec(processes=processes, memory=_MEMORY, timeout=_TIMEOUT) as codec:
        await asyncio.gather(*(codec.encode_proved(first, form) for _ in range(processes)))
        channel.send(None)
        channel.recv()
        begun = time.monotonic()
        # One more than processes, so that the next frame is there when one is done.
        await asyncio.gather(*(work(codec) for _ in range(processes + 1)))
        channel.send((begun, time.monotonic()))
