"""The hospital with TLS, and the event loops that a receiver's protocol must do with."""

import asyncio
from collections.abc import Iterator

import pytest
import uvloop

from tests.support.tls_site import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """The receiver runs on uvloop; its protocol must do with either."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner
