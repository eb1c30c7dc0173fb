"""TLS handshakes that stall, are too many, or are cut off: bounded, counted, and in nobody's way."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from ingest.contract.refusals import RefusalOf, read_refusals
from ingest.contract.settings import Settings
from ingest.receiver.metrics import ReceiverMetrics
from ingest.receiver.telemetry import Telemetry
from tests.support.asynchronous import until
from tests.support.memory_log import MemoryLog
from tests.support.scu import Scu, associate
from tests.support.tls_site import HOST, Site, associated, refused, serving


def test_a_stalled_handshake_ends_and_garbage_ends_at_once(site: Site, loop: asyncio.Runner) -> None:
    """Neither leaves anything behind."""

    async def ends(port: int, first: bytes) -> None:
        scu = await Scu.connect(port)
        await scu.send(first)
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(60):
                await scu.reader.read()

    async def scenario() -> None:
        async with serving(MemoryLog(), site.listener(), handshake_timeout=0.5) as (port, server):
            for stalled in (b"", b"\x16\x03\x01\x02\x00"):
                await ends(port, stalled)
            (handshakes,) = server.listeners._handshakes
            # No machine is so slow that what follows ends, or fails, by time.
            handshakes._settings = handshakes._settings.model_copy(update={"handshake_timeout": 600.0})
            for garbage in (b"GET / HTTP/1.1\r\n\r\n", associate()):
                await ends(port, garbage)
            assert not server.connections
            await until(lambda: not len(handshakes))
            await associated(port, site.client())

    loop.run(scenario())


def test_at_the_limit_of_handshakes_the_stalled_one_gives_way(
    site: Site, loop: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who stalls cannot keep others out, and there are never more than allowed."""

    async def scenario() -> None:
        limits = {"handshake_timeout": 120.0, "maximum_handshakes": 2}
        async with serving(MemoryLog(), site.listener(), **limits) as (port, server):
            (handshakes,) = server.listeners._handshakes
            stalled = [await Scu.connect(port) for _ in range(2)]
            await until(lambda: len(handshakes) == 2)
            monkeypatch.setattr("ingest.receiver.handshakes._GIVES_WAY", 3600.0)
            newest = await Scu.connect(port)  # young ones do not give way: the new one does
            assert await newest.reader.read() == b""
            monkeypatch.setattr("ingest.receiver.handshakes._GIVES_WAY", 0.0)
            await associated(port, site.client())
            assert await stalled[0].reader.read() == b""
            assert len(handshakes) == 1

    loop.run(scenario())


@pytest.mark.parametrize("setting", ["maximum_handshakes", "maximum_connections_per_address"])
def test_connections_that_are_closed_before_tls_are_counted(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """As those without TLS are: the new one at a limit, and the stalled one that gives way."""
    telemetry = Telemetry(Settings(data=tmp_path), ReceiverMetrics())
    monkeypatch.setattr("ingest.receiver.handshakes._GIVES_WAY", 3600.0)

    async def scenario() -> None:
        limits = {"handshake_timeout": 120.0, setting: 1}
        async with serving(MemoryLog(), site.listener(), telemetry=telemetry, **limits) as (port, server):
            telemetry.refusals.start()
            (handshakes,) = server.listeners._handshakes
            stalled = await Scu.connect(port)
            await until(lambda: len(handshakes) == 1)
            newest = await Scu.connect(port)
            assert await newest.reader.read() == b""
            if setting == "maximum_handshakes":
                monkeypatch.setattr("ingest.receiver.handshakes._GIVES_WAY", 0.0)
                await associated(port, site.client())
                assert await stalled.reader.read() == b""
            await telemetry.refusals.close()

    asyncio.run(scenario())
    refusals = 1 + (setting == "maximum_handshakes")
    found = [one for one in read_refusals(tmp_path) if one.refused == RefusalOf.CONNECTION]
    assert sum(one.times for one in found) == refusals
    assert found[0].address == HOST
    assert setting in found[0].remedy
    assert telemetry.metrics is not None
    assert telemetry.metrics.connections_refused.values() == [((), refusals)]


def test_a_receiver_that_stops_waits_for_no_handshake(site: Site, loop: asyncio.Runner) -> None:
    """Its port is free again, and who was shaking hands is let go."""

    async def scenario() -> None:
        async with serving(MemoryLog(), site.listener(), handshake_timeout=120.0) as (port, server):
            scu = await Scu.connect(port)
            Scu.forget(scu)
            await until(lambda: sum(map(len, server.listeners._handshakes)) == 1)
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(60):
                assert await scu.reader.read() == b""
        scu.writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, port)

    loop.run(scenario())


def test_connections_of_one_address_are_bounded(site: Site, loop: asyncio.Runner) -> None:
    """Plain and with TLS; who leaves makes room."""

    async def scenario() -> None:
        async with serving(MemoryLog(), site.listener(), maximum_connections_per_address=1) as (port, server):
            scu = await associated(port, site.client())
            await refused(port, site.client())
            plain = await Scu.connect(server.bound[0].port)
            assert await plain.reader.read() == b""
            scu.writer.close()
            await until(lambda: not server.connections)
            await Scu.associated(server.bound[0].port)

    loop.run(scenario())
