"""N-EVENT-REPORT on the association of the N-ACTION, over a real socket (PS3.4 J.3.3.1.2)."""

import asyncio

import pytest

from ingest.contract.commitments import Finding, Reference
from ingest.contract.settings import CommitmentSettings, MiB
from ingest.dimse import CStoreResponse, NActionResponse, NEventReportRequest
from ingest.dimse.commitment_report import Report, parse_report
from ingest.dimse.commitment_request import encode_request
from tests.support.asynchronous import until
from tests.support.commitment_engine import Asked, Engine
from tests.support.memory_log import MemoryLog
from tests.support.receiving import limit, operations, receiver, run, unsent
from tests.support.scu import (
    ABORT,
    COMMITMENT,
    COMMITMENT_INSTANCE,
    CT,
    RELEASE_RQ,
    Scu,
    c_store,
    ct_data_set,
    n_action,
    p_data,
)

UIDS = [f"1.2.826.1.{number}" for number in range(5)]
QUICK = CommitmentSettings(answer_timeout=1.5)


async def committed(scu: Scu, engine: Engine, message: bytes | None = None) -> Asked:
    """An N-ACTION, answered with success."""
    await scu.send(n_action(UIDS) if message is None else message)
    answer, _, _ = await scu.message()
    assert isinstance(answer, NActionResponse)
    assert answer.status == 0
    return engine.asked[-1]


async def report_of(scu: Scu, *, explicit: bool = True) -> tuple[NEventReportRequest, Report, list[int]]:
    """The next message, which is a report."""
    message, data_set, lengths = await scu.message()
    assert isinstance(message, NEventReportRequest)
    assert message.affected_sop_class_uid == COMMITMENT
    assert message.affected_sop_instance_uid == COMMITMENT_INSTANCE
    return message, parse_report(data_set, explicit=explicit, maximum=100_000), lengths


def respond(message: NEventReportRequest, status: int = 0, context_id: int = 5) -> bytes:
    return p_data(message.respond(status).encode(), command=True, context_id=context_id)


@pytest.mark.parametrize(("context_id", "explicit"), [(5, True), (7, False)])
def test_report_and_its_response(context_id: int, explicit: bool) -> None:
    """Event types 1 and 2 in the syntax of the request's context, each with a message ID of its own."""

    async def scenario() -> None:
        engine = Engine()
        async with receiver(MemoryLog(), engine) as (port, _):
            scu = await Scu.committing(port)
            asked = await committed(scu, engine, n_action(UIDS, context_id=context_id, explicit=explicit))
            task = asyncio.create_task(asked.report())
            first, report, _ = await report_of(scu, explicit=explicit)
            assert first.event_type_id == 1
            assert report == Report("2.25.1", [Reference(CT, uid) for uid in UIDS], [])
            await scu.send(respond(first, context_id=context_id))
            assert await task == 0
            task = asyncio.create_task(asked.report({UIDS[3]: Finding.ABSENT}, "ARCHIVE"))
            second, report, _ = await report_of(scu, explicit=explicit)
            assert second.event_type_id == 2
            assert second.message_id != first.message_id
            assert report.retrieve_ae_title == "ARCHIVE"
            assert report.failed == [(CT, UIDS[3], 0x0112)]
            await scu.send(respond(second, 0x0110, context_id=context_id))
            assert await task == 0x0110
            await scu.release()

    run(scenario())


@pytest.mark.parametrize("maximum_length", [1024, 16384, 0])
def test_fragments_fit_the_peer(maximum_length: int) -> None:
    """No PDU is longer than the peer announced, however long the report is."""

    async def scenario() -> None:
        engine = Engine()
        uids = [f"1.2.826.0.1.3680043.8.498.{number}" for number in range(3000)]
        async with receiver(MemoryLog(), engine) as (port, _):
            scu = await Scu.committing(port, maximum_length)
            asked = await committed(scu, engine, n_action(uids))
            task = asyncio.create_task(asked.report())
            message, report, lengths = await report_of(scu)
            assert len(report.committed) == 3000
            assert max(lengths) <= (maximum_length or 131_072)
            await scu.send(respond(message))
            assert await task == 0
            await scu.release()

    run(scenario())


def test_peer_that_takes_a_few_bytes_at_a_time() -> None:
    """A report that would take too many fragments is not sent; the association goes on."""

    async def scenario() -> None:
        engine = Engine()
        uids = [f"1.2.826.0.1.3680043.8.498.{number}" for number in range(3000)]
        async with receiver(MemoryLog(), engine) as (port, _):
            scu = await Scu.committing(port, 8)
            await scu.send(n_action(uids))
            await scu.message()
            assert await engine.asked[0].report() is None
            assert await engine.asked[0].report() is None
            await scu.release()

    run(scenario())


