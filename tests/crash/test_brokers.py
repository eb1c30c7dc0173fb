"""Rows 9 to 11 of the crash matrix: a broker that restarts, cannot be reached, or whose answers get lost.

Receivers and workers reach it through a proxy. `delivery_timeout` is 4 s for 20.
"""

from collections.abc import Iterator

import pytest

from tests.crash.conftest import stop_all
from tests.support.crash import Run, marks, seeds
from tests.support.distributed import Distributed
from tests.support.kafka_servers import KafkaServers
from tests.support.s3_servers import S3Server
from tests.support.tcp_proxy import Mode, TcpProxy

pytestmark = marks

_DELIVERY = 4.0  # s; see `distributed`


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServers]:
    """A broker behind a proxy."""
    with KafkaServers(tmp_path_factory.mktemp("kafka-proxied"), proxied=True) as servers:
        yield servers


@pytest.fixture(scope="module")
def pipeline(
    tmp_path_factory: pytest.TempPathFactory, proxied: KafkaServers, minio: S3Server
) -> Iterator[Distributed]:
    """Knows the broker by its proxy."""
    folder = tmp_path_factory.mktemp("brokers")
    with Distributed(
        folder, proxied.proxied_bootstrap_servers, [minio.url(folder.name)], name=folder.name,
        environment=minio.environment, s3=minio,
    ) as pipeline:  # fmt: skip
        yield pipeline
        stop_all(pipeline, proxied.bootstrap_servers)


@pytest.fixture
def proxy(proxied: KafkaServers) -> Iterator[TcpProxy]:
    """The broker's; passes everything before and after."""
    found = proxied.nodes[0].proxy
    assert found is not None
    yield found
    found.set(Mode.PASS)


class _Same:
    """The same processes before and after: all recovers without a restart."""

    def __init__(self, run: Run) -> None:
        run.heal()
        self._run = run
        self._pids = self._now()

    def check(self) -> None:
        assert self._now() == self._pids, f"seed {self._run.seed}: a process has ended"

    def _now(self) -> set[int]:
        return {host.pid for host in [*self._run.receivers(), *self._run.workers()]}


@pytest.mark.slow
@seeds
@pytest.mark.parametrize("way", ["stop", "kill"])
def test_broker_restarts(pipeline: Distributed, proxied: KafkaServers, seed: int, way: str) -> None:
    """Row 9: what was not acknowledged is tried again by the client, without a hole and without a second copy."""
    run = Run(pipeline, seed, 9 if way == "stop" else 90, servers=proxied.bootstrap_servers)
    same = _Same(run)
    broker = proxied.nodes[0]
    with run:
        run.acknowledged(run.random.randint(1, 15))
        getattr(broker, way)()
        run.sleep(0, 2)
        broker.start()
        run.acknowledged(5)
    run.check()
    same.check()


@seeds
@pytest.mark.parametrize("mode", [Mode.SILENT, Mode.REFUSE])
def test_broker_unreachable(
    pipeline: Distributed, proxied: KafkaServers, proxy: TcpProxy, seed: int, mode: Mode
) -> None:
    """Row 10: failure statuses, none of success, bounded memory, and all goes on when it is back."""
    run = Run(pipeline, seed, 10 if mode is Mode.SILENT else 100, servers=proxied.bootstrap_servers)
    same = _Same(run)
    with run:
        run.acknowledged(run.random.randint(1, 15))
        told = run.ledger.refused + run.ledger.rejected
        proxy.set(mode)
        earlier = set(run.ledger.tried)  # of these an answer may still be on its way
        run.sleep(_DELIVERY + 1, _DELIVERY + 3)
        run.until(lambda: run.ledger.refused + run.ledger.rejected > told, "a failure status")
        assert run.ledger.acknowledged <= earlier, f"seed {seed}: I7: success without a broker"
        proxy.set(Mode.PASS)
        run.acknowledged(5)
    run.check()
    same.check()


@seeds
def test_answers_lost_after_append(
    pipeline: Distributed, proxied: KafkaServers, proxy: TcpProxy, seed: int
) -> None:
    """Row 11: the client sends a batch again that the broker has, and the log has it once (`Run.check` looks)."""
    run = Run(pipeline, seed, 11, servers=proxied.bootstrap_servers)
    same = _Same(run)
    with run:
        for _ in range(4):
            run.acknowledged(run.random.randint(1, 5))
            lost = proxy.lost
            proxy.set(Mode.LOSE_ANSWERS)
            run.until(lambda lost=lost: proxy.lost > lost, "a lost answer")  # type: ignore[misc]
            run.sleep(0.05, 0.5)
            proxy.set(Mode.PASS)
        run.acknowledged(5)
    run.check()
    same.check()
