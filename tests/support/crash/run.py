"""One seeded run of one fault, and the invariants I1 to I7 at its end."""

import asyncio
import contextlib
import hashlib
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

import pytest

from ingest.contract.settings import Settings
from ingest.contract.settings_sources import load_settings
from tests.support.crash.senders import Load, Senders, Sent, send_slowly
from tests.support.crash.topic import Topic, committed, is_read, members, read_topic
from tests.support.crash.watch import Watch, is_object, uid_of
from tests.support.distributed import Distributed, Host
from tests.support.pipeline import PLACES, assert_adds_up
from workers.cli.status_report import Report, read_report
from workers.storage.layout import Area
from workers.storage.part10 import decode_head

SEEDS: Final = int(os.environ.get("SEEDS", "1"))
FIRST_SEED: Final = int(os.environ.get("CRASH_FIRST_SEED", "1"))
seeds = pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEEDS))
# Of a module with rows of the matrix; a process of pytest has one pipeline at a time.
marks: Final = [pytest.mark.real, pytest.mark.xdist_group("crash"), pytest.mark.timeout(300)]

_MiB: Final = 1024 * 1024
# What processes with the budgets of `distributed` may take, interpreter and libraries included: some 100 MiB of it.
MEMORY: Final = {"receiver": 200 * _MiB, "worker": 350 * _MiB}


