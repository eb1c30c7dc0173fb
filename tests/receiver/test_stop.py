"""SIGTERM to a receiver: what does not answer does not keep it, and what is answered is written down."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from ingest.commitment import engine as engine_module
from ingest.commitment.transaction import Clock
from ingest.commitment.transactions import watched
from ingest.contract.settings import Settings
from ingest.contract.spool import OsDisk
from ingest.dimse.commitment_report import Report
from ingest.log.commitment_segments import opened_beside
from ingest.receiver.run import run_receiver
from ingest.sender.listener import listening
from tests.support.asynchronous import asynchronous
from tests.support.audit_trail import kinds, trail_of
from tests.support.commitment import open_transaction, until
from tests.support.commitment_bench import ID, Bench
from tests.support.host_names import is_looking, with_hosts
from tests.support.receiver_process import ReceiverProcess
from tests.support.waiting import until as until_then

SETTINGS = """
[commitment]
enabled = true
[sources.ct]
ae_titles = ["CT1"]
host = "modality.example"
"""


async def leave_a_report(data: Path) -> None:
    """One that could not be delivered yet."""
    bench = Bench(data)
    bench.modality.answers = [None]
    async with bench.running() as engine:
        assert await bench.ask(engine) == 0x0000
        bench.prove()
        await until(lambda: open_transaction(engine, ID).attempted is not None)


def test_a_stop_does_not_wait_for_a_name_server(tmp_path: Path) -> None:
    """The host of a report is looked for, and nobody answers: the receiver ends well, and at once."""
    asyncio.run(leave_a_report(tmp_path / "data"))
    (tmp_path / "settings.toml").write_text(SETTINGS)
    hosts = tmp_path / "hosts"
    os.mkfifo(hosts)
    environment = {"DICOM_INGEST_CONFIG": str(tmp_path / "settings.toml")}
    with ReceiverProcess(tmp_path, environment, prefix=with_hosts(hosts)) as receiver:
        until_then(lambda: is_looking(receiver.process.pid))
        assert receiver.stop() == 0


@asynchronous
async def test_a_report_that_is_answered_during_a_stop_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the log, so that it is not sent again, and in the audit trail."""
    monkeypatch.setattr(engine_module, "_LAST", 60.0)

    def took(_: Report) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    await leave_a_report(tmp_path)
    async with listening(("127.0.0.1", 0), "CT1", took, silence=60) as port:
        settings = Settings.model_validate(
            {
                "data": tmp_path,
                "receiver": {"host": "127.0.0.1", "port": 0},
                "commitment": {"enabled": True},
                "sources": {"ct": {"ae_titles": ["CT1"], "host": "127.0.0.1", "port": port}},
                "audit": {"destination": "file"},
            }
        )
        assert await run_receiver(settings) == 0
    beside = opened_beside(OsDisk(), tmp_path)
    assert beside is not None
    transactions = watched()
    for entry in beside.reader.read_all(beside.durable_end):
        transactions.apply(entry, Clock(0.0, 0))
    beside.reader.close()
    assert transactions.is_closed(ID)
    assert ("110103", "commitment") in kinds(trail_of(tmp_path))
