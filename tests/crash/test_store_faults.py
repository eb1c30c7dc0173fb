"""Rows 12 to 15 of the crash matrix: a store that fails, is unsure, hangs, crawls or lies, beside one that does not."""

import random
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from benchmarks.processes import peak_resident, reset_peak, resident
from tests.support.crash import Load, Run, is_object, marks, members, seeds, uid_of
from tests.support.distributed import Distributed
from tests.support.fault_proxy import Action, FaultProxy, Request, everything, gets_of, puts_of
from tests.support.kafka_servers import KafkaServers
from tests.support.s3_servers import BUCKET, S3Server

pytestmark = marks

SESSION = 6.0  # s; the least that Kafka allows
GROWTH = 64.0  # MiB of a worker whose store hangs: its byte budgets are 8 in memory and 4 times 2 on the way


@pytest.fixture(scope="module")
def proxy(minio: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(minio.endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def pipeline(
    tmp_path_factory: pytest.TempPathFactory, kafka: KafkaServers, minio: S3Server, proxy: FaultProxy
) -> Iterator[Distributed]:
    """Two stores, of which one is reached through the proxy; we look at both without it."""
    folder = tmp_path_factory.mktemp("store-faults")
    faulty, sound = f"{folder.name}-faulty", f"{folder.name}-sound"
    with Distributed(
        folder,
        kafka.bootstrap_servers,
        [f"s3://{BUCKET}/{faulty}?endpoint={proxy.endpoint}", minio.url(sound)],
        watched=[minio.url(faulty), minio.url(sound)],
        name=folder.name,
        environment=minio.environment,
        session=SESSION,
        request=1.5,
        retry=4,
    ) as pipeline:
        yield pipeline


@pytest.fixture(autouse=True)
def _sound_at_the_end(proxy: FaultProxy) -> Iterator[None]:
    yield
    proxy.heal()


class Faults:
    """Does each of some actions to a few requests at random, and tells when it has."""

    def __init__(self, proxy: FaultProxy, seed: str) -> None:
        self._proxy = proxy
        self._random = random.Random(seed)
        self._begun = len(proxy.requests)
        self._actions: list[Action] = []

    def some(self, part: str, method: str, *actions: Action) -> None:
        """Of the requests for a name that contains ``part``, every third, a few times each."""
        chosen = puts_of(part) if method == "PUT" else gets_of(part)
        self._script(actions, lambda request: chosen(request) and self._random.random() < 1 / 3)

    def lies(self, part: str, *actions: Action) -> None:
        """As `some` of GETs, but once of each name: an object that is read wrongly again and again is a damaged one."""
        chosen = gets_of(part)
        lied: set[str] = set()

        def is_lied_about(request: Request) -> bool:
            if not chosen(request) or request.path in lied or self._random.random() > 1 / 3:
                return False
            lied.add(request.path)
            return True

        self._script(actions, is_lied_about)

    def _script(self, actions: Sequence[Action], matches: Callable[[Request], bool]) -> None:
        for action in actions:
            self._actions.append(action)
            self._proxy.fault(matches, action, self._random.randint(2, 4))

    def done(self) -> bool:
        """Whether each has happened."""
        return set(self._actions) <= {action for _, action in self._proxy.requests[self._begun :]}


@seeds
def test_store_fails_and_recovers(pipeline: Distributed, proxy: FaultProxy, seed: int) -> None:
    """Row 12: 5xx with and without having stored: repeated, and the own write is recognised."""
    run = Run(pipeline, seed, 12)
    run.heal()
    faults = Faults(proxy, run.stem)
    with run:
        faults.some(".dcm", "PUT", Action.ERROR_503, Action.STORE_500)
        faults.some("", "GET", Action.ERROR_503)
        run.until(faults.done, "every fault")
        run.acknowledged(3)
    run.check()


@seeds
def test_store_is_unsure(pipeline: Distributed, proxy: FaultProxy, seed: int) -> None:
    """Row 13: stored without an answer, stored and reset, a conflict with nothing stored: what is there decides."""
    run = Run(pipeline, seed, 13)
    run.heal()
    faults = Faults(proxy, run.stem)
    with run:
        faults.some(".dcm", "PUT", Action.STORE_SILENCE, Action.STORE_RESET, Action.CONFLICT_409)
        run.until(faults.done, "every fault")
        run.acknowledged(3)
    run.check()


@seeds
@pytest.mark.parametrize("action", [Action.HANG, Action.SLOW_REQUEST])
def test_store_hangs(pipeline: Distributed, proxy: FaultProxy, seed: int, action: Action) -> None:
    """Row 14: for longer than a session polling goes on, nobody is taken for dead, memory holds, the other store fills."""
    run = Run(pipeline, seed, 14 if action is Action.HANG else 140, load=Load(senders=2, pause=0.1))
    run.heal()
    with run:
        run.acknowledged(3)
        before = run.shared_out()
        base = {host.pid: resident(host.pid) for host in run.workers()}
        for pid in base:
            reset_peak(pid)
        proxy.fault(everything, action)
        time.sleep(2)  # what was on its way when it began to hang may arrive; of a slow one, at any time
        in_faulty, _ = stored(run)
        time.sleep(SESSION)
        earlier = set(run.ledger.tried)
        run.until(
            lambda: any(uid_of(key) not in earlier for key in stored(run)[1]),
            "I5: in the other store what is sent by now",
        )
        assert members(run.settings) == before, f"seed {run.seed}: a rebalance"
        assert action is not Action.HANG or stored(run)[0] == in_faulty, f"seed {run.seed}: who stored that?"
        grown_by = {pid: peak_resident(pid) - size for pid, size in base.items()}
        assert max(grown_by.values()) < GROWTH, f"seed {run.seed}: I6: {grown_by} MiB"
        proxy.heal()
    run.check()


def stored(run: Run) -> list[set[str]]:
    """The objects of each store."""
    return [{key for key in store if is_object(key)} for store in run.watch.by_store()]


@seeds
def test_store_lies(pipeline: Distributed, proxy: FaultProxy, seed: int) -> None:
    """Row 15: what is read back wrong, shortened or cut off is never taken for what was written."""
    run = Run(pipeline, seed, 15)
    run.heal()
    faults = Faults(proxy, run.stem)
    with run:
        # After a PUT with an unsure end the object is read back.
        faults.some(".dcm", "PUT", Action.STORE_500, Action.STORE_500, Action.STORE_500)
        faults.lies(".dcm", Action.WRONG, Action.SHORT, Action.TRUNCATED)
        run.until(faults.done, "every fault")
        run.acknowledged(3)
    run.check()
