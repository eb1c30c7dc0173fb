"""What all tests share: an environment without the developer's own settings."""

import os
import secrets
from collections.abc import Iterator

import pytest
from hypothesis import settings

from ingest.contract.settings_sources import ENVIRONMENT_PREFIX
from tests.support.kafka_servers import KafkaServers
from tests.support.s3_servers import MINIO, VERSITYGW, S3Server

# Machines differ and are shared: no test may fail for being slow. pytest's timeout catches what hangs.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

_IN_MINIO = frozenset({"minio", "bucket_url"})
_ADMIN = f"{ENVIRONMENT_PREFIX}ADMIN__LISTEN"


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker, and xdist by group
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for three brokers needs servers beyond those of `make test`; what is made once is shared by one process."""
    for item in items:
        if "kafka_three" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.servers)
        if (group := shared_by(item)) and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(group))


def shared_by(item: pytest.Item) -> str | None:
    """The group of tests that share what a test uses: else each process of pytest would start a server, or a pipeline, of its own."""
    if not isinstance(item, pytest.Function):
        return None
    if item.path.parent.name == "kubernetes":
        return "manifests"  # rendered once
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    if not _IN_MINIO.isdisjoint({*item.fixturenames, *(one for one in parameters if isinstance(one, str))}):
        return "buckets"
    fixtures = [found[-1] for found in item._fixtureinfo.name2fixturedefs.values()]
    return item.nodeid.partition("::")[0] if any(fixture.scope == "module" for fixture in fixtures) else None


@pytest.fixture(autouse=True, scope="session")
def _any_admin_port() -> Iterator[None]:
    """Tests run side by side, and each process has an admin port, those of modules' fixtures too."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(_ADMIN, "127.0.0.1:0")
        yield


@pytest.fixture(autouse=True)
def _no_settings_from_outside(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name in list(os.environ):
        if name != _ADMIN and name.upper().startswith((ENVIRONMENT_PREFIX, "AWS_")):
            monkeypatch.delenv(name)
    # Where there are no credentials, clients ask the cloud's metadata service: no test may leave this machine.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp()))


@pytest.fixture(scope="session")
def minio() -> Iterator[S3Server]:
    """A MinIO of this session's own."""
    with S3Server(MINIO) as server:
        yield server


@pytest.fixture(scope="session")
def versitygw() -> Iterator[S3Server]:
    """A versitygw of this session's own."""
    with S3Server(VERSITYGW) as server:
        yield server


@pytest.fixture
def s3_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test servers' credentials where the usual chain finds them first."""
    for name, value in S3Server.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def minio_url(minio: S3Server, s3_credentials: None) -> str:
    """A store's URL in MinIO, which nobody else uses."""
    return minio.url(secrets.token_hex(8))


@pytest.fixture(params=[pytest.param("minio"), pytest.param("versitygw", marks=pytest.mark.servers)])
def bucket_url(request: pytest.FixtureRequest, s3_credentials: None) -> str:
    """The same in each of the servers."""
    server: S3Server = request.getfixturevalue(request.param)
    return server.url(secrets.token_hex(8))


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServers]:
    """One broker, shared: each test makes topics of its own, and leaves it running."""
    with KafkaServers(tmp_path_factory.mktemp("kafka")) as servers:
        yield servers


@pytest.fixture(scope="session")
def kafka_three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServers]:
    """Three brokers, shared: a test that ends one starts it again. Give such tests one xdist group."""
    with KafkaServers(tmp_path_factory.mktemp("kafka-three"), nodes=3) as servers:
        yield servers
