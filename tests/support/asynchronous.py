"""Coroutine functions as tests, and waiting in them."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import ParamSpec, TypeVar

from tests.support.scu import closing

P = ParamSpec("P")
T = TypeVar("T")


def asynchronous(function: Callable[P, Coroutine[None, None, None]]) -> Callable[P, None]:
    """Run the test in an event loop of its own; what it leaves open is closed, also where it fails."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(closing(function(*args, **kwargs)))

    return run


def at_once(coroutine: Coroutine[None, None, T]) -> T:
    """What a coroutine returns that, all around it being simulated, never really waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the simulation has nothing to wait for")


async def until(condition: Callable[[], object], *running: asyncio.Future[None]) -> None:
    """Wait until something is so, for as long as none of ``running`` fails on the way there."""
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.005)
            for task in running:
                if task.done():
                    task.result()
