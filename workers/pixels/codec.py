"""The worker's side of the codec: a few child processes that each work on one frame at a time.

Frames and codestreams pass through a memory file that parent and child share; a small message on a socket
says what to do with it (`form.py`). The child is started by exec, never forked from this process, and
inherits nothing but its socket and its memory. Whatever it writes is taken as untrusted.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from types import TracebackType
from typing import Final, Self

from workers.errors import Unavailable
from workers.pixels.form import (
    DECODE,
    ENCODE,
    LONGEST_ANSWER,
    READY,
    CodecFailed,
    Coding,
    Failure,
    FrameForm,
    Request,
    decode_answer,
)

Data = bytes | bytearray | memoryview

_START_TIMEOUT: Final = 60.0  # s; loading takes 0.2 s on an idle machine
_STARTS: Final = 3
_ENDING: Final = 5.0  # s, from closing its socket to ending: the interpreter takes its leave
_RETRY_AFTER: Final = 5.0  # s
_KEPT: Final = 16 * 1024 * 1024  # bytes of shared memory a child keeps between frames
# The result of encoding is at most a little longer than the frame: noise does not compress.
_MOST_GROWN: Final = 64 * 1024
_MODULE: Final = "workers.pixels.codec_process"


class _Child:
    """One codec process, started when it is needed, and anew after so many frames."""

    def __init__(self, memory: int, timeout: float, frames: int | None) -> None:
        self._address_space = memory
        self._timeout = timeout
        self._frames = frames
        self._served = 0  # frames of the process that runs
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._memory = -1
        self._answer: asyncio.Future[bytes] | None = None  # that somebody waits for
        self._is_due = True  # the next start is its first one, or one for its frames
        self.restarts = 0  # all others

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return None if self._process is None else self._process.pid

    async def ask(self, request: Request, data: Data, most: int) -> bytes:
        """One request and its result of at most ``most`` bytes.

        Raises:
            CodecFailed: there is none. The process may have been ended; the next call starts another.
            Unavailable: no process can be started.
        """
        try:
            if self._process is not None and self._served == self._frames:
                self._is_due = True
                await self.stop()  # between two frames it has nothing to lose
            if self._process is None:
                await self._start_surely()
            self._served += 1
            self._give(data)
            message = await self._exchange(request.encode(), self._timeout)
            return self._take(decode_answer(message), most)
        except CodecFailed as failure:
            if failure.again:
                await self.stop()
            raise
        except BaseException:
            # Cancelled or out of memory: what the process does now is of no use to the next caller.
            await self.stop()
            raise

    async def _start_surely(self) -> None:
        """Start, again if need be.

        Raises:
            CodecFailed: the process was ended by a signal.
            Unavailable: it ends by itself: what keeps it from starting is no fact about a frame.
        """
        for _ in range(_STARTS):
            try:
                return await self._start()
            except (CodecFailed, OSError):
                if await self.stop(_ENDING) < 0:
                    raise
        raise Unavailable("the codec process does not start", _RETRY_AFTER)

    async def _start(self) -> None:
        self.restarts += not self._is_due
        self._is_due = False
        self._served = 0
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            self._channel = ours
            asyncio.get_running_loop().add_reader(ours, self._receive, ours)
            self._memory = os.memfd_create("codec", os.MFD_CLOEXEC)
            descriptors = (theirs.fileno(), self._memory)
            self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - returns after exec; our own module
                [
                    sys.executable,
                    "-P",
                    "-m",
                    _MODULE,
                    *map(str, (*descriptors, os.getpid(), self._address_space)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=descriptors,
                # Thread pools of libraries that nobody calls would take address space.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        if await self._exchange(b"", _START_TIMEOUT) != READY:
            raise CodecFailed(Failure.CRASHED, "a start without its first message")

    async def _exchange(self, message: bytes, seconds: float) -> bytes:
        """Send ``message``, if any, and wait for the next one."""
        assert self._channel is not None
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        deadline = loop.call_later(seconds, _give_up, self._answer)
        try:
            if message:
                self._channel.send(message)
            answer = await self._answer
        except TimeoutError:
            raise CodecFailed(Failure.TIMED_OUT, f"no answer within {seconds} s") from None
        except OSError:
            raise CodecFailed(Failure.CRASHED, "the process has gone") from None
        finally:
            deadline.cancel()
            self._answer = None
        if not answer:
            raise CodecFailed(Failure.CRASHED, "the process has gone")
        return answer

    def _receive(self, channel: socket.socket) -> None:
        """Its next message is there, or its end, which shows as an empty one."""
        try:
            answer = channel.recv(LONGEST_ANSWER)
        except BlockingIOError:
            return
        except OSError:
            answer = b""
        if not answer:
            asyncio.get_running_loop().remove_reader(channel)
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def _give(self, data: Data) -> None:
        view = memoryview(data).cast("B")
        position = 0
        while position < len(view):
            position += os.pwrite(self._memory, view[position:], position)

    def _take(self, length: int, most: int) -> bytes:
        if length > most:
            raise CodecFailed(Failure.CRASHED, "a result of impossible length")
        data = os.pread(self._memory, length, 0)
        while len(data) < length:
            more = os.pread(self._memory, length - len(data), len(data))
            if not more:
                raise CodecFailed(Failure.CRASHED, "a result shorter than announced")
            data += more
        if os.fstat(self._memory).st_size > _KEPT:
            os.ftruncate(self._memory, 0)
        return data

    async def stop(self, grace: float = 0) -> int:
        """End the process, which has ``grace`` seconds to end by itself, and give back what it had.

        Returns:
            Its exit code: negative for a signal, 0 where there is no process.
        """
        process, channel, memory = self._process, self._channel, self._memory
        self._process, self._channel, self._memory = None, None, -1
        if channel is not None:
            asyncio.get_running_loop().remove_reader(channel)
            channel.close()
        if memory >= 0:
            os.close(memory)
        return 0 if process is None else await asyncio.shield(asyncio.to_thread(_end, process, grace))


def _give_up(answer: "asyncio.Future[bytes]") -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())


def _end(process: "subprocess.Popen[bytes]", grace: float) -> int:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(grace)
    process.send_signal(signal.SIGKILL)
    return process.wait()


class Codec:
    """A pool of codec processes: ``async with Codec(...) as codec``.

    ``processes``: frames in work at once. ``memory``: bytes of address space of each. ``timeout``: seconds
    for one frame. ``frames``: after so many a process is replaced, since the encoder's binding never frees its log messages,
    448 bytes a frame (pylibjpeg-openjpeg 2.6.0), until at the limit of its address space it would crash on a good one. None:
    never; decoding leaks nothing.

    Processes start with the first frame that needs them, and again after a crash. A frame whose process crashes is not tried
    again here: how often, is for who keeps count of it over crashes of ours.
    """

    def __init__(self, *, processes: int = 1, memory: int, timeout: float, frames: int | None = None) -> None:
        self._children = [_Child(memory, timeout, frames) for _ in range(processes)]
        self._idle = list(self._children)
        self._free = asyncio.Semaphore(processes)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all processes; a frame in work fails."""
        for child in self._children:
            await child.stop()

    @property
    def pids(self) -> list[int]:
        """Process ids of the children that run."""
        return [child.pid for child in self._children if child.pid is not None]

    @property
    def restarts(self) -> int:
        """How often a child was started after its first time, but for its frames; any thread may ask."""
        return sum(child.restarts for child in self._children)

    async def encode_proved(self, frame: Data, form: FrameForm, *, transform: bool = False) -> bytes:
        """Encode a native frame as JPEG 2000 Lossless, decode the output, and compare.

        ``frame``: `FrameForm.size` bytes, little endian, samples of a pixel together; it must not change
        until the call returns. ``transform``: apply the reversible component transform to three samples.

        Returns:
            The codestream, proved to decode to ``frame``; not padded.

        Raises:
            CodecFailed: no codestream, or no proof.
            Unavailable: no codec process can be started.
        """
        if len(memoryview(frame).cast("B")) != form.size:
            raise ValueError("the frame has not the size of its form")
        request = Request(ENCODE, Coding.JPEG_2000, form, transform, form.size)
        return await self._ask(request, frame, form.size * 2 + _MOST_GROWN)

    async def decode(self, codestream: Data, coding: Coding, form: FrameForm) -> bytes:
        """Decode a lossless codestream to a native frame of `FrameForm.size` bytes.

        Raises:
            CodecFailed: it cannot be decoded, is lossy, or is not of that form.
            Unavailable: no codec process can be started.
        """
        length = len(memoryview(codestream).cast("B"))
        if not length:
            raise CodecFailed(Failure.DAMAGED, "an empty frame")
        frame = await self._ask(Request(DECODE, coding, form, False, length), codestream, form.size)
        if len(frame) != form.size:
            raise CodecFailed(Failure.DISAGREES, "the decoder gave another size")
        return frame

    async def _ask(self, request: Request, data: Data, most: int) -> bytes:
        async with self._free:
            child = self._idle.pop()
            try:
                return await child.ask(request, data, most)
            finally:
                self._idle.append(child)
