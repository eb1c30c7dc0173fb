"""SIGTERM to a receiver: what does not answer does not keep it."""

import os
from pathlib import Path

from tests.support.asynchronous import asynchronous
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


@asynchronous
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
    leave_a_report(tmp_path / "data")
    (tmp_path / "settings.toml").write_text(SETTINGS)
    hosts = tmp_path / "hosts"
    os.mkfifo(hosts)
    environment = {"DICOM_INGEST_CONFIG": str(tmp_path / "settings.toml")}
    with ReceiverProcess(tmp_path, environment, prefix=with_hosts(hosts)) as receiver:
        until_then(lambda: is_looking(receiver.process.pid))
        assert receiver.stop() == 0
