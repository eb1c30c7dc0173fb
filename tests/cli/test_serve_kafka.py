"""`serve` with log.kind = kafka: the same command, its receiver and workers on a real broker."""

import json
from pathlib import Path

import pytest

from tests.support.acceptance import Sent, send_data_sets
from tests.support.kafka_records import kafka_settings
from tests.support.kafka_servers import KafkaServers
from tests.support.pipeline import Pipeline, assert_adds_up
from tests.support.scu import CT, ct_data_set
from tests.support.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("kafka")]


def partitions(pipeline: Pipeline) -> list[int]:
    """Those that `status` says some worker has."""
    workers = json.loads(json.dumps(pipeline.settle()))["workers"]
    return sorted(number for worker in workers for number in worker["partitions"])


def test_instances_go_through_kafka_to_the_store(kafka: KafkaServers, tmp_path: Path) -> None:
    """Small and large ones, one of them twice; the stop is clean."""
    settings, config = kafka_settings(kafka, tmp_path, "serve")
    pipeline = Pipeline(settings.data, workers=2, environment={"DICOM_INGEST_CONFIG": str(config)})
    with pipeline:
        sizes = (2000, 100_000, 3_000_000)
        data_sets = [Sent(CT, f"1.2.{size}", ct_data_set(f"1.2.{size}", size)) for size in sizes]
        assert send_data_sets(pipeline.port, [*data_sets, data_sets[0]]) == [0, 0, 0, 0]
        status = pipeline.settle()
        assert_adds_up(status)
        assert (status["received"], status["stored"], status["duplicates"]) == (4, 3, 1)
        assert pipeline.objects().keys() == {one.uid for one in data_sets}
        # One worker may have done it all before the other had joined the group.
        until(lambda: partitions(pipeline) == [0, 1, 2, 3], "all partitions in the status")
    assert pipeline.process is None
    assert "child did not stop cleanly" not in pipeline.log.read_text()