class Run:
    """One seeded run of one fault; see the module."""

    def __init__(
        self,
        pipeline: Distributed,
        seed: int,
        case: int = 0,
        *,
        load: Load | None = None,
        settle: float = 120,
        servers: Sequence[str] = (),
    ) -> None:
        """``case``: sets the instances of one scenario apart from others of the pipeline.

        ``servers``: brokers for whoever looks, where the pipeline's lead through a proxy.
        """
        self.pipeline = pipeline
        self.seed = seed
        self.stem = f"1.2.826.{case}.{seed}."
        self.others = f"1.2.840.{case}.{seed}."  # of what is not the senders', where `check` does not look
        self.random = random.Random(self.stem)
        self.settings = _looking_at(load_settings(pipeline.config).settings, servers)
        self.watch = Watch(self.settings, pipeline)
        self.load = load or Load()
        self.senders = Senders(self.ports, self.stem, self.load)
        self.ledger = self.senders.ledger
        self.quiet: set[str] = set()  # names of receivers that get no new associations
        self._settle = settle

    def ports(self) -> list[int]:
        """Where receivers listen."""
        return [host.port for host in self.receivers() if host.name not in self.quiet]

    def receivers(self) -> list[Host]:
        """Those that run."""
        return self._running("receiver")

    def workers(self) -> list[Host]:
        """Those that run."""
        return self._running("worker")

    def _running(self, kind: str) -> list[Host]:
        return [host for host in [*self.pipeline.hosts] if host.running and host.name.startswith(kind)]

    def __enter__(self) -> Self:
        self._starts = read_topic(self.settings, None).ends
        self._before = self.report()
        self._incomplete = self._incomplete_uploads()
        self.watch.start()
        self.senders.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.senders.stop(60 + 2 * self.load.patience)
        finally:
            if error is not None:
                self.watch.stop()

    def sleep(self, least: float, most: float) -> None:
        """A random while."""
        time.sleep(self.random.uniform(least, most))

    def until(self, condition: Callable[[], bool], what: str, timeout: float = 120) -> None:
        """Wait for something to be so."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"seed {self.seed}: {what} did not come\n{self._tails()}"
            time.sleep(0.05)

    def acknowledged(self, count: int, *, healing: bool = False) -> None:
        """Wait until so many more instances were acknowledged; ``healing``: start again what ends meanwhile."""
        target = len(self.ledger.acknowledged) + count

        def are_there() -> bool:
            if healing:
                self.heal()
            return len(self.ledger.acknowledged) >= target

        self.until(are_there, f"{count} more acknowledgements")

    def send(self, sent: Sent, port: int, *, seconds: float = 0, patience: float = 60) -> int | None:
        """Send one instance, over some seconds; the status, None without an answer."""
        self.ledger.tried[sent.uid] = sent
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            status = asyncio.run(send_slowly(sent, port, seconds, patience))
            self.ledger.answered(sent, status)
            return status
        return None

    def heal(self, workers: int = 2) -> None:
        """At least one receiver and two workers, as `check` needs them."""
        if not self.receivers():
            self.pipeline.start_receiver()
        for _ in range(workers - len(self.workers())):
            self.pipeline.start_worker()

    def shared_out(self) -> dict[str, tuple[int, ...]]:
        """Wait until every partition is somebody's, and every worker has some; who has which."""
        found: dict[str, tuple[int, ...]] = {}

        def settled() -> bool:
            nonlocal found
            found = members(self.settings)
            return (
                len(found) == len(self.workers())
                and all(found.values())
                and sum(map(len, found.values())) == self.settings.log.partitions
            )

        self.until(settled, "an assignment of all partitions")
        return found

    def report(self) -> Report:
        """What `status` says."""
        return read_report(self.settings, quick=True)

    def check(self, *, abandoned: int = 0, handmade: bool = False) -> Report:
        """Heal, wait until all is settled (I5), and check every invariant; the report at the end.

        ``abandoned``: uploads in parts that a kill may have left to the bucket's lifecycle rule; ``handmade``: the
        topic has uploads that no receiver wrote, or copies that differ, or has forgotten some by now, and the
        caller knows where they belong.
        """
        self.heal()
        try:
            report = self._settled()
            self.until(lambda: len(self.watch.marks) > 1, "a look")
            topic = read_topic(self.settings, self._starts)
            orphans = self.pipeline.orphans = self.pipeline.orphans | topic.begun
            self.until(lambda: is_read(self.settings, topic.ends, orphans), "I5: the end of each partition")
        finally:
            self.watch.stop()
        self.watch.look()
        if handmade:
            topic.uploads = [upload for upload in topic.uploads if upload.uid.startswith(self.stem)]
            assert_adds_up({place: getattr(report, place) for place in ("received", *PLACES)})
        else:
            assert not topic.twice, f"seed {self.seed}: records are in the log twice: {topic.twice[:5]}"
            self._check_account(report, topic)
        self._check_objects(topic, handmade=handmade)
        self._check_commits(topic)
        assert not self.watch.wrong, f"seed {self.seed}: {self.watch.wrong[:5]}"
        self._check_leftovers(topic, abandoned)
        self._check_processes()
        return report

    def _settled(self) -> Report:
        deadline = time.monotonic() + self._settle
        while True:
            self.heal()  # one that was excused may give up only now; who else ends is found by its exit code
            problem = ""
            try:
                report = self.report()
            except Exception as error:  # noqa: BLE001 - servers come back in their own time
                problem = f"{type(error).__name__}: {error}"
            else:
                if not report.backlog:
                    return report
                problem = f"I5: {report.backlog} are on their way"
            assert time.monotonic() < deadline, f"seed {self.seed}: {problem}\n{self._tails()}"
            time.sleep(0.2)

    def _tails(self) -> str:
        return "".join(f"{host.name}: {host.tail()}\n" for host in self.pipeline.hosts if host.running)

    def _check_account(self, report: Report, topic: Topic) -> None:
        """Each completed upload of the topic is counted once, at the place where it belongs."""
        counts = {
            name: getattr(report, name) - getattr(self._before, name)
            for name in (
                "received",
                "stored",
                "duplicates",
                "conflicts",
                "quarantined",
                "discarded",
                "backlog",
            )
        }
        instances = len({upload.uid for upload in topic.uploads})
        expected = dict.fromkeys(counts, 0) | {
            "received": len(topic.uploads), "stored": instances, "duplicates": len(topic.uploads) - instances,
        }  # fmt: skip
        assert counts == expected, f"seed {self.seed}: the account is {counts}, the topic says {expected}"
        assert report.log.lost == self._before.log.lost, f"seed {self.seed}: {report.log}"

    def _check_objects(self, topic: Topic, *, handmade: bool) -> None:
        """I1, I2 and I7: what was acknowledged is there, once, as sent; and nothing without its end record."""
        mine = {key for key in self.watch.seen if is_object(key) and uid_of(key).startswith(self.stem)}
        stored = {uid_of(key): key for key in mine}
        assert len(stored) == len(mine), f"seed {self.seed}: I1: one UID under two keys"
        missing = self.ledger.acknowledged - set(stored)
        assert not missing, (
            f"seed {self.seed}: I1: {len(missing)} of {len(self.ledger.acknowledged)} lost: {sorted(missing)[:5]}"
        )
        ended = {upload.uid for upload in topic.uploads}
        known = set(self.ledger.tried) if handmade else ended
        assert ended <= set(stored) <= known, f"seed {self.seed}: I2: {sorted(set(stored) ^ ended)[:5]}"
        for uid, key in stored.items():
            head = decode_head(self.watch.head(key))
            sent = hashlib.sha256(self.ledger.tried[uid].data_set()).hexdigest()
            assert head.manifest.source_digest == sent, f"seed {self.seed}: I1: {uid} altered"
            size = head.size + head.manifest.size
            assert self.watch.seen[key].size == size, f"seed {self.seed}: I2: {uid} is not whole"
        lanes = (str(Area.QUARANTINE), str(Area.CONFLICTS))
        wrong = [key for key in self.watch.seen if key.startswith(lanes) and f"/{self.stem}" in key]
        assert not wrong, f"seed {self.seed}: {wrong[:5]}"

    def _check_commits(self, topic: Topic) -> None:
        """I4: whatever lies below a commit was in the store when it was seen."""
        looks = {uid_of(key): found.look for key, found in self.watch.seen.items() if is_object(key)}
        passed: Counter[int] = Counter()  # partition -> the first look whose mark is above the upload
        for upload in sorted(topic.uploads):
            at = upload.partition
            marks = self.watch.marks
            while passed[at] < len(marks) and marks[passed[at]].get(at, 0) <= upload.first:
                passed[at] += 1
            assert looks[upload.uid] <= passed[at], f"seed {self.seed}: I4: {upload}"

    def _check_leftovers(self, topic: Topic, abandoned: int) -> None:
        """I6: nothing is left of what was on its way."""
        staged = [key for key in self.watch.objects() if key.startswith(("staging", "tmp"))]
        assert not staged, f"seed {self.seed}: I6: {staged}"
        parts = self._incomplete_uploads() - self._incomplete
        assert len(parts) <= abandoned, f"seed {self.seed}: I6: uploads in parts that nobody ends: {parts}"
        if not self.pipeline.orphans:  # else a part of them may wait there until they expire
            scratch = [path for host in self.workers() for path in host.scratch()]
            assert not scratch, f"seed {self.seed}: I6: {scratch}"

    def _check_processes(self) -> None:
        """I6: memory; and row 27: who was not killed has ended with 0."""
        for name, peak in self.watch.peaks.items():
            limit = MEMORY[name.partition("-")[0]]
            assert peak <= limit, f"seed {self.seed}: I6: {name} took {peak // _MiB} MiB"
        wrong = self.pipeline.wrong_ends()
        assert not wrong, f"seed {self.seed}: exit codes {wrong}"

    def _incomplete_uploads(self) -> set[str]:
        return self.pipeline.s3.incomplete_uploads() if self.pipeline.s3 is not None else set()


def wait_expired(pipeline: Distributed, servers: Sequence[str] = (), timeout: float = 60) -> None:
    """I5 and I6: in the end no upload without an end holds a partition, or has anything on a disk."""
    settings = _looking_at(load_settings(pipeline.config).settings, servers)
    ends = read_topic(settings, None).ends
    deadline = time.monotonic() + timeout
    while not is_read(settings, ends, {}):
        assert time.monotonic() < deadline, f"I5: {committed(settings)} of {ends}; {pipeline.orphans}"
        time.sleep(0.3)
    left = [path for host in pipeline.hosts if host.running for path in host.scratch()]
    assert not left, f"I6: {left}"


def _looking_at(settings: Settings, servers: Sequence[str]) -> Settings:
    if not servers:
        return settings
    return settings.model_copy(
        update={"kafka": settings.kafka.model_copy(update={"bootstrap_servers": tuple(servers)})}
    )
