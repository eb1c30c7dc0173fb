"""A commitment log, receivers that crash and repeat, and workers: storage commitment without time, disk or network."""

import itertools
import random
from dataclasses import dataclass, field

from ingest.commitment.carrying import carried_payloads
from ingest.commitment.deliveries import NO_ASSOCIATION, REFUSED
from ingest.commitment.reading import Known, known_from
from ingest.commitment.rounds import Fence, ProofsDoNotFit, Verdict, fences_of
from ingest.commitment.rules import Patience, Rules
from ingest.commitment.transaction import Clock, Transaction
from ingest.commitment.transactions import Action, Step, Transactions
from ingest.contract.commitments import (
    CommitAccepted,
    CommitAttempted,
    CommitClosed,
    CommitDecided,
    Commitment,
    CommitProved,
    CommitRequested,
    CommitTaken,
    Finding,
    Found,
    Reference,
    digest_of,
    first_round,
)
from ingest.contract.identifiers import TransactionId
from ingest.contract.records import Kind, Record, decode
from ingest.log.commitment_log import Entry, Location, Written, entry_of

CT = "1.2.840.10008.5.1.4.1.1.2"
PARTITIONS = 4
START = 1_700_000_000 * 10**9
GRACE, LIMIT, CLAIM = 30.0, 300.0, 60.0
LONGEST = 3.0  # s that a report may take
SENT = -1  # the stage of a delivery that is waited for


def patience_of(_: CommitAccepted) -> Patience:
    return Patience(GRACE, LIMIT)


def machine(receiver: int = 1, epoch: int = 1, *, shared: bool = False, remember: int = 1000) -> Transactions:
    return Transactions(Rules(receiver, epoch, shared, CLAIM, remember, patience_of))


@dataclass
class Log:
    """The commitment log: all partitions in one order, which is more order than there is."""

    entries: list[tuple[Entry, Record]] = field(default_factory=list)
    unreadable: set[int] = field(default_factory=set)

    def write(
        self,
        transaction_id: TransactionId,
        commitment: Commitment,
        found: list[Found] | list[Reference] | None = None,
        *,
        carried: bool = False,
    ) -> None:
        header, payload = Written(transaction_id, commitment, found or (), carried=carried).encode()
        record = decode(header + bytes(payload))
        place = Location(0, len(self.entries))
        self.entries.append((entry_of(place, len(header) + len(payload), record), record))

    def lose(self, chosen: random.Random) -> None:
        """One record with instances cannot be read any more; a start does not even see it."""
        payloads = (Kind.COMMIT_PROVED, Kind.COMMIT_REQUESTED)
        places = [at for at, (_, record) in enumerate(self.entries) if record.kind in payloads]
        if places:
            self.unreadable.add(chosen.choice(places))


@dataclass
class Request:
    """An N-ACTION of the world: which instances, and what a worker will find of each from when on."""

    uid: str
    references: list[Reference]
    proved_from: dict[Reference, float]
    trouble_until: float  # stores do not answer before
    ae_title: str = "CT"
    asked: bool = False

    @property
    def id(self) -> TransactionId:
        return TransactionId.of(self.ae_title, self.uid)

    def find(self, references: list[Reference], now: float) -> list[Found]:
        found = []
        for reference in references:
            if now < self.trouble_until:
                finding = Finding.UNAVAILABLE
            elif now >= self.proved_from[reference]:
                finding = Finding.PROVED
            else:
                finding = Finding.ABSENT
            found.append(Found(reference.sop_class_uid, reference.sop_instance_uid, finding))
        return found


