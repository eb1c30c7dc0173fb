"""How associations end, each way once: counted, one line, and in the ledger nothing, since nothing was received."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
from structlog.testing import capture_logs

from ingest.contract.monitoring.exposition import Exposition
from ingest.contract.settings import Settings
from ingest.receiver.metrics import ReceiverMetrics
from ingest.receiver.server import Server
from ingest.receiver.telemetry import _ENDS, Telemetry
from tests.support.admin import Samples, parsed
from tests.support.asynchronous import until
from tests.support.memory_log import MemoryLog
from tests.support.receiving import limit, receiver
from tests.support.scu import ABORT, Scu, associate, c_echo, c_store, ct_data_set
from tests.support.telling import counts, events

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)

UID = "1.2.826.1"
PART = c_store(UID, ct_data_set(UID))[:-300]  # a message that does not come to its end
Peer = Callable[[Scu, Server], Coroutine[None, None, None]]


async def release(scu: Scu, _: Server) -> None:
    await scu.release()


async def close(scu: Scu, _: Server) -> None:
    await scu.close()


async def abort(scu: Scu, _: Server) -> None:
    await scu.send(ABORT)


async def ask_twice(scu: Scu, _: Server) -> None:
    await scu.send(associate())


async def wait(scu: Scu, _: Server) -> None:
    await scu.pdu(120)


async def wait_within_a_message(scu: Scu, _: Server) -> None:
    await scu.send(PART)
    await scu.pdu(120)


async def drip(scu: Scu, server: Server) -> None:
    """Never silent, and never done."""
    await scu.send(PART[:1000])
    with contextlib.suppress(ConnectionError):
        for at in range(1000, len(PART)):
            await scu.send(PART[at : at + 1])
            await asyncio.sleep(0.05)
            if not server.connections:
                break


async def send_only(scu: Scu, server: Server) -> None:
    scu.read_nothing()
    with contextlib.suppress(ConnectionError):
        while server.connections:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await scu.send(c_echo() * 2000)
            await asyncio.sleep(0.002)


async def stay(_: Scu, server: Server) -> None:
    await server.drain()


class Way(NamedTuple):
    """What a peer does, with limits by which it is judged, and whether it ends within a message."""

    peer: Peer
    limits: dict[str, Any]
    interrupted: bool = False


WAYS: Final = {
    "released": Way(release, {}),
    "closed": Way(close, {}),
    "aborted-by-peer": Way(abort, {}),
    "protocol-error": Way(ask_twice, {}),
    "shutdown": Way(stay, {}),
    "idle": Way(wait, {"idle_timeout": 0.3}),
    "stalled": Way(wait_within_a_message, {"stall_timeout": 0.3}, interrupted=True),
    "too-slow": Way(drip, {"stall_timeout": 3.0, "minimum_rate": 100_000}, interrupted=True),
    "too-long": Way(drip, {"maximum_upload_duration": 0.5}, interrupted=True),
    "does-not-read": Way(send_only, {"stall_timeout": 0.5, "idle_timeout": 0.5}),
}


class Told(NamedTuple):
    """All that was said."""

    metrics: Samples
    lines: list[dict[str, Any]]
    received: int  # in the logs


@asynccontextmanager
async def one_peer(telemetry: Telemetry, way: Way, log: MemoryLog) -> AsyncIterator[None]:
    async with receiver(log, telemetry=telemetry, **way.limits) as (port, server):
        scu = await Scu.associated(port)
        limit(server, artim_timeout=0.5)
        ending = asyncio.create_task(way.peer(scu, server))
        await until(lambda: not server.connections)
        yield
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    data: Path = tmp_path_factory.mktemp("endings")
    settings = Settings.model_validate({"data": data, "sources": {"ct-1": {"ae_titles": ["TESTER"]}}})
    telemetry = Telemetry(settings, ReceiverMetrics())
    logs = [MemoryLog() for _ in WAYS]

    async def scenario() -> None:
        # All at once: they mostly wait; no peer is closed before all have ended.
        async with AsyncExitStack() as stack:
            peers = [one_peer(telemetry, way, log) for way, log in zip(WAYS.values(), logs, strict=True)]
            await asyncio.gather(*map(stack.enter_async_context, peers))

    with capture_logs() as lines:
        asyncio.run(scenario())
    assert telemetry.metrics is not None
    text, _ = Exposition(telemetry.metrics.instruments).text("")
    return Told(
        parsed(text.decode()), [dict(line) for line in lines], sum(len(log.instances()) for log in logs)
    )


def test_no_ending_is_left_out() -> None:
    """Each word that the product has for one."""
    assert WAYS.keys() == {*_ENDS.values(), "protocol-error"}


def test_each_is_counted_once_and_nothing_else(told: Told) -> None:
    """And the instances that it interrupts."""
    assert counts(told.metrics, "associations_ended_total") == {(end, "ct-1"): 1 for end in WAYS}
    interrupted = sum(way.interrupted for way in WAYS.values())
    assert counts(told.metrics, "received_instances_total") == {("interrupted", "ct-1"): interrupted}


def test_each_has_one_line(told: Told) -> None:
    """Of its own association, and no warning beside: nothing was acknowledged, nothing is lost."""
    ended = events(told.lines, "association ended")
    assert Counter(_ENDS.get(line["how"], "protocol-error") for line in ended) == dict.fromkeys(WAYS, 1)
    assert len({line["association"] for line in ended}) == len(WAYS)
    assert all(line["received"] == 0 and line["source"] == "ct-1" for line in ended)


def test_none_leaves_a_row(told: Told) -> None:
    """The log, of which the ledger is made, has no instance of them."""
    assert told.received == 0
