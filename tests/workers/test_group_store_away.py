"""As `test_worker_store_away`, for a worker of a consumer group: it keeps nothing itself that tells whether the store is new."""

from pathlib import Path

import pytest

from tests.support.acceptance import Sent, send_data_sets
from tests.support.distributed import Distributed, Host
from tests.support.kafka_servers import KafkaServers
from tests.support.scu import CT, ct_data_set

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("kafka")]

UIDS = ("1.2.826.0.1.31", "1.2.826.0.1.32")


def send(receiver: Host, uid: str) -> None:
    assert set(send_data_sets(receiver.port, [Sent(CT, uid, ct_data_set(uid))])) == {0}


def test_a_group_that_has_placed_something_makes_no_new_store(tmp_path: Path, kafka: KafkaServers) -> None:
    """The disk is not mounted on the host of the next worker; once it is, all is stored there."""
    store, disk = tmp_path / "store", tmp_path / "disk"
    name = f"away-{tmp_path.name}"
    with Distributed(tmp_path, kafka.bootstrap_servers, [f"file://{store}"], name=name) as pipeline:
        receiver, worker = pipeline.start_receiver(), pipeline.start_worker()
        send(receiver, UIDS[0])
        pipeline.settle()
        assert worker.stop() == 0
        store.rename(disk)
        store.mkdir()
        worker = pipeline.start_worker(wait=False)
        worker.wait_said("is it mounted?")
        send(receiver, UIDS[1])
        assert [*store.glob("*")] == []
        store.rmdir()
        disk.rename(store)
        worker.wait_said('"worker started"')
        status = pipeline.settle()
        assert (status["stored"], status["backlog"]) == (2, 0)
        assert set(pipeline.stop().values()) == {0}
