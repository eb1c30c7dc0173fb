"""Peers and logs that are in the way of others: the receiver bounds what each may cost."""

import asyncio
import contextlib
import time

import pytest

from ingest.association import State
from ingest.contract.records import MAX_PAYLOAD, Kind
from ingest.contract.settings import MiB
from ingest.dimse import CStoreRequest
from ingest.errors import OutOfResources
from ingest.receiver.connection import RECEIVE_BUFFER, SPARE_BUFFER, Connection
from ingest.receiver.server import Server
from tests.support.asynchronous import until
from tests.support.memory_log import MemoryLog
from tests.support.receiving import limit, operations, receiver, run, unsent
from tests.support.scu import (
    CT,
    RELEASE_RQ,
    Scu,
    associate,
    c_echo,
    c_store,
    ct_data_set,
    explicit,
    p_data,
    pdv,
)

UID = "1.2.826.1"


def held(server: Server) -> int:
    return sum(bool(connection._held) for connection in server.connections)


def size(connection: Connection) -> int:
    receiving = operations(connection).receiving
    return 0 if receiving is None else receiving.size


def test_who_waits_for_the_budget_learns_of_a_failure() -> None:
    """At the budget, when the log fails: everybody is answered A700H, also who waited for a chunk."""

    async def scenario() -> None:
        log = MemoryLog()
        log.hold = True
        async with receiver(log, buffer_budget=5 * MiB) as (port, server):
            scus = [await Scu.associated(port) for _ in range(2)]
            message = c_store(UID, ct_data_set(UID, 4 * MiB))
            for start, end in ((0, 1_200_000), (1_200_000, len(message))):  # two of four chunks each
                for scu in scus:
                    scu.writer.write(message[start:end])
                    await asyncio.sleep(0.1)
            await until(lambda: all(operations(connection)._rest for connection in server.connections))
            log.failure = OutOfResources("disk full")
            log.fail()
            assert {(await scu.response()).status for scu in scus} == {0xA700}
            log.failure, log.hold = None, False
            assert {(await scu.store(UID)).status for scu in scus} == {0}

    run(scenario())


def test_nobody_reads_what_has_no_room() -> None:
    """Who has as much with the log as one may keeps next to nothing beside the budget, whatever its peer has sent."""

    async def scenario() -> None:
        log = MemoryLog()
        log.hold = True
        async with receiver(log, buffer_budget=16 * MiB) as (port, server):
            message = c_store(UID, ct_data_set(UID, 7 * MiB))
            scus = [await Scu.associated(port) for _ in range(3)]  # four chunks each, of fourteen
            for scu in scus:
                scu.writer.write(message)
            await until(lambda: held(server) == len(scus))
            for connection in server.connections:
                unread = connection.association._buffer
                rest = operations(connection)._rest
                assert unread._end - unread._at + (len(rest.data) if rest else 0) <= SPARE_BUFFER
            log.hold = False
            log.acknowledge()
            assert {(await scu.response()).status for scu in scus} == {0}
            assert log.instances()[UID][1] == ct_data_set(UID, 7 * MiB)

    run(scenario())


def test_a_waiter_that_leaves_passes_its_turn_on() -> None:
    """A chunk that comes free for a peer that is gone by then goes to the next that waits."""

    async def scenario() -> None:
        log = MemoryLog()
        log.hold = True
        async with receiver(log, buffer_budget=5 * MiB) as (port, server):
            scus = []
            for number in range(6):  # four chunks: two wait
                scus.append(scu := await Scu.associated(port))
                uid = f"1.2.3.{number}"
                await scu.send(c_store(uid, ct_data_set(uid, 500_000)))
                await until(lambda: held(server) > number)  # noqa: B023 - awaited within the round
            first = next(
                connection for connection in server.connections if operations(connection)._rest is not None
            )
            server.pool.release(memoryview(bytearray(960 * 1024)))  # the first waiter is called ...
            first.abort("gone")  # ... and is gone before its turn
            log.hold = False
            answers = await asyncio.gather(*(scu.pdu() for scu in scus[4:]))
            assert sorted(kind for kind, _ in answers) == [4, 7]
            log.acknowledge()

    run(scenario())


def test_nobody_parks_more_than_a_little_outside_the_budget() -> None:
    """A data set that does not come to its SOP Instance UID is not copied aside: at the budget it is refused."""

    async def scenario() -> None:
        log = MemoryLog()
        head = explicit(0x08, 0x06, b"SQ", bytes(600_000)) + ct_data_set(UID)
        async with receiver(log, buffer_budget=4 * MiB) as (port, server):
            endless = [await Scu.associated(port) for _ in range(server.pool._unmade)]
            for scu in endless:
                await scu.send(c_store(UID, head)[:400_000])
            await until(lambda: not server.pool.free)
            good = await Scu.associated(port)
            assert (await good.store(UID, ct_data_set(UID, 2 * MiB))).status == 0
            for scu in endless:
                await scu.send(c_store(UID, head)[400_000:])
            answers = [(await scu.response()).status for scu in endless]
            assert set(answers) <= {0, 0xA700}
            assert 0xA700 in answers

    run(scenario())


