"""Blocking work in threads that nobody leaves behind: a thread cannot be stopped, and needs what its caller holds for it."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def to_end(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """As `asyncio.to_thread`, but whoever is cancelled waits until the work is done, and leaves only then."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    cancelled = False
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        # Else it would be told as never retrieved.
        running.exception()
        raise asyncio.CancelledError
    return running.result()
