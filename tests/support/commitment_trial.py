"""One seeded run of storage commitment over one death: a console that never gives up, and the account of its answers.

A study is stored, some of it is damaged, deleted, never sent or unreadable, and transactions of parts of it are asked
for. A process is killed at one step; whoever dies is replaced. Then, from outside: each request that was accepted has
led to one outcome, the same each time that it was reported, and success only to what the log has the proof of.
"""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ingest.cli.commitment_view import Records
from ingest.contract.commitments import CommitClosed, CommitDecided, CommitProved, Finding, found_of
from ingest.contract.failpoints import Failpoint
from ingest.contract.identifiers import TransactionId
from tests.support.console import Console, status_of_request
from tests.support.console import Report as Told
from tests.support.distributed import Host
from tests.support.scu import Scu, c_store, ct_data_set, run_closing
from workers.cli.status_report import Report

CONSOLE: Final = "CONSOLE"
TRANSACTIONS: Final = 3
_PATIENCE: Final = 150.0  # s; only what hangs meets it
_PROCESSING_FAILURE: Final = 0x0110
_NO_SUCH_INSTANCE: Final = 0x0112
_DUPLICATE_TRANSACTION_UID: Final = 0x0131


@dataclass(frozen=True)
class Step:
    """Where a process dies."""

    name: str
    victims: tuple[str, ...]
    point: Failpoint | None = None


STEPS: Final = (
    Step("request read", ("receiver",), Failpoint.ASKED),
    Step("fences written", ("receiver",), Failpoint.FENCED),
    Step("acceptance written", ("receiver",), Failpoint.ACCEPTED),
    Step("before the N-ACTION-RSP", ("receiver",), Failpoint.BEFORE_RESPONSE),
    Step("N-ACTION-RSP taken", ("receiver", "worker")),
    Step("before the proof", ("worker",), Failpoint.BEFORE_PROOF),
    Step("after the proof", ("worker",), Failpoint.AFTER_PROOF),
    Step("proof published", ("worker",), Failpoint.PROOF_PUBLISHED),
    Step("before the decision", ("receiver",), Failpoint.BEFORE_DECISION),
    Step("decision written", ("receiver",), Failpoint.DECIDED),
    Step("before the report", ("receiver",), Failpoint.BEFORE_REPORT),
    Step("report taken, not answered", ("receiver",)),
    Step("report answered", ("receiver",), Failpoint.REPORTED),
    Step("closing written", ("receiver",), Failpoint.CLOSED),
    Step("any moment", ("receiver", "worker")),
)


class Processes(Protocol):
    """One receiver and one worker over one log and store."""

    def start_receiver(self, failpoints: str = "") -> Host:
        """It accepts associations when this returns."""

    def start_worker(self, failpoints: str = "") -> Host:
        """It is at work, or soon will be."""

    def commitment_log(self) -> Records:
        """To be looked at from outside."""

    def objects(self) -> dict[str, Path]:
        """Stored objects by SOP Instance UID."""

    def report(self) -> Report:
        """The account of all that was received."""