class Receiver:
    """What the engine does, each step broken off where the seed says."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.number = number
        self.epoch = 0
        self.restart()

    def restart(self) -> None:
        self.epoch += 1
        self.asleep_until = 0.0
        self.world.sending = [one for one in self.world.sending if one[1] != self.number]
        self.machine = machine(self.number, self.epoch, shared=self.world.shared)
        self.read_to = 0
        self.there = len(self.world.log.entries)
        self.doing: list[tuple[float, Step, int]] = []
        self.refused: set[TransactionId] = set()

    def turn(self) -> None:
        world = self.world
        if world.shared and world.chance(
            0.02
        ):  # a machine that stands still, or brokers that it does not reach
            self.asleep_until = world.now + world.random.random() * 2 * CLAIM
        if world.now < self.asleep_until:
            return
        self.machine.replaying = self.read_to < self.there
        behind = len(world.log.entries) - self.read_to
        for _ in range(behind if world.chance(0.7) else world.random.randint(0, behind)):
            self.machine.replaying = self.read_to < self.there
            if self.read_to not in world.log.unreadable:
                self.machine.apply(world.log.entries[self.read_to][0], world.clock())
            self.read_to += 1
        if world.chance(0.6) and not self.machine.replaying:
            running = sum(step.action is Action.DELIVER for _, step, _ in self.doing)
            for step in self.machine.due(world.now, max(0, 2 - running)):
                self.doing.append((world.now + world.random.random() * 3, step, 0))
        for one in [one for one in self.doing if one[0] <= world.now]:
            if one in self.doing:  # else the start that was doing it is over
                self.doing.remove(one)
                self.act(one[1], one[2])

    def act(self, step: Step, stage: int) -> None:
        try:
            self.do(step, stage)
        except ProofsDoNotFit:  # what was asked about is lost, and an administrator gives it up
            assert self.world.losses
            self.world.log.write(step.transaction.id, CommitClosed("expired", 0, 0, self.world.wall))
            self.machine.finished(step, self.world.now)

    def do(self, step: Step, stage: int) -> None:
        world, transaction = self.world, step.transaction
        accepted = transaction.accepted
        assert accepted is not None
        if step.action is Action.LAGGING:
            return
        if stage == SENT:
            if self.deliver(step):
                self.doing.append((world.now, step, len(world.log.entries)))
            return
        if stage:  # wait until our own record is read
            if self.read_to < stage:
                self.doing.append((world.now + 0.1, step, stage))
                return
        elif step.action is Action.CLAIM:
            world.log.write(transaction.id, CommitTaken(self.number, self.epoch, CLAIM, world.wall))
            self.doing.append((world.now, step, len(world.log.entries)))
            return
        elif step.action is Action.DECIDE:
            known = self.known(transaction, transaction.base + transaction.round)
            lacking = known.lost or not known.findings.is_complete()
            if lacking and transaction.repairs < 3 and known.findings.open():
                transaction.repairs += 1
                self.ask_round(transaction, known.findings.open())
                self.machine.finished(step, world.now)
                return
            number = transaction.base + transaction.round
            digest = known.findings.verdict().digest()
            world.log.write(transaction.id, CommitDecided(number, world.wall, digest))
            self.doing.append((world.now, step, len(world.log.entries)))
            return
        elif step.action is Action.ASK:
            references = self.known(transaction, transaction.base + transaction.round).findings.open()
            if references and not self.ask_round(transaction, references):
                self.machine.finished(step, world.now, 1.0)
                return
            if not references:
                transaction.absent = transaction.unavailable = 0
        elif step.action in (Action.ASK_AGAIN, Action.GIVE_UP):
            self.ask_again(step)
        elif step.action is Action.DELIVER:
            if not self.may_send(transaction):  # the next step claims it
                self.machine.finished(step, world.now)
                return
            seconds = world.random.random() * LONGEST
            world.sends(transaction.id, self.number, seconds)
            self.doing.append((world.now + seconds, step, SENT))
            return
        self.machine.finished(step, world.now)

    def ask_round(self, transaction: Transaction, references: list[Reference]) -> bool:
        """Another round; whether the log took it."""
        world = self.world
        number = transaction.base + transaction.round + 1
        fences = fences_of(references, PARTITIONS)
        if not world.ask(world.requests[transaction.id], number, fences, whole=not world.chance(0.1)):
            return False
        self.machine.asked(transaction, transaction.round + 1, world.now, sure=transaction.sure)
        return True

    def ask_again(self, step: Step) -> None:
        """What is missing of the round that is out, or that nobody found it out."""
        world, transaction = self.world, step.transaction
        number = transaction.base + transaction.round + 1
        references = self.known(transaction, number - 1).findings.open()
        fences = fences_of(references, PARTITIONS)
        missing = [part for part in range(len(fences)) if not transaction.has(part, len(fences))]
        if step.action is Action.ASK_AGAIN:
            world.ask(world.requests[transaction.id], number, fences, whole=True, parts=missing)
            self.machine.asked_again(transaction, world.now)
            return
        for part in missing:
            world.given_up += 1
            found = [
                Found(one.sop_class_uid, one.sop_instance_uid, Finding.UNDECIDED)
                for one in fences[part].references
            ]
            world.log.write(transaction.id, CommitProved(number, part, len(fences), 0, world.wall), found)

    def may_send(self, transaction: Transaction) -> bool:
        """As the engine: under a claim that outlasts the report."""
        left = transaction.claim_until - self.world.now
        return not self.world.shared or (transaction.claim_mine and left > LONGEST)

    def deliver(self, step: Step) -> bool:
        world, transaction = self.world, step.transaction
        decided = transaction.decided
        assert decided is not None
        known = self.known(transaction, decided.round)
        verdict = known.findings.verdict()
        if known.lost or verdict.digest() != decided.digest:
            world.log.write(transaction.id, CommitClosed("expired", 0, 0, world.wall))
            return True
        if world.chance(0.3):
            attempts = transaction.attempted.attempts + 1 if transaction.attempted else 1
            problem = NO_ASSOCIATION if world.chance(0.5) else REFUSED
            world.log.write(transaction.id, CommitAttempted(attempts, problem, 2.0**attempts, world.wall))
            return True
        world.reported(transaction.id, verdict)
        if world.chance(0.2):
            self.restart()  # before the log knows
            return False
        closed = CommitClosed("reported", len(verdict.committed), len(verdict.failed), world.wall)
        world.log.write(transaction.id, closed)
        return True

    def known(self, transaction: Transaction, last: int) -> Known:
        """What the log has of it; whoever cannot be read is forgotten."""
        assert transaction.accepted is not None
        requested, lost = self.records(transaction, transaction.request_locations())
        proofs, more_lost = self.records(transaction, transaction.proof_locations(last))
        return known_from(transaction.accepted, requested, proofs, lost + more_lost)

    def records(self, transaction: Transaction, places: list[Location]) -> tuple[list[Record], int]:
        log = self.world.log
        lost = [place for place in places if place.position in log.unreadable]
        for place in lost:
            assert transaction.lose(place)
        return [log.entries[place.position][1] for place in places if place not in lost], len(lost)

    def carry(self) -> None:
        """Write the records of one transaction again, as if they were about to leave the log."""
        transactions = list(self.machine)
        if not transactions or self.read_to < len(self.world.log.entries):
            return
        transaction = self.world.random.choice(transactions)
        accepted, decided = transaction.accepted, transaction.decided
        assert accepted is not None
        last = decided.round if decided else transaction.base + transaction.round
        requested, _ = self.records(transaction, transaction.request_locations())
        proofs, _ = self.records(transaction, transaction.proof_locations())
        for written in carried_payloads(transaction, requested, proofs, last):
            found = list(written.found)
            self.world.log.write(transaction.id, written.commitment, found, carried=True)  # type: ignore[arg-type]
        for commitment in (accepted, decided, transaction.attempted):
            if commitment is not None:
                self.world.log.write(transaction.id, commitment, carried=True)

    def ask(self, request: Request) -> None:
        """N-ACTION; broken off anywhere, it is asked again by the peer."""
        if self.machine.get(request.id) or self.machine.is_closed(request.id) or request.id in self.refused:
            return
        world = self.world
        if self.read_to < self.there:
            return
        number = first_round(digest_of(request.references))
        fences = fences_of(request.references, PARTITIONS)
        parts = len(fences)
        if not world.ask(request, number, fences, whole=not world.chance(0.1)):
            self.restart()
            return
        world.log.write(request.id, CommitRequested(number, 0), request.references)
        accepted_at = world.wall
        for _ in range(world.random.randint(0, 3)):
            world.work()
        accepted = CommitAccepted(
            request.uid, request.ae_title, "US", "", len(request.references), digest_of(request.references),
            parts, self.number, self.epoch, CLAIM if world.shared else 0.0, accepted_at,
        )  # fmt: skip
        self.refused.add(request.id)
        world.log.write(request.id, accepted)
        request.asked = True


class World:
    """Peers, instance log, workers and time."""

    def __init__(self, seed: int, receivers: int, losses: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.shared = receivers > 1
        self.now = 0.0
        self.losses = (
            losses  # the share of fences that vanish, and 200 times that of turns in which a record does
        )
        self.given_up = 0
        self.log = Log()
        self.fences: list[tuple[TransactionId, int, int, int, list[Reference]]] = []
        self.requests: dict[TransactionId, Request] = {}
        self.reports: dict[TransactionId, list[Verdict]] = {}
        self.sending: list[tuple[TransactionId, int, float]] = []  # by whom, and until when
        self.receivers = [Receiver(self, 1 + number) for number in range(receivers)]

    @property
    def wall(self) -> int:
        return START + int(self.now * 1e9)

    def clock(self) -> Clock:
        return Clock(self.now, self.wall)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def request(self, number: int) -> Request:
        count = self.random.randint(1, 6)
        references = [Reference(CT, f"1.2.{number}.{index}") for index in range(count)]
        never = self.random.random() < 0.3
        proved_from = {
            one: 1e9 if never and self.chance(0.5) else self.random.choice([0, 0, 9, 25])
            for one in references
        }
        trouble = self.random.choice([0.0, 0.0, 0.0, 40.0, 1e9])
        request = Request(f"1.9.{number}", references, proved_from, trouble, self.random.choice(["CT", "MR"]))
        self.requests[request.id] = request
        return request

    def ask(
        self,
        request: Request,
        number: int,
        fences: list[Fence],
        *,
        whole: bool,
        parts: list[int] | None = None,
    ) -> bool:
        """Write fences, all or some of them; whether it was all."""
        wanted = list(range(len(fences))) if parts is None else parts
        for part in wanted if whole else wanted[: self.random.randint(0, len(wanted))]:
            if not self.chance(self.losses):  # else it is lost to damage, or to retention
                self.fences.append((request.id, number, part, len(fences), list(fences[part].references)))
        return whole

    def lose(self) -> None:
        """Damage and retention of what was found."""
        if self.chance(self.losses / 200):
            self.log.lose(self.random)

    def work(self) -> None:
        """A worker reaches a fence; it may die before it says that it has, and then does it again."""
        if not self.fences:
            return
        fence = self.random.choice(self.fences)
        transaction_id, number, part, parts, references = fence
        if self.chance(0.1):
            return  # dies before
        found = self.requests[transaction_id].find(references, self.now)
        proved = CommitProved(number, part, parts, 0, self.wall + self.random.randint(-5, 5))
        self.log.write(transaction_id, proved, found)
        if not self.chance(0.2):  # else it dies after
            self.fences.remove(fence)

    def sends(self, transaction_id: TransactionId, receiver: int, seconds: float) -> None:
        """A receiver is about to send a report, for so long; no other may at the same time."""
        self.sending = [one for one in self.sending if one[2] > self.now]
        rivals = [one for one in self.sending if one[0] == transaction_id and one[1] != receiver]
        assert not rivals, "sent by two receivers at once"
        self.sending.append((transaction_id, receiver, self.now + seconds))

    def reported(self, transaction_id: TransactionId, verdict: Verdict) -> None:
        self.reports.setdefault(transaction_id, []).append(verdict)

    def run(self, requests: int) -> None:
        coming = [self.request(number) for number in range(requests)]
        for turn in itertools.count():
            self.now += self.random.random() * (2 if turn < 200 else 20)
            waiting = [request for request in coming if not request.asked]
            if waiting and self.chance(0.4):
                self.random.choice(self.receivers).ask(self.random.choice(waiting))
            if self.chance(0.8):
                self.work()
            self.lose()
            for receiver in self.receivers:
                receiver.turn()
                if turn < 500 and self.chance(0.03):
                    receiver.restart()
                if self.chance(0.05):
                    receiver.carry()
            if not waiting and not self.fences and self.over():
                return
            assert turn < 5000, "something was forgotten"

    def over(self) -> bool:
        return all(
            receiver.read_to == len(self.log.entries) and not len(receiver.machine)
            for receiver in self.receivers
        )

    def check(self) -> None:
        closed = {
            entry.transaction_id
            for entry, _ in self.log.entries
            if isinstance(entry.commitment, CommitClosed)
        }
        assert closed == set(self.requests)
        for transaction_id, request in self.requests.items():
            if self.losses and transaction_id not in self.reports:
                continue  # what was decided is lost, and an administrator gave it up
            verdicts = self.reports[transaction_id]
            assert all(verdict == verdicts[0] for verdict in verdicts), "a report that changed"
            said = [*verdicts[0].committed, *verdicts[0].failed]
            assert {Reference(*one[:2]) for one in map(tuple_of, said)} == set(request.references)
            for one in verdicts[0].committed:
                assert one.finding is Finding.PROVED
                assert request.trouble_until < 1e9
                assert request.proved_from[Reference(one.sop_class_uid, one.sop_instance_uid)] < 1e9
            if (
                not self.losses
                and request.trouble_until <= 40
                and all(at < GRACE for at in request.proved_from.values())
            ):
                assert not verdicts[0].failed, "failed before its time"


def tuple_of(found: Found) -> tuple[str, str]:
    return found.sop_class_uid, found.sop_instance_uid
