"""The whole corpus through Kafka and S3 gives the objects that it gives on one machine."""

from typing import Any, NamedTuple

import msgspec
import pytest

from tests.conformance.test_corpus import FILES, meta_agrees, send_by_pynetdicom
from tests.support.buckets import content, names
from tests.support.distributed import Distributed
from tests.support.kafka_servers import KafkaServers
from tests.support.pipeline import Pipeline, assert_adds_up
from tests.support.s3_servers import S3Server
from workers.storage.layout import Area, parse_key
from workers.storage.part10 import decode_head

pytestmark = [
    pytest.mark.real,
    pytest.mark.xdist_group("kafka"),
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:::pydicom"),  # the corpus is malformed on purpose
]

# What a manifest says of the way of an instance, and not of the instance.
OF_THE_WAY: dict[str, Any] = {
    "upload_id": "", "received_at": 0, "placed_at": 0,
    "calling_ae_title": "", "called_ae_title": "", "peer_address": "",
}  # fmt: skip
PLACES = ("received", "stored", "duplicates", "conflicts", "quarantined", "discarded", "backlog", "reasons")


class Outcome(NamedTuple):
    """What became of the corpus."""

    objects: dict[str, bytes]  # of the store and its lanes, by key
    status: dict[str, int]


@pytest.fixture(scope="module")
def one_machine(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """By a spool and a folder."""
    with Pipeline(tmp_path_factory.mktemp("corpus") / "data") as running:
        assert send_by_pynetdicom(running.port, FILES) >= {path for path in FILES if meta_agrees(path)}
        status = running.settle()
        assert running.stop() == 0
        store = running.data / "store"
        files = {str(path.relative_to(store)): path for path in store.rglob("*") if path.is_file()}
        return Outcome({key: path.read_bytes() for key, path in files.items() if is_instance(key)}, status)


@pytest.fixture(scope="module")
def distributed(tmp_path_factory: pytest.TempPathFactory, kafka: KafkaServers, minio: S3Server) -> Outcome:
    """By Kafka and MinIO, with two receivers that take turns, and two workers."""
    folder = tmp_path_factory.mktemp("corpus-distributed")
    url = minio.url(folder.name)
    with Distributed(
        folder, kafka.bootstrap_servers, [url], name=folder.name, environment=minio.environment
    ) as pipeline:
        ports = [pipeline.start_receiver().port for _ in range(2)]
        for _ in range(2):
            pipeline.start_worker()
        for index, path in enumerate(FILES):
            assert send_by_pynetdicom(ports[index % 2], [path]) or not meta_agrees(path), path.name
        status = pipeline.settle(300)
        assert set(pipeline.stop().values()) == {0}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in minio.environment.items():
            patch.setenv(name, value)
        return Outcome({key: content(url, key) for key in names(url) if is_instance(key)}, status)


def is_instance(key: str) -> bool:
    """Whether that is an instance in its place or in a lane."""
    try:
        found = parse_key(key)
    except ValueError:
        return False
    return found.area in (Area.OBJECTS, Area.CONFLICTS, Area.QUARANTINE) and not key.endswith(".json")


def test_same_account(one_machine: Outcome, distributed: Outcome) -> None:
    """Received, stored, conflicts, quarantined, and why."""
    assert_adds_up(distributed.status)
    assert {place: distributed.status[place] for place in PLACES} == {
        place: one_machine.status[place] for place in PLACES
    }


def test_same_objects(one_machine: Outcome, distributed: Outcome) -> None:
    """The same keys, data sets equal to the byte, and manifests equal but for how and when it came."""
    assert len(one_machine.objects) > len(FILES) / 2
    assert sorted(distributed.objects) == sorted(one_machine.objects)
    for key, there in distributed.objects.items():
        here = one_machine.objects[key]
        mine, other = decode_head(here), decode_head(there)
        assert msgspec.structs.replace(other.manifest, **OF_THE_WAY) == msgspec.structs.replace(
            mine.manifest, **OF_THE_WAY
        ), key
        assert there[other.size :] == here[mine.size :], key