class Trial:
    """See the module."""

    def __init__(self, processes: Processes, console: Console, step: Step, seed: int) -> None:
        self._processes = processes
        self._console = console
        console.taken = self._report_taken
        self._step = step
        self._random = random.Random(f"{step.name} {seed}")
        self._root = f"1.2.826.7.{STEPS.index(step)}.{seed}"
        self._good = [f"{self._root}.1.{number}" for number in range(4)]
        self._late = [f"{self._root}.2.{number}" for number in range(4)]
        self._failing = {
            f"{self._root}.5.1": _PROCESSING_FAILURE,  # flipped
            f"{self._root}.5.2": _PROCESSING_FAILURE,  # cut
            f"{self._root}.5.3": _NO_SUCH_INSTANCE,  # deleted
            f"{self._root}.5.4": _PROCESSING_FAILURE,  # in quarantine
            f"{self._root}.5.5": _NO_SUCH_INSTANCE,  # never sent
        }
        self._asked: dict[str, list[str]] = {}
        self._reports: list[Told] = []
        self._turn = self._random.randint(1, TRANSACTIONS)
        self._hosts: dict[str, Host] = {}
        self._taken = 0
        self._kills = 0
        self.where = f"step {step.name!r}, seed {seed}"

    def run(self) -> None:
        """All of it.

        Raises:
            AssertionError: a promise was broken.
        """
        with ExitStack() as stack:
            stack.callback(self._kill_all)
            self._prepare()
            if self._step.name == "any moment":
                moment = threading.Timer(self._random.uniform(0, 2.5), self._kill_victims)
                moment.start()
                stack.callback(moment.join)
            for number in range(TRANSACTIONS):
                self._ask(f"{self._root}.4.{number}")
            self._until(self._is_over)
            self._until(lambda: self._kills)
            self._revive()
            self._until(self._is_over)  # and the next life has nothing more to say
            self._end()
        self._check()

    def _prepare(self) -> None:
        self._start()
        *sent, _ = self._failing
        *stored, unreadable = sent
        run_closing(_store(self._port, [*self._good, *sent], unreadable))
        expected = {*self._good, *stored}
        # Settled: what is not is stored again by a worker that starts anew, whatever happens to its object.
        self._until(lambda: self._processes.report().backlog == 0)
        assert self._processes.objects().keys() == expected, self.where
        self._damage()
        run_closing(_store(self._port, self._late))

    def _end(self) -> None:
        self._console.release_all()
        self._hosts["worker"].wait_said('"worker started"')  # before that, a signal just ends it
        for name, host in self._hosts.items():
            assert host.stop() == 0, f"{self.where}: {name}: {host.tail()}"

    def _report_taken(self, _report: Told) -> None:
        """The console has it, and will answer it when this returns."""
        self._taken += 1
        if self._step.name == "report taken, not answered" and self._taken == self._turn:
            self._kill_victims()

    # Processes

    @property
    def _port(self) -> int:
        return self._hosts["receiver"].port

    def _start(self) -> None:
        failpoints = {"receiver": "", "worker": ""}
        if self._step.point is not None:
            before = 0  # what passes the point earlier: the answers to C-STORE
            if self._step.point is Failpoint.BEFORE_RESPONSE:
                before = len(self._good) + len(self._failing) - 1 + len(self._late)
            failpoints[self._step.victims[0]] = f"{self._step.point}=kill@{before + self._turn}"
        self._hosts["receiver"] = self._processes.start_receiver(failpoints["receiver"])
        self._hosts["worker"] = self._processes.start_worker(failpoints["worker"])

    def _kill_victims(self) -> None:
        for name in self._step.victims:
            self._hosts[name].kill()

    def _kill_all(self) -> None:
        for host in self._hosts.values():
            host.kill()

    def _revive(self) -> None:
        """Another for each that was killed; nothing may end otherwise."""
        for name, host in self._hosts.items():
            if host.running:
                continue
            assert host.process.returncode == -signal.SIGKILL, f"{self.where}: {name}: {host.tail()}"
            self._kills += 1
            start = self._processes.start_receiver if name == "receiver" else self._processes.start_worker
            self._hosts[name] = start()

    def _until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            self._revive()
            ends = "".join(host.tail() for host in self._hosts.values())
            assert time.monotonic() < deadline, f"{self.where}: {ends}"
            time.sleep(0.05)

    # The console

    def _damage(self) -> None:
        objects = self._processes.objects()
        flipped, cut, deleted = (objects[uid] for uid in [*self._failing][:3])
        data = bytearray(flipped.read_bytes())
        data[-100] ^= 1
        flipped.write_bytes(data)
        cut.write_bytes(cut.read_bytes()[:-1])
        deleted.unlink()

    def _ask(self, transaction_uid: str) -> None:
        uids = [*self._good, *self._late, *self._failing]
        part = self._random.sample(uids, self._random.randint(1, len(uids)))
        self._asked[transaction_uid] = part
        unanswered = False
        while True:
            self._revive()
            association = self._console.associate(self._port)
            if not association.is_established:
                continue
            try:
                status = status_of_request(association, part, transaction_uid)
            except RuntimeError:
                # pynetdicom's, before it sends, where the association is gone: the receiver may die of an earlier report meanwhile.
                assert not association.is_established, self.where
                continue
            if status is not None:
                break
            unanswered = True
        # Used up already, when the answer that was lost was success.
        taken = {0x0000, _DUPLICATE_TRANSACTION_UID} if unanswered else {0x0000}
        assert status in taken, f"{self.where}: {status:04X}H"
        if self._step.name == "N-ACTION-RSP taken" and len(self._asked) == self._turn:
            self._kill_victims()

    def _is_over(self) -> bool:
        """All is reported, and the log has nothing open."""
        while not self._console.reports.empty():
            self._reports.append(self._console.reports.get())
        if {report.transaction_uid for report in self._reports} != self._asked.keys():
            return False
        return self._closed().keys() == {TransactionId.of(CONSOLE, uid) for uid in self._asked}

    def _closed(self) -> Counter[TransactionId]:
        log = self._processes.commitment_log()
        try:
            return Counter(
                entry.transaction_id for entry in log.entries() if isinstance(entry.commitment, CommitClosed)
            )
        finally:
            log.close()

    # Promises

    def _check(self) -> None:
        assert self._is_over(), self.where
        repeated = len(self._reports) - len(self._asked)
        # One report at a time goes to a source: where a receiver dies, nobody may know that it was taken.
        assert repeated <= ("receiver" in self._step.victims), f"{self.where}: {repeated} reports too many"
        assert set(self._closed().values()) == {1}, f"{self.where}: closed more than once"
        for report in self._reports:
            asked = self._asked[report.transaction_uid]
            committed = {uid for uid in asked if uid not in self._failing}
            failed = {uid: self._failing[uid] for uid in asked if uid in self._failing}
            assert (set(report.committed), dict(report.failed)) == (
                committed,
                failed,
            ), f"{self.where}: {report}, not {failed}"
        assert len(set(self._reports)) == len(self._asked), f"{self.where}: a report that came again differs"
        self._check_proofs()
        account = self._processes.report()
        received = len(self._good) + len(self._failing) - 1 + len(self._late)
        # What is found damaged moves from the store to quarantine.
        places = (
            account.stored + account.quarantined,
            account.backlog,
            account.duplicates,
            account.conflicts,
        )
        assert (account.received, *places) == (received, received, 0, 0, 0), self.where

    def _check_proofs(self) -> None:
        """Whatever was committed, was proved before the decision; the log says so in this order."""
        log = self._processes.commitment_log()
        try:
            proved: dict[TransactionId, dict[str, Finding]] = {}
            decided = set()
            for entry in log.entries():
                if isinstance(entry.commitment, CommitProved) and entry.transaction_id not in decided:
                    found = found_of(log.fetch(entry.location))
                    findings = proved.setdefault(entry.transaction_id, {})
                    findings.update((one.sop_instance_uid, one.finding) for one in found)
                elif isinstance(entry.commitment, CommitDecided):
                    decided.add(entry.transaction_id)
        finally:
            log.close()
        for report in self._reports:
            findings = proved[TransactionId.of(CONSOLE, report.transaction_uid)]
            assert {uid for uid, finding in findings.items() if finding is Finding.PROVED} == set(
                report.committed
            ), self.where


async def _store(port: int, uids: Iterable[str], unreadable: str = "") -> None:
    """Acknowledged under another AE title of the console's."""
    scu = await Scu.associated(port)
    for uid in uids:
        data_set = ct_data_set(uid, 8192)
        if uid == unreadable:
            data_set = data_set.replace(b"1.2.3.4\0", b"1.2.3.x\0")  # an invalid Study Instance UID
        await scu.send(c_store(uid, data_set))
        response = await scu.response(_PATIENCE)
        assert response.status == 0, response
    await scu.release()