def test_fragments_of_no_bytes() -> None:
    """A flood of PDVs without a byte, as commands, within a data set and around it, changes nothing."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log) as (port, _):
            scu = await Scu.associated(port)
            data_set = ct_data_set(UID, 100_000)
            command = CStoreRequest(1, CT, UID).encode()
            nothing = pdv(b"", command=False, last=False) * 20_000
            await scu.send(pdv(b"", command=True, last=False) * 20_000)
            await scu.send(p_data(command, command=True) + nothing)
            await scu.send(pdv(data_set[:50_000], command=False, last=False) + nothing)
            await scu.send(pdv(data_set[50_000:], command=False, last=False) + nothing)
            await scu.send(pdv(b"", command=False, last=True))
            assert (await scu.response()).status == 0
            await scu.release()
        assert log.instances()[UID][1] == data_set

    run(scenario())


def test_a_flood_of_echoes_leaves_others_their_turn() -> None:
    """Thousands of C-ECHOs that come at once are answered in turns: an instance that comes after them is stored between."""

    async def scenario() -> None:
        count = 3000
        async with receiver(MemoryLog()) as (port, server):
            flood, other, good = [await Scu.associated(port) for _ in range(3)]
            echoes = c_echo() * count
            for scu in (flood, other):
                scu.writer.write(echoes)
            good.writer.write(c_store(UID, ct_data_set(UID)))
            assert (await good.response()).status == 0
            # What a connection keeps meanwhile is little, whoever else does the same.
            kept = [c.association._buffer._end - c.association._buffer._at for c in server.connections]
            assert sorted(kept)[-2] <= SPARE_BUFFER
            assert server.turns > 0, "the flood was answered before"
            for scu in (flood, other):
                for _ in range(count):
                    assert (await scu.pdu())[0] == 4
                await scu.release()
            await until(lambda: not server.turns)
            assert (await good.store(UID)).status == 0

    run(scenario())


def test_a_flood_without_association_leaves_others_their_turn() -> None:
    """Before an association and after it, as when it is rejected or aborted, little is read at once: none of it is an event."""

    async def scenario() -> None:
        nothing = (b"\x04" + bytes(5)) * 40_000
        async with receiver(MemoryLog()) as (port, server):
            good = await Scu.associated(port)
            (established,) = server.connections
            assert len(established.get_buffer(-1)) == RECEIVE_BUFFER
            rejected, aborted = await Scu.connect(port), await Scu.associated(port)
            await rejected.send(associate(called="NOBODY"))
            assert (await rejected.pdu())[0] == 3
            await aborted.send(associate())
            assert (await aborted.pdu())[0] == 7
            for scu in (rejected, aborted):
                scu.writer.write(nothing)
            over = server.connections - {established}
            assert [len(connection.get_buffer(-1)) for connection in over] == [SPARE_BUFFER] * 2
            assert (await good.store(UID)).status == 0
            assert server.connections >= over

    run(scenario())


def test_requests_that_are_not_whole_have_a_bound_together() -> None:
    """Who has sent most without an association makes room: an honest request, though slow, is answered."""

    async def scenario() -> None:
        async with receiver(MemoryLog(), associate_budget=2 * MiB) as (port, server):
            honest = await Scu.connect(port)
            await honest.send(associate()[:-1])
            await until(lambda: server._requested > 0)
            greedy = [await Scu.connect(port) for _ in range(8)]
            for scu in greedy:
                scu.writer.write(b"\1\0" + (900_000).to_bytes(4, "big") + bytes(800_000))
            await until(lambda: len(server.connections) == 3)
            kept = [len(connection.association._buffer._held) for connection in server.connections]
            assert sum(kept) <= server._requested <= 2 * MiB
            await honest.send(associate()[-1:])
            assert (await honest.pdu())[0] == 2
            assert (await honest.store(UID)).status == 0
        assert server._requested == 0

    run(scenario())


def test_an_instance_is_not_aborted_for_what_it_waited_for_the_log() -> None:
    """A slow log that keeps a peer waiting for longer than an upload may last is none of its peer's fault."""

    async def scenario() -> None:
        log = MemoryLog()
        log.hold = True
        async with receiver(log, buffer_budget=4 * MiB, maximum_upload_duration=3.0) as (port, server):
            scu = await Scu.associated(port)
            data_set = ct_data_set(UID, 7 * MiB)
            message = c_store(UID, data_set)
            scu.writer.write(message[:-100])
            await until(lambda: held(server) == 1)
            (connection,) = server.connections
            await until(lambda: time.monotonic() - connection.clock.begun > 3.5)
            log.hold = False
            log.acknowledge()
            await until(lambda: size(connection) == len(data_set) - 100)
            connection.watch(time.monotonic(), late=False)
            await scu.send(message[-100:])
            assert (await scu.response()).status == 0

    run(scenario())


