"""One codec for the tests of a module, on one event loop."""

import asyncio
from collections.abc import Iterator

import pytest

from workers.pixels.codec import Codec


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def codec(runner: asyncio.Runner) -> Iterator[Codec]:
    codec = Codec(memory=2 << 30, timeout=120)
    yield codec
    runner.run(codec.close())
