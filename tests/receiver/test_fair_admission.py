"""Associations and connections at their limits: who still gets one."""

import asyncio
import functools
import struct
from typing import Any

import pytest

from ingest.contract.settings import MiB, SourceSettings
from ingest.dimse import CStoreRequest
from ingest.receiver import server as server_module
from tests.support.asynchronous import until
from tests.support.memory_log import MemoryLog
from tests.support.receiving import operations, receiver, run
from tests.support.scu import CT, RELEASE_RQ, Scu, associate, ct_data_set, p_data, pdv


def sources(**priorities: str) -> dict[str, SourceSettings]:
    return {
        name: SourceSettings.model_validate({"ae_titles": (name.upper(),), "priority": priority})
        for name, priority in priorities.items()
    }


async def answer(port: int, calling: str) -> int:
    """The type of the PDU that answers: 2 accepted, 3 rejected."""
    scu = await Scu.connect(port)
    await scu.send(associate(calling=calling))
    return (await scu.pdu())[0]


def test_the_last_associations_are_for_those_below_their_share() -> None:
    """One source takes what is free, but not the reserve once it has its part; another still gets in, and a third."""

    async def scenario() -> None:
        known = sources(greedy="medium", other="medium", third="low")
        async with receiver(
            MemoryLog(), sources=known, maximum_associations=20, association_reserve=0.25
        ) as (port, server):
            greedy = [await answer(port, "GREEDY") for _ in range(25)]
            assert greedy == [2] * 20 + [3] * 5  # alone it may have all

            for connection in list(server.connections):
                connection.abort("test")
            await until(lambda: server.admission.associations == 0)
            assert await answer(port, "OTHER") == 2
            greedy = [await answer(port, "GREEDY") for _ in range(25)]
            assert greedy.count(2) == 14  # all but the reserve and the other's one
            assert [await answer(port, "THIRD") for _ in range(2)] == [2, 2]
            assert await answer(port, "GREEDY") == 3
            assert await answer(port, "OTHER") == 2

    run(scenario())


def test_priority_weighs() -> None:
    """Of the reserve a source of high priority may have more than one of low."""

    async def scenario() -> None:
        known = sources(high="high", low="low")
        async with receiver(MemoryLog(), sources=known, maximum_associations=34, association_reserve=1.0) as (
            port,
            _,
        ):
            assert await answer(port, "HIGH") == 2
            assert [await answer(port, "LOW") for _ in range(4)] == [2, 2, 3, 3]  # 34 * 1 / 17
            assert {await answer(port, "HIGH") for _ in range(31)} == {2}
            assert await answer(port, "HIGH") == 3

    run(scenario())


