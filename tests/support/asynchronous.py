"""Coroutine functions as tests, and waiting in them."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import ParamSpec

P = ParamSpec("P")


def asynchronous(function: Callable[P, Coroutine[None, None, None]]) -> Callable[P, None]:
    """Run the test in an event loop of its own."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(function(*args, **kwargs))

    return run


async def until(condition: Callable[[], object], *running: asyncio.Future[None]) -> None:
    """Wait until something is so, for as long as none of ``running`` fails on the way there."""
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.005)
            for task in running:
                if task.done():
                    task.result()
