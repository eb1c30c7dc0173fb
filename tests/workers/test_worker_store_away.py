"""The disk of the only store is not mounted when a worker starts: the folder is there, and empty."""

import pytest

from tests.support.acceptance import QUICK, Sent, send_data_sets, settle
from tests.support.pipeline import Pipeline
from tests.support.scu import CT, ct_data_set
from tests.support.waiting import until

pytestmark = pytest.mark.real

UIDS = ("1.2.826.0.1.31", "1.2.826.0.1.32")


def send(pipeline: Pipeline, uid: str) -> None:
    assert set(send_data_sets(pipeline.port, [Sent(CT, uid, ct_data_set(uid))])) == {0}


@pytest.mark.parametrize("left", ["an empty folder", "nothing"])
def test_nothing_is_stored_beneath_the_mount_point(
    tmp_path_factory: pytest.TempPathFactory, left: str
) -> None:
    """It would be hidden once the disk is back, and acknowledged images with it; they wait in the log for that."""
    data = tmp_path_factory.mktemp("away") / "data"
    store, disk = data / "store", data / "disk"
    with Pipeline(data, environment=QUICK) as pipeline:
        send(pipeline, UIDS[0])
        settle(pipeline)
        assert pipeline.stop() == 0
        store.rename(disk)
        if left == "an empty folder":
            store.mkdir()
        pipeline.start()
        send(pipeline, UIDS[1])
        until(lambda: "is it mounted?" in pipeline.log.read_text(), "a word about it")
        assert not pipeline.objects()
        assert [*store.glob("*")] == []
        if store.exists():
            store.rmdir()
        disk.rename(store)
        status = settle(pipeline)
        assert (status["stored"], status["backlog"]) == (2, 0)
        assert pipeline.objects().keys() == set(UIDS)
