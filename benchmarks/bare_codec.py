"""The bare codec calls: encode, decode, compare, one frame after the other, one process a core, nothing around them.

It is what a script with pylibjpeg-openjpeg would do, and the limit of every worker that proves what it stores.
"""

import multiprocessing
import os
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from openjpeg.utils import decode_pixel_data, encode_pixel_data

from benchmarks.data import KINDS, template


def transcode(kind: str, frames: int, cores: Sequence[int]) -> float:
    """Encode and prove ``frames`` frames of ``kind``, shared out over ``cores``; the seconds it took."""
    spawn = multiprocessing.get_context("spawn")
    started = []
    for number, core in enumerate(cores):
        count = frames // len(cores) + (number < frames % len(cores))
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_work, args=(theirs, kind, count, core), daemon=True)
        process.start()
        theirs.close()
        started.append((process, ours))
    for _, channel in started:
        channel.recv()
    for _, channel in started:
        channel.send(None)
    times = [channel.recv() for _, channel in started]
    for process, _ in started:
        process.join()
    return float(max(end for _, end in times) - min(begun for begun, _ in times))


def _work(channel: Connection, kind: str, count: int, core: int) -> None:
    os.sched_setaffinity(0, {core})
    found = template(KINDS[kind])
    frames = list(found.distinct_frames)
    encode_and_prove(frames[0], kind)
    channel.send(None)
    channel.recv()
    begun = time.monotonic()
    for number in range(count):
        encode_and_prove(frames[number % len(frames)], kind)
    channel.send((begun, time.monotonic()))


def encode_and_prove(frame: bytes, kind: str) -> bytes:
    """The codestream of ``frame``, decoded again and found equal."""
    described = KINDS[kind]
    codestream = encode_pixel_data(
        frame,
        rows=described.rows,
        columns=described.columns,
        samples_per_pixel=1,
        bits_allocated=16,
        bits_stored=described.bits_stored,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
    )
    assert decode_pixel_data(codestream, version=2) == frame
    return bytes(codestream)