def test_who_says_nothing_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit of connections the oldest without an association goes; associations stay."""
    monkeypatch.setattr(server_module, "GIVES_WAY", 0.0)

    async def scenario() -> None:
        async with receiver(MemoryLog(), maximum_connections=4) as (port, server):
            good = await Scu.associated(port)
            silent = [await Scu.connect(port) for _ in range(3)]
            await until(lambda: len(server.connections) == 4)
            late = await Scu.associated(port)
            async with asyncio.timeout(60):
                assert await silent[0].reader.read() == b""
            assert (await good.store("1.2.3")).status == 0
            assert (await late.store("1.2.4")).status == 0
            assert not silent[1].reader.at_eof()

    run(scenario())


@pytest.mark.parametrize("end", [(RELEASE_RQ, 6), (associate(), 7)], ids=["released", "aborted"])
def test_who_does_not_close_gives_way(monkeypatch: pytest.MonkeyPatch, end: tuple[bytes, int]) -> None:
    """At the limit of connections one whose association is over goes: it is not held open until ARTIM ends it."""
    monkeypatch.setattr(server_module, "GIVES_WAY", 0.0)
    last, answered = end

    async def scenario() -> None:
        async with receiver(MemoryLog(), maximum_connections=2, artim_timeout=3600.0) as (port, server):
            good = await Scu.associated(port)
            over = await Scu.associated(port)
            await over.send(last)
            assert (await over.pdu())[0] == answered
            late = await Scu.associated(port)
            async with asyncio.timeout(60):
                assert await over.reader.read() == b""
            assert (await good.store("1.2.3")).status == 0
            await late.close()
            await until(lambda: len(server.connections) == 1)
            assert not server._silent

    run(scenario())


def test_who_has_just_come_does_not_give_way() -> None:
    """Within the first second the new one is closed instead, so that a burst does not turn all out."""

    async def scenario() -> None:
        async with receiver(MemoryLog(), maximum_connections=2) as (port, server):
            first = [await Scu.associated(port) for _ in range(2)]
            late = await Scu.connect(port)
            async with asyncio.timeout(60):
                assert await late.reader.read() == b""
            assert {(await scu.store(f"1.2.{number}")).status for number, scu in enumerate(first)} == {0}
            assert len(server.connections) == 2

    run(scenario())


def test_a_flood_with_all_it_wants_leaves_another_a_chunk() -> None:
    """While both send, the flood's waiting associations hold nothing, and all of both are stored whole."""

    async def scenario() -> None:
        log = MemoryLog()
        known = sources(flood="medium", small="medium")
        async with receiver(log, sources=known, buffer_budget=8 * MiB) as (port, server):
            small = await Scu.associated(port, calling="SMALL")
            assert (await small.store("1.3.0")).status == 0  # it is active
            log.hold = True
            flood = [await Scu.associated(port, calling="FLOOD") for _ in range(20)]
            sending = [
                asyncio.create_task(scu.store(f"1.2.{number}", ct_data_set(f"1.2.{number}", 2 * MiB)))
                for number, scu in enumerate(flood)
            ]
            share = server.shares.of("flood")
            await until(lambda: len(share.waiting) == 20 - len(share.filling) and share.queued > 0)
            assert share.queued <= 2 * MiB
            assert server.pool.free
            waiting = asyncio.create_task(small.store("1.3.1", ct_data_set("1.3.1", 500_000)))
            await until(lambda: server.shares.of("small").queued > 0)
            log.hold = False
            log.acknowledge()
            assert (await waiting).status == 0
            assert {(await one).status for one in sending} == {0}
            found = log.instances()
            assert all(
                found[f"1.2.{number}"][1] == ct_data_set(f"1.2.{number}", 2 * MiB) for number in range(20)
            )
            assert server.shares.waiting == 0

    run(scenario())


def test_those_who_drip_take_no_chunks_from_one_another() -> None:
    """More of them than chunks: what little each sends waits beside the budget, and is no record each time; all are stored whole."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log, buffer_budget=4 * MiB) as (port, server):

            def all_have(size: int) -> bool:
                receiving = [operations(connection).receiving for connection in server.connections]
                return all(each is not None and each.size == size for each in receiving)

            sent = {f"1.2.{number}": ct_data_set(f"1.2.{number}", 1000) for number in range(20)}
            assert len(sent) > 2 * server.pool._unmade
            dripping = [(await Scu.associated(port), uid, data) for uid, data in sent.items()]
            for scu, uid, data in dripping:
                await scu.send(p_data(CStoreRequest(1, CT, uid).encode(), command=True))
                await scu.send(pdv(data[:600], command=False, last=False))
            for at in range(600, 640, 2):
                for scu, _, data in dripping:
                    await scu.send(pdv(data[at : at + 2], command=False, last=False))
                await until(functools.partial(all_have, at + 2))
            assert len(log.records) <= len(sent)
            for scu, _, data in dripping:
                await scu.send(p_data(data[640:], command=False))
                assert (await scu.response()).status == 0
            assert {uid: found[1] for uid, found in log.instances().items()} == sent

    run(scenario())


@pytest.mark.parametrize(
    ("setting", "sent"), [("maximum_associate_length", 4096), ("maximum_command_length", 1024)]
)
def test_what_is_kept_until_it_is_whole_has_its_limit(setting: str, sent: int) -> None:
    """An A-ASSOCIATE PDU and a command set: one byte more than the setting is an abort, before it has come."""

    async def scenario() -> None:
        limit: dict[str, Any] = {setting: sent}
        async with receiver(MemoryLog(), **limit) as (port, _):
            if setting == "maximum_associate_length":
                scu = await Scu.connect(port)
                await scu.send(struct.pack(">BxI", 1, sent + 1))
            else:
                scu = await Scu.associated(port)
                await scu.send(pdv(bytes(sent + 2), command=True, last=False))
            assert (await scu.pdu())[0] == 7
            assert (await (await Scu.associated(port)).store("1.2.3")).status == 0

    run(scenario())
