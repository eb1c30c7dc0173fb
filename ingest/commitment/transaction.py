"""One open transaction: what its records say, and where they are. Pure; no I/O, no clock.

Times are seconds of whatever clock the caller passes in, and never that of a record; see `Clock`.
"""

import sys
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

from ingest.contract.commitments import (
    MAX_PARTS,
    MAX_ROUNDS,
    CommitAccepted,
    CommitAttempted,
    CommitDecided,
    CommitProved,
    CommitRequested,
    CommitTaken,
    first_round,
)
from ingest.contract.identifiers import TransactionId
from ingest.log.commitment_log import Entry, Location

NEVER: Final = float("inf")
_LONG_AGO: Final = float("-inf")
_STRIDE: Final = 3  # key, location, stamp of a proof
_LOCATION_BITS: Final = 48  # of a position; the partition is above
_PART_BITS: Final = 12
assert 1 << _PART_BITS == MAX_PARTS
_LEAST: Final = 40  # bytes of an instance in a record
_PART_SIZE: Final = 256  # bytes of a record besides its instances
_SMALL_SIZE: Final = 16 * 1024  # bytes of the groups with an acceptance, a decision, an attempt and the end
_LONGEST_ROUND: Final = MAX_ROUNDS << 32


def promise_of(size: int, references: int, parts: int) -> int:
    """The most bytes that the commitment log needs at a time for a request whose records have ``size`` bytes.

    These are the request itself, one answer to each instance, and another round of answers before it is carried
    forward (see `carrying`); small records, and what a segment wastes at its end, come on top.
    """
    whole = 3 * (max(size, references * _LEAST) + references)
    return (whole + 3 * parts * _PART_SIZE + _SMALL_SIZE) * 5 // 4


class Clock(NamedTuple):
    """One moment by two clocks: seconds that only grow, and the wall clock of records, which may be wrong."""

    now: float
    wall: int  # nanoseconds since 1970-01-01 UTC

    def seconds(self, stamp: int) -> float:
        """When a record with this stamp was written, by the clock that only grows: never in the future."""
        return self.now - max(0, self.wall - stamp) / 1e9


class _Tally(NamedTuple):
    """The parts of a round so far."""

    parts: int = 0
    absent: int = 0
    unavailable: int = 0


