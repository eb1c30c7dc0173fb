"""The codec processes themselves: killed, stopped, starved, raced, orphaned; one frame is lost at most."""

import asyncio
import contextlib
import itertools
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ingest.contract.settings import Settings
from tests.support.pixel_objects import noise
from workers.errors import Unavailable
from workers.pixels.codec import Codec
from workers.pixels.form import CodecFailed, Coding, Failure, FrameForm
from workers.process import open_tools

SMALL = FrameForm(64, 64, 1, 16, 12, False)
LONG = FrameForm(2048, 2048, 1, 16, 16, False)  # takes a second to encode and prove
FRAME = noise(SMALL).tobytes()


def with_codec(scenario: Callable[[Codec], Awaitable[None]], **options: float) -> None:
    async def run() -> None:
        arguments = {"memory": 2 << 30, "timeout": 120, **options}
        async with Codec(**arguments) as codec:  # type: ignore[arg-type]  # whole numbers where they must be
            await scenario(codec)
            pids = codec.pids
        assert all(gone(pid) for pid in pids)

    asyncio.run(run())


def gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


async def works(codec: Codec) -> None:
    codestream = await codec.encode_proved(FRAME, SMALL)
    assert await codec.decode(codestream, Coding.JPEG_2000, SMALL) == FRAME


async def in_work(codec: Codec) -> tuple[asyncio.Task[bytes], int]:
    """A long frame in the middle of its encoding, and the process that has it."""
    await works(codec)
    (pid,) = codec.pids
    while True:
        used = cpu_ticks(pid)
        task = asyncio.create_task(codec.encode_proved(noise(LONG).tobytes(), LONG))
        while cpu_ticks(pid) < used + 5:  # noqa: ASYNC110 - another process sets no event
            await asyncio.sleep(0.01)
        if not task.done():
            return task, pid
        await task  # we looked too late, as on a busy machine


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_killed_in_the_middle_of_a_frame() -> None:
    """kill -9 costs that frame and no other; it is said that another try may end otherwise."""

    async def scenario(codec: Codec) -> None:
        task, pid = await in_work(codec)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(CodecFailed) as caught:
            await task
        assert caught.value.reason is Failure.CRASHED
        assert caught.value.again
        assert codec.restarts == 0
        await works(codec)
        assert codec.pids != [pid]
        assert codec.restarts == 1

    with_codec(scenario)


@pytest.mark.parametrize("seen", [False, True])
def test_killed_between_two_frames(seen: bool) -> None:
    """A process that went while idle is met as a crash by the next frame, and replaced."""

    async def scenario(codec: Codec) -> None:
        await works(codec)
        (pid,) = codec.pids
        os.kill(pid, signal.SIGKILL)
        while seen and not gone(pid):  # noqa: ASYNC110 - a process that ends sets no Event
            await asyncio.sleep(0.01)  # the event loop hears of its end before anybody asks
        with pytest.raises(CodecFailed) as caught:
            await codec.encode_proved(FRAME, SMALL)
        assert caught.value.again
        await works(codec)

    with_codec(scenario)


def test_replaced_after_its_frames() -> None:
    """No process works on more frames than it may; that is no restart, and every frame comes back as itself."""

    async def scenario(codec: Codec) -> None:
        pids = []
        for seed in range(7):
            frame = noise(SMALL, seed).tobytes()
            codestream = await codec.encode_proved(frame, SMALL)
            pids += codec.pids
            assert await codec.decode(codestream, Coding.JPEG_2000, SMALL) == frame
            pids += codec.pids
        runs = [len(list(run)) for _, run in itertools.groupby(pids)]
        assert runs == [3, 3, 3, 3, 2]
        assert all(gone(pid) for pid in set(pids) - set(codec.pids))
        assert codec.restarts == 0

    with_codec(scenario, frames=3)


def test_a_worker_replaces_its_codec(tmp_path: Path) -> None:
    """After `worker.codec_frames`."""

    async def run() -> None:
        settings = Settings.model_validate({"data": tmp_path, "worker": {"codec_frames": 1}})
        async with contextlib.AsyncExitStack() as resources:
            tools = await open_tools(settings, asyncio.Event(), resources, lambda: True)
            assert tools is not None
            _, codec = tools
            await codec.encode_proved(FRAME, SMALL)
            (pid,) = codec.pids
            await codec.encode_proved(FRAME, SMALL)
            assert codec.pids != [pid]

    asyncio.run(run())


def test_replaced_while_others_work() -> None:
    """Processes of one pool come to their ends each on its own, and no frame is lost by it."""

    async def scenario(codec: Codec) -> None:
        frames = [noise(SMALL, seed).tobytes() for seed in range(12)]
        codestreams = await asyncio.gather(*(codec.encode_proved(frame, SMALL) for frame in frames))
        decoded = await asyncio.gather(
            *(codec.decode(codestream, Coding.JPEG_2000, SMALL) for codestream in codestreams)
        )
        assert decoded == frames
        assert codec.restarts == 0

    with_codec(scenario, processes=2, frames=5)


def test_a_crash_counts_among_replacements() -> None:
    """And the process after it has all its frames before it."""

    async def scenario(codec: Codec) -> None:
        await works(codec)
        await codec.encode_proved(FRAME, SMALL)
        os.kill(codec.pids[0], signal.SIGKILL)
        with pytest.raises(CodecFailed):
            await codec.encode_proved(FRAME, SMALL)
        await works(codec)
        (pid,) = codec.pids
        await works(codec)
        assert codec.pids == [pid]
        await works(codec)
        assert codec.pids != [pid]
        assert codec.restarts == 1

    with_codec(scenario, frames=4)


