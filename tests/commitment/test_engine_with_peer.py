"""Reports of the engine on real associations: to a pynetdicom entity, and to peers that do not answer to something."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pynetdicom import AE, evt
from pynetdicom.events import Event

from benchmarks.processes import free_port
from ingest.association import AcceptorPolicy, Fragment, FragmentRun, ReleaseRequested
from ingest.association import Event as Happening
from ingest.commitment import reporting
from ingest.commitment.deliveries import NO_ANSWER
from ingest.contract.identifiers import TransactionId
from ingest.dimse.commitment_report import Report
from ingest.sender import commitment
from ingest.sender.commitment import report
from ingest.sender.listener import _Incoming
from tests.support.asynchronous import asynchronous
from tests.support.commitment import open_transaction, until
from tests.support.commitment_bench import ID, Bench
from tests.support.scu import COMMITMENT


@asynchronous
async def test_a_report_that_a_peer_cannot_take_keeps_no_other(tmp_path: Path) -> None:
    """A real peer that aborts when it comes to one report: the next is tried in its turn, and then all others."""
    reports: list[str] = []

    def reported(event: Event) -> tuple[int, None]:
        uid = str(event.event_information.TransactionUID)
        if uid == "1.2.0":
            event.assoc.abort()
        else:
            reports.append(uid)
        return 0, None

    entity = AE("CT1")
    entity.add_supported_context(COMMITMENT, scu_role=False, scp_role=True)
    port = free_port()
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, reported)]
    )
    assert server is not None
    bench = Bench(tmp_path, port=port)
    bench.report = report
    try:
        async with bench.running() as engine:
            for number in range(3):
                assert await bench.ask(engine, f"1.2.{number}", count=2) == 0
                bench.prove()
                transaction = open_transaction(engine, TransactionId.of("CT1", f"1.2.{number}"))
                await until(lambda: transaction.decided is not None)  # noqa: B023 - awaited within the round
                bench.clock.now += 0.01
            poisoned = open_transaction(engine, TransactionId.of("CT1", "1.2.0"))
            await until(lambda: poisoned.attempted is not None)
            bench.clock.now += 10.0
            await until(lambda: len(engine.transactions) == 1, engine)
    finally:
        server.shutdown()
    assert reports == ["1.2.1", "1.2.2"]


@asynccontextmanager
async def that_never_answers(to: tuple[type, ...], reports: list[str]) -> AsyncIterator[int]:
    """A peer that takes what comes, but for this; it notes the Transaction UID of each report. Its port."""

    class Incoming(_Incoming):
        def _perform(self, event: Happening) -> None:
            if not isinstance(event, to):
                super()._perform(event)

    def took(arrived: Report) -> int:
        reports.append(arrived.transaction_uid)
        return 0

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        policy = AcceptorPolicy("CT1", storage=False, commitment_scu=True)
        await Incoming(reader, writer, policy, took).run(600)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


@asynchronous
async def test_a_report_that_is_answered_is_taken_however_slowly_its_peer_releases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may know the transaction no more: what comes again it could refuse for days."""
    monkeypatch.setattr(reporting, "longest_report", lambda _: 40.0)
    monkeypatch.setattr(commitment, "_RELEASE", 0.1)
    reports: list[str] = []
    async with that_never_answers((ReleaseRequested,), reports) as port:
        bench = Bench(tmp_path, port=port, answer_timeout=600.0)
        bench.report = report
        async with bench.running() as engine:
            assert await bench.ask(engine) == 0x0000
            bench.prove()
            transaction = open_transaction(engine, ID)
            await until(lambda: engine.transactions.is_closed(ID) or transaction.attempted is not None)
            assert engine.transactions.is_closed(ID)
    assert len(reports) == 1


@asynchronous
async def test_a_report_that_takes_too_long_has_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was an association: it may be for what is in the report, and the next is another's turn."""
    monkeypatch.setattr(reporting, "longest_report", lambda _: 15.0)
    async with that_never_answers((Fragment, FragmentRun), []) as port:
        bench = Bench(tmp_path, port=port, answer_timeout=600.0)
        bench.report = report
        async with bench.running() as engine:
            assert await bench.ask(engine) == 0x0000
            bench.prove()
            transaction = open_transaction(engine, ID)
            await until(lambda: transaction.attempted is not None)
            assert transaction.attempted is not None
            assert transaction.attempted.problem == NO_ANSWER
