"""Storage commitment on Kafka and S3: stored by one receiver, asked of another, proved by a group, reported once."""

import json
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest

from ingest.contract.failpoints import Failpoint
from tests.support.buckets import content, names, store_settings, url_of
from tests.support.console import Console, ask, store
from tests.support.distributed import Distributed
from tests.support.kafka_servers import KafkaServers
from tests.support.s3_servers import S3Server
from tests.support.waiting import until
from workers.storage.bucket import Bucket
from workers.storage.layout import object_key

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("kafka")]

_SOURCES = """
[commitment]
enabled = true
absent_grace = 1

[sources.console]
ae_titles = ["CONSOLE", "TESTER"]
host = "127.0.0.1"
port = {port}

[sources.checker]
ae_titles = ["CHECKER"]
host = "127.0.0.1"
port = {port}
proof = "checksum"
"""


@pytest.fixture(scope="module")
def console() -> Iterator[Console]:
    console = Console()
    with console.listening():
        yield console


@pytest.fixture(scope="module")
def pipeline(
    tmp_path_factory: pytest.TempPathFactory, kafka: KafkaServers, minio: S3Server, console: Console
) -> Iterator[Distributed]:
    """Topics are made; each test starts what it needs."""
    folder = tmp_path_factory.mktemp("commitment-distributed")
    environment = minio.environment | {"DICOM_INGEST_KAFKA__COMMITMENT_TOPIC": f"{folder.name}-commitments"}
    running = Distributed(
        folder,
        kafka.bootstrap_servers,
        [minio.url(folder.name)],
        name=folder.name,
        environment=environment,
    )
    running.config.write_text(running.config.read_text() + _SOURCES.format(port=console.port))
    with running:
        yield running


def folder_of(pipeline: Distributed, name: str) -> Path:
    """Where a receiver knows its own claims again."""
    return pipeline.folder / f"of-{name}"


def started(pipeline: Distributed) -> list[int]:
    """Two receivers, whose ports are returned, and two workers."""
    for host in pipeline.hosts:
        if host.running:
            host.kill()
    ports = [pipeline.start_receiver(data=folder_of(pipeline, name)).port for name in "ab"]
    for _ in range(2):
        pipeline.start_worker()
    return ports


def nothing_is_open(pipeline: Distributed) -> bool:
    listed: list[object] = json.loads(pipeline.run("commitments", "list", "--json").stdout)
    return not listed


def test_asked_of_another_receiver(pipeline: Distributed, console: Console, s3_credentials: None) -> None:
    """What was just sent is committed in one report, to another source by its checksum; then one is damaged, and fails alone."""
    sent_to, asked = started(pipeline)
    uids = [f"1.2.826.70.{number}" for number in range(100)]
    store(sent_to, uids)
    with console.association(asked) as association:
        ask(association, uids, "1.2.826.71.1")
    assert console.report() == (set(uids), {})
    with Console("CHECKER").association(asked) as association:
        ask(association, uids, "1.2.826.71.3")
    assert console.report() == (set(uids), {})
    (url,) = pipeline.urls
    (key,) = [name for name in names(url) if name == str(object_key(uids[0]))]
    data = bytearray(content(url, key))
    data[-100] ^= 1
    obstore.put(Bucket(url_of(url), store_settings())._client, key, bytes(data))
    with console.association(asked) as association:
        ask(association, uids, "1.2.826.71.2")
    assert console.report() == (set(uids[1:]), {uids[0]: 0x0110})
    until(lambda: nothing_is_open(pipeline), "the end of both", timeout=60)
    assert console.reports.empty()


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        pytest.param("receiver", Failpoint.ACCEPTED, marks=pytest.mark.slow),
        pytest.param("receiver", Failpoint.BEFORE_DECISION, marks=pytest.mark.slow),
        ("receiver", Failpoint.REPORTED),
        pytest.param("worker", Failpoint.BEFORE_PROOF, marks=pytest.mark.slow),
        ("worker", Failpoint.PROOF_PUBLISHED),
    ],
)
def test_killed_at_a_step(pipeline: Distributed, console: Console, kind: str, step: Failpoint) -> None:
    """kill -9 of whoever takes the step, and later of all: one outcome, from proof, and nothing is left open."""
    started(pipeline)
    number = list(Failpoint).index(step)
    uids = [f"1.2.826.72.{number}.{one}" for one in range(40)]
    for host in pipeline.hosts:
        if host.running and host.name.startswith(kind):
            host.kill()
    if kind == "receiver":
        dying = pipeline.start_receiver(f"{step}=kill@1", data=folder_of(pipeline, "a"))
    else:
        dying = pipeline.start_worker(f"{step}=kill@1")
    port = next(host.port for host in pipeline.hosts if host.running and host.name.startswith("receiver"))
    store(port, uids)
    with console.association(port) as association:
        if step is Failpoint.ACCEPTED:
            with pytest.raises(AssertionError):
                ask(association, uids, f"1.2.826.73.{number}")
        else:
            ask(association, uids, f"1.2.826.73.{number}")
    until(lambda: not dying.running, "the death", timeout=60)
    started(pipeline)
    committed, failed = console.report()
    assert (committed, failed) == (set(uids), {})
    until(lambda: nothing_is_open(pipeline), "its end", timeout=60)
    while not console.reports.empty():  # a report whose record was lost may come again, and is the same
        assert console.report() == (committed, failed)


def test_all_end_with_0(pipeline: Distributed) -> None:
    """SIGTERM to whoever runs."""
    assert set(pipeline.stop().values()) == {0}
    assert not pipeline.wrong_ends()