def test_a_process_that_cannot_start() -> None:
    """Too little memory to load the libraries is said of the codec, never of a frame."""

    async def scenario(codec: Codec) -> None:
        with pytest.raises(Unavailable):
            await codec.encode_proved(FRAME, SMALL)
        assert codec.pids == []

    with_codec(scenario, memory=16 << 20)


def test_a_frame_that_never_ends() -> None:
    """A process that does not answer in time is killed and replaced."""

    async def scenario(codec: Codec) -> None:
        await works(codec)
        (pid,) = codec.pids
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(CodecFailed) as caught:
            await codec.encode_proved(FRAME, SMALL)
        assert caught.value.reason is Failure.TIMED_OUT
        assert caught.value.again
        assert gone(pid)
        await works(codec)

    with_codec(scenario, timeout=2)


def test_a_cancelled_frame_does_not_answer_the_next_one() -> None:
    """Whoever gives up waiting takes the process with it, so that no answer reaches another caller."""

    async def scenario(codec: Codec) -> None:
        task, pid = await in_work(codec)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gone(pid)
        await works(codec)

    with_codec(scenario)


def peak_memory(pid: int) -> int:
    """The most a process has used, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def bomb(rows: int, columns: int) -> bytes:
    """A codestream of a few hundred bytes that declares an image of any size, all zeros.

    Made from a real one by changing its SIZ: one tile, so that a decoder allocates the whole image.
    """
    from workers.pixels.decoders import encode_proved  # noqa: PLC0415 - the codec's libraries, for this test only

    flat = bytearray(encode_proved(memoryview(bytes(SMALL.size)), SMALL, transform=False))
    struct.pack_into(">II", flat, 8, columns, rows)
    struct.pack_into(">II", flat, 24, columns, rows)
    return bytes(flat)


def test_a_memory_bomb_is_refused_by_its_header() -> None:
    """20000 x 20000 under a 64 x 64 description: told from the header, and the process stays small."""

    async def scenario(codec: Codec) -> None:
        with pytest.raises(CodecFailed) as caught:
            await codec.decode(bomb(20_000, 20_000), Coding.JPEG_2000, SMALL)
        assert caught.value.reason is Failure.DISAGREES
        assert peak_memory(codec.pids[0]) < 128 * 1024
        await works(codec)

    with_codec(scenario)


def test_a_memory_bomb_that_agrees_meets_the_limit() -> None:
    """Where the description declares the size too, the address space limit stops it."""

    async def scenario(codec: Codec) -> None:
        form = FrameForm(20_000, 20_000, 1, 16, 12, False)
        with pytest.raises(CodecFailed) as caught:
            await codec.decode(bomb(form.rows, form.columns), Coding.JPEG_2000, form)
        assert caught.value.reason in (Failure.MEMORY, Failure.CRASHED, Failure.DAMAGED)
        await works(codec)

    with_codec(scenario, memory=256 << 20)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_many_frames_at_once(processes: int) -> None:
    """Frames encoded at the same time each come back as themselves: one at a time in each process."""

    async def scenario(codec: Codec) -> None:
        frames = [noise(SMALL, seed).tobytes() for seed in range(12)]
        codestreams = await asyncio.gather(*(codec.encode_proved(frame, SMALL) for frame in frames))
        decoded = await asyncio.gather(
            *(codec.decode(codestream, Coding.JPEG_2000, SMALL) for codestream in codestreams)
        )
        assert decoded == frames
        assert len(set(codec.pids)) == processes

    with_codec(scenario, processes=processes)


def open_files(pid: int) -> list[str]:
    return sorted(str(path.readlink()).partition(":")[0] for path in Path(f"/proc/{pid}/fd").iterdir())


def limits(pid: int) -> dict[str, list[str]]:
    """Soft and hard limit by name."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return {line[:26].strip(): line[26:].split()[:2] for line in lines}


def test_confined() -> None:
    """A process has its socket, its memory and /dev/null, and may open nothing more and dump no core."""
    with open("/dev/zero", "rb") as inheritable:  # noqa: PTH123 - any descriptor will do
        os.set_inheritable(inheritable.fileno(), True)

        async def scenario(codec: Codec) -> None:
            await works(codec)
            assert open_files(codec.pids[0]) == ["/dev/null"] * 3 + ["/memfd", "socket"]
            given = limits(codec.pids[0])
            assert given["Max open files"] == ["0", "0"]
            assert given["Max core file size"] == ["0", "0"]
            assert given["Max address space"] == [str(2 << 30)] * 2

        with_codec(scenario)


PARENT = """
import asyncio, os, signal
from tests.workers.pixels.test_codec_processes import in_work
from workers.pixels.codec import Codec
async def main():
    codec = Codec(memory=2 << 30, timeout=120)
    task, pid = await in_work(codec)
    print(pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def test_dies_with_its_parent() -> None:
    """A worker killed in the middle of a frame leaves no codec behind."""
    done = subprocess.run(
        [sys.executable, "-c", PARENT], capture_output=True, check=False, cwd=Path(__file__).parents[3]
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid = int(done.stdout)
    while not gone(pid):
        time.sleep(0.01)
