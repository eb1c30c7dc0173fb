"""Coroutine functions as tests."""

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