class Transaction:
    """Made of records in the order of the log; a record that comes again changes nothing."""

    __slots__ = (
        "absent",
        "accepted",
        "accepted_at",
        "accepted_location",
        "asked_at",
        "asked_last",
        "asked_round",
        "askings",
        "attempt_location",
        "attempted",
        "born_at",
        "busy",
        "claim_mine",
        "claim_until",
        "completed_at",
        "decided",
        "decided_location",
        "due",
        "held",
        "id",
        "lag_at",
        "next_attempt",
        "not_before",
        "promise",
        "proofs",
        "repairs",
        "requested",
        "round",
        "size",
        "sure",
        "tallies",
        "tried_since",
        "turn",
        "unavailable",
    )

    def __init__(self, transaction_id: TransactionId, now: float) -> None:
        self.id = transaction_id
        self.born_at = now  # when its first record was read
        self.accepted: CommitAccepted | None = None
        self.accepted_at = 0.0
        self.accepted_location = 0
        # Round and part, location: of each record with instances that were asked about.
        self.requested = array("Q")
        self.decided: CommitDecided | None = None
        self.decided_location = 0
        self.attempted: CommitAttempted | None = None
        self.attempt_location = 0
        self.tried_since = 0.0  # when it was decided, or was last asked to be tried for as long again
        self.next_attempt = 0.0
        self.proofs = array("Q")
        self.tallies: dict[int, _Tally] | None = None  # of rounds that are not complete, by round and parts
        self.round = -1  # the last that is complete, counted from 0
        self.absent = 0  # findings of that round
        self.unavailable = 0
        self.completed_at = 0.0
        self.asked_round = -1  # the last that is known to be asked
        # Since when all that it finds was found; long ago where it may have been asked before, by another, or by
        # us before this start. An absence found then says nothing of later.
        self.asked_at = 0.0
        self.asked_last = now  # when the round that is out was asked, as far as this start knows
        self.askings = 1  # how often it was
        self.repairs = 0  # rounds that were asked since a proof could not be read any more
        self.sure = False  # whether nobody can have asked the round that follows the last complete one
        self.claim_mine = False
        self.claim_until = _LONG_AGO
        self.size = 0  # bytes of the records of its request
        self.promise = 0  # bytes that its records may come to, once it is accepted
        # of the schedule
        self.due = NEVER
        self.busy = False
        self.held = False
        self.lag_at = 0.0
        self.not_before = _LONG_AGO
        self.turn = NEVER  # when it is to be reported, see `Deliveries`

    # Records, in the order of the log

    def request(self, entry: Entry, record: CommitRequested) -> None:
        """Some of the instances that the N-ACTION asks about; it comes before its acceptance."""
        if self.accepted is not None and record.round != self.base:
            return
        key = _request_key(record)
        if key is None:
            return
        known = self.requested[0::2]
        if key not in known:
            self.requested.extend((key, _packed(entry.location)))
            self.size += entry.size
        elif entry.carried:
            self.requested[2 * known.index(key) + 1] = _packed(entry.location)

    def accept(self, entry: Entry, record: CommitAccepted, clock: Clock, *, sure: bool) -> bool:
        """An N-ACTION was accepted, ``sure`` if by us; whether it is this transaction's, the first time or again."""
        if self.accepted is not None:
            if record.digest != self.accepted.digest:
                return False
            if entry.carried:
                self.accepted_location = _packed(entry.location)
            return True
        self.accepted = msgspec.structs.replace(
            record,
            calling_ae_title=sys.intern(record.calling_ae_title),
            called_ae_title=sys.intern(record.called_ae_title),
            source=sys.intern(record.source),
        )
        self.accepted_at = clock.seconds(record.accepted_at)
        self.accepted_location = _packed(entry.location)
        self.promise = promise_of(self.size, record.references, record.parts)
        self.asked_last = clock.now
        # What was read before must be of an earlier N-ACTION with the same references, which failed.
        fresh = sure and self.born_at >= self.accepted_at
        self.asked_round, self.asked_at = 0, self.accepted_at if fresh else _LONG_AGO
        self._forget_others()
        self._advance(self.accepted_at, sure=sure)
        return True

    def prove(self, entry: Entry, record: CommitProved, clock: Clock, *, live: bool, sure: bool) -> None:
        """A worker proved a part; the first to say so counts, or what was carried forward of it.

        ``live``: it has just been written, whatever the worker's clock says. ``sure``: nobody but us can have
        asked another round since.
        """
        key = _key(record)
        if key is None:
            return
        known = self._find(key)
        if known is not None:
            same = self.proofs[known + 2] == entry.stamp
            if entry.carried:
                self.proofs[known + 1], self.proofs[known + 2] = _packed(entry.location), entry.stamp
                if not same:  # what it replaces cannot be taken out of the count: at worst a round too many
                    self._count(key, entry, parts=0)
            return
        if self.accepted is not None and not self.round < self._round_of(key) < MAX_ROUNDS:
            return
        self.proofs.extend((key, _packed(entry.location), entry.stamp))
        self._count(key, entry, parts=1)
        self._advance(clock.now if live else clock.seconds(record.proved_at), sure=sure)

    def decide(self, entry: Entry, record: CommitDecided, at: float) -> None:
        """From here on, which is ``at``, the report is the same each time."""
        if self.decided is None:
            self.tried_since = at
        if self.decided is None or entry.carried:
            self.decided, self.decided_location = record, _packed(entry.location)

    def attempt(self, entry: Entry, record: CommitAttempted, clock: Clock, at: float) -> bool:
        """A report was not taken, or somebody wants it tried again, ``at`` that moment; whether that is news."""
        before = self.attempted
        if entry.carried and before is not None and before != record:
            return False  # a newer one came between
        self.attempted, self.attempt_location = record, _packed(entry.location)
        if not record.attempts and before != record:
            self.tried_since = at
        self.next_attempt = clock.seconds(record.attempted_at) + record.wait
        return True

    def take(self, record: CommitTaken, clock: Clock, *, mine: bool, overdue: bool) -> None:
        """One receiver's claim; the first that is valid wins, and its owner may prolong it.

        Ours counts from before it was written, another's from now: whoever reads late, two never hold it at once.
        What is ``overdue`` another claims to ask it again: then there is no need that we do, too.
        """
        if self.claim_until > clock.now and self.claim_mine != mine:
            return
        if overdue and not mine:
            self.asked_again(clock.now)
        begun = clock.seconds(record.taken_at) if mine else clock.now
        self.claim_mine, self.claim_until = mine, begun + record.seconds
        self.sure = self.sure and mine

    def asked(self, number: int, begun: float, *, sure: bool) -> None:
        """The fences of the round ``number``, counted from 0, are in the instance log; it may have been proved meanwhile.

        ``begun`` is a moment before the first of them, ``sure`` whether it was known then that nobody had asked it.
        """
        if number >= self.round:
            self.asked_round = number
            self.asked_at = begun if sure else _LONG_AGO
            self.asked_last, self.askings = begun, 1

    def asked_again(self, now: float) -> None:
        """So are the missing ones of the round that is out, once more: what comes of either asking counts."""
        self.asked_last = now
        self.askings += 1

    def lose(self, location: Location) -> bool:
        """The proof, or part of the request, at this location cannot be read any more; whether one is there."""
        lost = _packed(location)
        for records, stride in ((self.proofs, _STRIDE), (self.requested, 2)):
            for at in range(0, len(records), stride):
                if records[at + 1] == lost:
                    del records[at : at + stride]
                    return True
        return False

    # What follows from them

    @property
    def is_round_over(self) -> bool:
        """Whether no round is out: all parts of the last that was asked are proved."""
        return self.round >= self.asked_round

    @property
    def base(self) -> int:
        """The number of the first round."""
        assert self.accepted is not None
        return first_round(self.accepted.digest, self.accepted.salt)

    @property
    def missing(self) -> int:
        """Parts of the round that was asked for and are not proved; 0 when none is out, or none was heard of."""
        prefix = self.base + self.asked_round
        for key, tally in (self.tallies or {}).items():
            if key >> _PART_BITS == prefix:
                return key % MAX_PARTS - tally.parts
        return 0

    def has(self, part: int, parts: int) -> bool:
        """Whether this part of the round that is out is proved."""
        head = (self.base + self.asked_round) << _PART_BITS | parts
        return self._find(head << _PART_BITS | part) is not None

    def request_locations(self) -> list[Location]:
        """Of the instances that were asked about, in their order."""
        pairs = zip(self.requested[0::2], self.requested[1::2], strict=True)
        return [_location(location) for _, location in sorted(pairs)]

    def proof_locations(self, last_round: int | None = None) -> list[Location]:
        """Of the proofs of all rounds, or of those up to the one with this number, the first first."""
        pairs = sorted(zip(self.proofs[0::_STRIDE], self.proofs[1::_STRIDE], strict=True))
        limit = _LONGEST_ROUND if last_round is None else last_round + 1
        return [_location(location) for key, location in pairs if key < limit << 2 * _PART_BITS]

    @property
    def oldest(self) -> int:
        """The lowest position of its records that matter, where the log has one partition."""
        return min(location.position for location in self._locations())

    def is_below(self, thresholds: Mapping[int, int]) -> bool:
        """Whether one of its records that matter lies below the position given for its partition."""
        return any(
            location.position < thresholds.get(location.partition, 0) for location in self._locations()
        )

    def _locations(self) -> Iterator[Location]:
        yield from map(_location, self.requested[1::2])
        yield from map(_location, self.proofs[1::_STRIDE])
        if self.accepted is not None:
            yield _location(self.accepted_location)
        if self.decided is not None:
            yield _location(self.decided_location)
        if self.attempted is not None:
            yield _location(self.attempt_location)

    def _round_of(self, key: int) -> int:
        """Counted from 0."""
        return (key >> 2 * _PART_BITS) - self.base

    def _find(self, key: int) -> int | None:
        try:
            return self.proofs[0::_STRIDE].index(key) * _STRIDE
        except ValueError:
            return None

    def _count(self, key: int, entry: Entry, *, parts: int) -> None:
        if self.accepted is not None and self._round_of(key) <= self.round:
            self.absent += entry.absent
            self.unavailable += entry.unavailable
            return
        if self.tallies is None:
            self.tallies = {}
        tally = self.tallies.get(key >> _PART_BITS, _Tally())
        self.tallies[key >> _PART_BITS] = _Tally(
            tally.parts + parts, tally.absent + entry.absent, tally.unavailable + entry.unavailable
        )

    def _forget_others(self) -> None:
        """What was proved of another set of references under the same UID is none of this transaction's."""
        self._keep(lambda key: 0 <= self._round_of(key) < MAX_ROUNDS)
        kept = array("Q")
        for at in range(0, len(self.requested), 2):
            if self.requested[at] >> _PART_BITS == self.base:
                kept.extend(self.requested[at : at + 2])
        self.requested = kept

    def _advance(self, at: float, *, sure: bool) -> None:
        """Go on to the last round all of whose parts are there; ``at`` is when the last of them was proved."""
        while self.accepted is not None and self.tallies:
            complete = self._complete(self.base + self.round + 1)
            if complete is None:
                return
            tally = self.tallies[complete]
            self.round += 1
            self.absent, self.unavailable = tally.absent, tally.unavailable
            self.completed_at = max(at, self.accepted_at)
            self.sure = sure
            if self.round > self.asked_round:  # by another, or before this start: when, is not known
                self.asked_round, self.asked_at = self.round, _LONG_AGO
            self._keep_only(complete)
            del self.tallies[complete]
            self.tallies = self.tallies or None

    def _complete(self, number: int) -> int | None:
        """A round with all of its parts, as the head of their keys."""
        for head, tally in (self.tallies or {}).items():
            if head >> _PART_BITS == number and tally.parts == head % MAX_PARTS:
                return head
        return None

    def _keep_only(self, complete: int) -> None:
        """A round that was asked twice, cut up in two ways, counts the way that was complete first."""
        number = complete >> _PART_BITS
        self._keep(lambda key: key >> 2 * _PART_BITS != number or key >> _PART_BITS == complete)

    def _keep(self, wanted: Callable[[int], bool]) -> None:
        kept = array("Q")
        for at in range(0, len(self.proofs), _STRIDE):
            if wanted(self.proofs[at]):
                kept.extend(self.proofs[at : at + _STRIDE])
        if len(kept) != len(self.proofs):
            self.proofs = kept
        tallies = {key: tally for key, tally in (self.tallies or {}).items() if wanted(key << _PART_BITS)}
        self.tallies = tallies or None


def _packed(location: Location) -> int:
    return location.partition << _LOCATION_BITS | location.position


def _location(packed: int) -> Location:
    return Location(packed >> _LOCATION_BITS, packed % (1 << _LOCATION_BITS))


def _request_key(record: CommitRequested) -> int | None:
    """Round and part in one number; None for what no receiver of ours writes."""
    if not (0 <= record.part < MAX_PARTS and 0 <= record.round < _LONGEST_ROUND):
        return None
    return record.round << _PART_BITS | record.part


def _key(record: CommitProved) -> int | None:
    """Round, parts and part in one number; None for what no fence of ours asked for."""
    if not (0 <= record.part < record.parts < MAX_PARTS and 0 <= record.round < _LONGEST_ROUND):
        return None
    return (record.round << _PART_BITS | record.parts) << _PART_BITS | record.part