def test_report_before_the_answer_to_its_request() -> None:
    """An engine that is done at once does not overtake its own N-ACTION-RSP."""

    async def scenario() -> None:
        engine = Engine(hold=True)
        async with receiver(MemoryLog(), engine) as (port, _):
            scu = await Scu.committing(port)
            await scu.send(n_action(UIDS))
            await until(lambda: bool(engine.asked))
            task = asyncio.create_task(engine.asked[0].report())
            with pytest.raises(TimeoutError):
                await scu.pdu(seconds=0.2)
            engine.let_go.set()
            answer, _, _ = await scu.message()
            assert isinstance(answer, NActionResponse)
            message, _, _ = await report_of(scu)
            await scu.send(respond(message))
            assert await task == 0

    run(scenario())


def test_report_waits_for_the_message_in_progress() -> None:
    """In the middle of an instance nothing is sent; its response goes first."""

    async def scenario() -> None:
        engine, log = Engine(), MemoryLog()
        async with receiver(log, engine) as (port, server):
            scu = await Scu.committing(port)
            asked = await committed(scu, engine)
            message = c_store(UIDS[0], ct_data_set(UIDS[0], 100_000))
            await scu.send(message[:50_000])
            (connection,) = server.connections
            await until(lambda: operations(connection).in_message)
            task = asyncio.create_task(asked.report())
            log.hold = True
            await scu.send(message[50_000:])
            with pytest.raises(TimeoutError):
                await scu.pdu(seconds=0.2)
            log.acknowledge()
            assert (await scu.response()).status == 0
            report, _, _ = await report_of(scu)
            await scu.send(respond(report))
            assert await task == 0

    run(scenario())


def test_peer_goes_on_while_its_report_is_unanswered() -> None:
    """C-STORE and N-ACTION are served between a report and its response."""

    async def scenario() -> None:
        engine = Engine()
        async with receiver(MemoryLog(), engine) as (port, _):
            scu = await Scu.committing(port)
            asked = await committed(scu, engine)
            task = asyncio.create_task(asked.report())
            first, _, _ = await report_of(scu)
            assert (await scu.store(UIDS[0], ct_data_set(UIDS[0], 2 * MiB))).status == 0
            again = await committed(scu, engine, n_action(UIDS[:1], transaction_uid="2.25.2"))
            other = asyncio.create_task(again.report())
            # PS3.7 D.3.3.3: one operation at a time, so the second waits for the response to the first.
            with pytest.raises(TimeoutError):
                await scu.pdu(seconds=0.2)
            await scu.send(respond(first))
            assert await task == 0
            second, report, _ = await report_of(scu)
            assert report.transaction_uid == "2.25.2"
            await scu.send(respond(first) + respond(second, 0x0213))  # the first once more: nobody asked
            assert await other == 0x0213
            await scu.release()

    run(scenario())


@pytest.mark.parametrize("sent", [True, False], ids=["unanswered", "waiting"])
@pytest.mark.parametrize("how", ["release", "abort", "close", "drain"])
def test_end_of_the_association(how: str, sent: bool) -> None:
    """However it ends, who reports learns at once, and later reports too."""

    async def scenario() -> None:
        engine = Engine()
        async with receiver(MemoryLog(), engine, drain_timeout=0.3) as (port, server):
            scu = await Scu.committing(port)
            asked = await committed(scu, engine)
            first = asyncio.create_task(asked.report())
            await report_of(scu)
            task = first if sent else asyncio.create_task(asked.report())
            await asyncio.sleep(0)
            if how == "drain":
                await server.drain()
            elif how == "close":
                await scu.close()
            else:
                await scu.send(RELEASE_RQ if how == "release" else ABORT)
            async with asyncio.timeout(60):
                assert await task is None
                assert await first is None
                assert await asked.report() is None
            if how == "release":
                assert (await scu.pdu())[0] == 6

    run(scenario())


def test_no_answer() -> None:
    """After the timeout there is no status, and no further report on this association; all else goes on."""

    async def scenario() -> None:
        engine = Engine()
        async with receiver(MemoryLog(), engine, QUICK) as (port, _):
            scu = await Scu.committing(port)
            asked = await committed(scu, engine)
            task = asyncio.create_task(asked.report())
            late, _, _ = await report_of(scu)
            assert await task is None
            assert await asked.report() is None
            await scu.send(respond(late))
            assert (await scu.store(UIDS[0])).status == 0
            await scu.release()

    run(scenario())


def test_association_that_is_never_idle() -> None:
    """A report whose turn does not come in time is not sent, and the next may be."""

    async def scenario() -> None:
        engine = Engine()
        async with receiver(MemoryLog(), engine, QUICK) as (port, _):
            scu = await Scu.committing(port)
            asked = await committed(scu, engine)
            message = c_store(UIDS[0], ct_data_set(UIDS[0]))
            await scu.send(message[:500])
            await asyncio.sleep(0.1)
            assert await asked.report() is None
            await scu.send(message[500:])
            answer, _, _ = await scu.message()
            assert isinstance(answer, CStoreResponse)
            task = asyncio.create_task(asked.report())
            report, _, _ = await report_of(scu)
            await scu.send(respond(report))
            assert await task == 0

    run(scenario())


