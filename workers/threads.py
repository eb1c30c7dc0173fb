"""Blocking work off the event loop: in a thread that nobody leaves behind, or not at all where a thread costs more.

A thread cannot be stopped, and needs what its caller holds for it.
"""

import asyncio
import contextvars
import sys
from collections.abc import Callable
from functools import partial
from typing import Final, ParamSpec, TypeVar

from workers.dataset.payload import MemoryPayload, Payload

P = ParamSpec("P")
R = TypeVar("R")

# Bytes in memory that are worked on without a thread: its turn costs about as much for an image, and the worst of a
# data set, elements without values, keeps the event loop for half a second.
_SHORT: Final = 1024 * 1024
# Seconds that a thread may keep the interpreter from others. Python's own five are long beside an instance without codec,
# and whoever hashes one gives the interpreter away each time: the event loop stood still while Kafka's client parsed.
_TURN: Final = 0.001


def take_short_turns() -> None:
    """To be called once by a process in which threads and the event loop both compute."""
    sys.setswitchinterval(_TURN)


async def to_end(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """As `asyncio.to_thread`, but whoever is cancelled waits until the work is done, and leaves only then."""
    context = contextvars.copy_context()
    # Not in a task of its own: each instance comes this way several times.
    running = asyncio.get_running_loop().run_in_executor(None, partial(context.run, work, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await _done(running)
        raise


async def _done(running: asyncio.Future[R]) -> None:
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            continue
    # Else it would be told as never retrieved.
    running.exception()


async def for_payload(payload: Payload, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Work that takes as long as ``payload`` is: here where that is short and in memory, else in a thread."""
    if isinstance(payload, MemoryPayload) and payload.size <= _SHORT:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)
