"""Work in threads: waited for to its end, told once, and left out where it is short."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from workers.dataset.payload import JoinedPayload, MemoryPayload, Payload
from workers.threads import for_payload, to_end

MiB = 1024 * 1024


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def watched() -> None:
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        await scenario()
        await asyncio.sleep(0)
        assert not complaints

    asyncio.run(watched())


class Blocked:
    """Work in a thread that ends when the test says so."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = asyncio.Event()
        self.may_end = threading.Event()
        self.ended = False
        self._loop = asyncio.get_running_loop()
        self._error = error

    def __call__(self) -> str:
        self._loop.call_soon_threadsafe(self.begun.set)
        assert self.may_end.wait(10)
        self.ended = True
        if self._error is not None:
            raise self._error
        return "done"


def test_result_and_error() -> None:
    """As `asyncio.to_thread`."""

    async def scenario() -> None:
        assert await to_end(int, "5") == 5
        with pytest.raises(ValueError, match="invalid"):
            await to_end(int, "x")

    run(scenario)


@pytest.mark.parametrize("error", [None, OSError("of the work")])
def test_who_is_cancelled_leaves_behind_the_work(error: Exception | None) -> None:
    """However often; what became of the work then is nobody's any more."""

    async def scenario() -> None:
        work = Blocked(error)
        waiting = asyncio.create_task(to_end(work))
        await work.begun.wait()
        for _ in range(3):
            waiting.cancel()
            await asyncio.sleep(0.01)
            assert not waiting.done()
        work.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert work.ended

    run(scenario)


@pytest.mark.parametrize(
    ("payload", "here"),
    [
        (MemoryPayload([bytes(MiB)]), True),
        (MemoryPayload([bytes(MiB), b"1"]), False),
        (JoinedPayload([MemoryPayload([b"1"])]), False),  # what lies in it may be a file
    ],
)
def test_short_work_needs_no_thread(payload: Payload, here: bool) -> None:
    """What is long, or has to be read from a disk, does not keep the event loop."""

    async def scenario() -> None:
        thread = await for_payload(payload, threading.current_thread)
        assert (thread is threading.current_thread()) is here

    run(scenario)