def test_who_gives_up_waiting() -> None:
    """A report that was cancelled before its turn is not sent; after it, the association stays in order."""

    async def scenario() -> None:
        engine = Engine()
        async with receiver(MemoryLog(), engine) as (port, _):
            scu = await Scu.committing(port)
            asked = await committed(scu, engine)
            sent = asyncio.create_task(asked.report())
            first, _, _ = await report_of(scu)
            waiting = asyncio.create_task(asked.report({UIDS[0]: Finding.ABSENT}))
            last = asyncio.create_task(asked.report({UIDS[1]: Finding.ABSENT}))
            await asyncio.sleep(0)
            for task in (sent, waiting):
                task.cancel()
            await asyncio.wait({sent, waiting})
            await scu.send(respond(first))
            message, report, _ = await report_of(scu)
            assert [each.sop_instance_uid for each in report.failed] == [UIDS[1]]
            await scu.send(respond(message))
            assert await last == 0
            await scu.release()

    run(scenario())


def test_peer_that_sends_before_it_reads() -> None:
    """A long report that waits for a peer does not keep us from reading what that peer sends first."""

    async def scenario() -> None:
        engine = Engine()
        references = [Reference(CT, f"1.2.826.0.1.3680043.8.498.{number:030}") for number in range(50_000)]
        async with receiver(MemoryLog(), engine) as (port, server):
            scu = await Scu.committing(port)
            message = n_action(data_set=encode_request("2.25.1", references, explicit=True))
            asked = await committed(scu, engine, message)
            scu.read_nothing()
            task = asyncio.create_task(asked.report())
            (connection,) = server.connections
            await until(lambda: unsent(connection) > 500_000)
            for number in range(5):  # more than the kernel holds for us
                await scu.send(c_store(UIDS[number], ct_data_set(UIDS[number], 7 * MiB)))
            scu.read_again()
            report, read, _ = await report_of(scu)
            assert len(read.committed) == 50_000
            assert [(await scu.answer()).status for _ in range(5)] == [0] * 5
            await scu.send(respond(report))
            assert await task == 0
            await scu.release()

    run(scenario())


@pytest.mark.parametrize("given_up", [True, False], ids=["given up", "timed out"])
def test_peer_that_never_reads_its_report(monkeypatch: pytest.MonkeyPatch, given_up: bool) -> None:
    """It is dropped like one that does not read its other answers."""
    monkeypatch.setattr("ingest.receiver.server.WATCH_INTERVAL", 0.05)

    async def scenario() -> None:
        engine = Engine()
        references = [Reference(CT, f"1.2.826.0.1.3680043.8.498.{number:030}") for number in range(50_000)]
        limits = CommitmentSettings(answer_timeout=1.5)
        async with receiver(MemoryLog(), engine, limits, stall_timeout=0.5) as (port, server):
            scu = await Scu.committing(port)
            message = n_action(data_set=encode_request("2.25.1", references, explicit=True))
            asked = await committed(scu, engine, message)
            scu.read_nothing()
            task = asyncio.create_task(asked.report())
            (connection,) = server.connections
            await until(lambda: unsent(connection) > 500_000)
            if given_up:
                task.cancel()
                await asyncio.wait({task})
            else:
                assert await task is None
            async with asyncio.timeout(60):
                await server.unused.wait()

    run(scenario())


async def dropped(port: int) -> None:
    """An idle peer that waits for no report has come, and its time is over."""
    idle = await Scu.committing(port)
    kind, _ = await idle.pdu()
    assert kind == 7


def test_association_is_kept_for_its_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are aborted for being idle meanwhile, and it is once nothing is due to it any more."""
    monkeypatch.setattr("ingest.receiver.server.WATCH_INTERVAL", 0.05)

    async def scenario() -> None:
        engine = Engine()
        async with receiver(MemoryLog(), engine) as (port, server):
            scu = await Scu.committing(port)
            first = (await committed(scu, engine)).channel
            first.keep()
            asked = await committed(scu, engine, n_action(UIDS, transaction_uid="2.25.2"))
            asked.channel.keep()
            limit(server, idle_timeout=0.3)
            await dropped(port)
            task = asyncio.create_task(asked.report())
            message, _, _ = await report_of(scu)
            await scu.send(respond(message))
            assert await task == 0
            asked.channel.let_go()
            await dropped(port)  # the first is still due
            first.let_go()
            kind, _ = await scu.pdu()
            assert kind == 7

    run(scenario())


def test_association_is_kept_no_longer_than_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that does not come must go another way."""
    monkeypatch.setattr("ingest.receiver.server.WATCH_INTERVAL", 0.05)

    async def scenario() -> None:
        engine = Engine()
        limits = CommitmentSettings(association_lease=0.5)
        async with receiver(MemoryLog(), engine, limits) as (port, server):
            scu = await Scu.committing(port)
            asked = await committed(scu, engine)
            asked.channel.keep()
            limit(server, idle_timeout=0.3)
            kind, _ = await scu.pdu()
            assert kind == 7
            assert await asked.report() is None

    run(scenario())
