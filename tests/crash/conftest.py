"""The crash matrix runs on a pipeline that goes on from seed to seed; a scenario replaces what it has killed."""

from collections.abc import Iterator, Sequence

import pytest

from tests.support.crash import wait_expired
from tests.support.distributed import Distributed
from tests.support.kafka_servers import KafkaServers
from tests.support.s3_servers import S3Server


@pytest.fixture(scope="module")
def pipeline(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    kafka: KafkaServers,
    minio: S3Server,
) -> Iterator[Distributed]:
    """Topics and a store of the module's own; nothing runs yet. A module's ``SCALE`` has times of its own."""
    name = request.module.__name__.rpartition(".")[2].replace("_", "-")
    folder = tmp_path_factory.mktemp(name)
    url = minio.url(f"{name}-{folder.name}")
    with Distributed(
        folder, kafka.bootstrap_servers, [url], name=folder.name, environment=minio.environment, s3=minio,
        **getattr(request.module, "SCALE", {}),
    ) as pipeline:  # fmt: skip
        yield pipeline
        stop_all(pipeline)


def stop_all(pipeline: Distributed, servers: Sequence[str] = ()) -> None:
    """At the end of every module: what never ended expires, and each process ends with 0."""
    if pipeline.orphans:
        wait_expired(pipeline, servers)
    codes = pipeline.stop()
    assert not any(codes.values()), codes
    assert not pipeline.wrong_ends(), pipeline.wrong_ends()


@pytest.fixture(autouse=True)
def _credentials(s3_credentials: None) -> None:
    """For what looks into the store from here."""