def test_what_comes_after_the_end_is_no_request() -> None:
    """An aborted peer that has yet to read of it may go on sending (PS3.8, Sta13): nothing is kept, nobody refused."""

    async def scenario() -> None:
        async with receiver(MemoryLog(), associate_budget=1 * MiB) as (port, server):
            scu = await Scu.associated(port)
            await scu.send(pdv(b"", command=False, last=True))  # no data set was announced: A-ABORT
            (connection,) = server.connections
            await until(lambda: connection.association.state is State.AWAITING_CLOSE)
            for _ in range(80):
                await scu.send(p_data(bytes(64 * 1024), command=False))
            assert (await scu.pdu())[0] == 7
            assert server.connections == {connection}
            assert server._requested == 0

    run(scenario())


async def held_up(rounds: int) -> None:
    """Keep the event loop from its sockets and timers, as a machine that stands still does."""
    for _ in range(rounds):
        time.sleep(0.8)  # noqa: ASYNC251 - the point of it
        await asyncio.sleep(0)


def test_no_peer_pays_for_our_own_lateness() -> None:
    """What came in time, and was not read because the process stood still, is no silence."""

    async def scenario() -> None:
        async with receiver(MemoryLog(), stall_timeout=2.0, idle_timeout=2.0) as (port, _):
            idle, sending = await Scu.associated(port), await Scu.associated(port)
            message = c_store(UID, ct_data_set(UID))
            await sending.send(message[:100])
            held = asyncio.create_task(held_up(5))
            # The look at the clocks has become due, and comes before the loop's next look at its sockets.
            for _ in range(2):
                await asyncio.sleep(0)
            idle.writer.write(c_echo())
            sending.writer.write(message[100:])
            await held
            assert (await idle.pdu())[0] == 4
            assert (await sending.response()).status == 0

    run(scenario())


def test_a_command_that_comes_in_pieces_after_a_long_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a message begins with it, not with the association or the message before."""
    monkeypatch.setattr("ingest.receiver.server.WATCH_INTERVAL", 0.05)

    async def scenario() -> None:
        async with receiver(
            MemoryLog(), maximum_upload_duration=2.5, stall_timeout=2.5, minimum_rate=100
        ) as (port, _):
            scu = await Scu.associated(port)
            for silence in (0.0, 2.7):
                await asyncio.sleep(silence)
                message = c_store(UID, ct_data_set(UID))
                await scu.send(message[:40])
                await asyncio.sleep(0.3)
                await scu.send(message[40:])
                assert (await scu.response()).status == 0
            await scu.release()

    run(scenario())


@pytest.mark.parametrize("then", ["stays", "releases", "half-closes", "breaks", "stops early"])
def test_a_peer_that_never_reads_is_dropped(then: str) -> None:
    """Answers that nobody reads do not pin the association, its memory or the stop of the process."""

    async def scenario() -> None:
        async with receiver(MemoryLog(), stall_timeout=0.5) as (port, server):
            scu = await Scu.associated(port)
            limit(server, idle_timeout=0.5, artim_timeout=0.5)
            scu.read_nothing()
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(60):
                    while server.connections:
                        await scu.send(c_echo() * (50 if then == "stops early" else 2000))
                        await asyncio.sleep(0.002)  # the receiver has its turn after each
                        if then == "stops early" and any(map(unsent, server.connections)):
                            break
                        if then == "releases":
                            await scu.send(RELEASE_RQ)
                        elif then == "breaks":
                            await scu.send(associate() * 20_000)
                        elif then == "half-closes":
                            scu.writer.write_eof()
                            break
            async with asyncio.timeout(60):
                await server.unused.wait()
            assert server.admission.associations == 0

    run(scenario())


def test_slow_peer_is_heard_of_in_time() -> None:
    """A large instance that trickles in is published piece by piece: the log gives up an upload that pauses."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log, stall_timeout=2.0) as (port, _):
            scu = await Scu.associated(port)
            data_set = ct_data_set(UID, MAX_PAYLOAD + 200_000)
            message = c_store(UID, data_set)
            cut = len(message) - 150_000
            await scu.send(message[:cut])
            await until(lambda: len(log.records) == 2)  # the second one by time
            await scu.send(message[cut:])
            assert (await scu.response()).status == 0
        assert log.kinds() == [Kind.PART] * 3 + [Kind.END]
        assert log.instances()[UID][1] == data_set

    run(scenario())


def test_log_that_is_away_rejects_associations() -> None:
    """Where a new association would only wait, its peer is told to come again (PS3.8 9.3.4)."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log) as (port, _):
            scu = await Scu.associated(port)
            log.away = True
            other = await Scu.connect(port)
            await other.send(associate())
            assert await other.pdu() == (3, bytes([0, 2, 3, 1]))
            log.away = False
            assert (await scu.store(UID)).status == 0
            await (await Scu.associated(port)).release()

    run(scenario())
