"""Reports of the engine on real associations, to a pynetdicom entity."""

from pathlib import Path

from pynetdicom import AE, evt
from pynetdicom.events import Event

from benchmarks.processes import free_port
from ingest.contract.identifiers import TransactionId
from ingest.sender.commitment import report
from tests.support.asynchronous import asynchronous
from tests.support.commitment import open_transaction, until
from tests.support.commitment_bench import Bench
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
