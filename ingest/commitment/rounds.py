"""What a round of fences asks, and what all rounds together have found. Pure.

The same references are always cut up in the same way, so that a round which is asked again is the same round,
whichever of its parts were asked before.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from ingest.contract.commitments import (
    MAX_REFERENCES,
    OPEN,
    CommitAccepted,
    Finding,
    Found,
    Reference,
    digest_of,
)
from ingest.contract.identifiers import partition_of


class ProofsDoNotFit(Exception):  # noqa: N818 - states what was found
    """What is known is not what was asked about, or not what was decided; nothing is said of it to anybody."""


class Fence(NamedTuple):
    """One part of a round."""

    partition: int
    references: Sequence[Reference]


class Verdict(NamedTuple):
    """What the report says, in an order that is always the same."""

    committed: list[Found]
    failed: list[Found]

    def digest(self) -> bytes:
        """SHA-256 of all that it says."""
        return hashlib.sha256(msgspec.msgpack.encode(self)).digest()


def fences_of(references: Iterable[Reference], partitions: int) -> list[Fence]:
    """Each reference to the partition where its instance was, or would have been, received."""
    by_partition: dict[int, list[Reference]] = {}
    for reference in sorted(references):
        by_partition.setdefault(partition_of(reference.sop_instance_uid, partitions), []).append(reference)
    return [
        Fence(partition, found[at : at + MAX_REFERENCES])
        for partition, found in sorted(by_partition.items())
        for at in range(0, len(found), MAX_REFERENCES)
    ]


class Findings:
    """What is known of each reference; `add` the proofs in the order of their rounds."""

    def __init__(self, references: Iterable[Reference] = (), *, others: bool = True) -> None:
        """``references`` were asked about; whether ``others`` may be added."""
        self._found: dict[tuple[str, str], Finding | None] = dict.fromkeys(
            (one.sop_class_uid, one.sop_instance_uid) for one in references
        )
        self._others = others

    def add(self, found: Iterable[Found]) -> None:
        """What a later round finds of a reference counts; what nobody asked about does not."""
        for one in found:
            uids = one.sop_class_uid, one.sop_instance_uid
            if self._others or uids in self._found:
                self._found[uids] = one.finding

    def all(self) -> list[Found]:
        """What is known of each so far; those that nobody spoke of are not there."""
        found = sorted((uids, finding) for uids, finding in self._found.items() if finding is not None)
        return [Found(*uids, finding) for uids, finding in found]

    def open(self) -> list[Reference]:
        """What may be otherwise in a later round."""
        return [
            Reference(*uids) for uids, finding in self._found.items() if finding is None or finding in OPEN
        ]

    def is_complete(self) -> bool:
        """Whether something was found of each."""
        return None not in self._found.values()

    def check(self, accepted: CommitAccepted) -> None:
        """All of the request and no more must be known.

        Raises:
            ProofsDoNotFit: it is not.
        """
        references = [Reference(*uids) for uids in self._found]
        if len(references) != accepted.references or digest_of(references) != accepted.digest:
            raise ProofsDoNotFit(f"{len(references)} instances found out about, {accepted.references} asked")

    def verdict(self) -> Verdict:
        """What is still open has failed: absent, or not found out."""
        committed, failed = [], []
        for uids, finding in sorted(self._found.items(), key=lambda one: one[0]):
            if finding is Finding.PROVED:
                committed.append(Found(*uids, finding))
            elif finding is None or finding is Finding.UNAVAILABLE:
                failed.append(Found(*uids, Finding.UNDECIDED))
            else:
                failed.append(Found(*uids, finding))
        return Verdict(committed, failed)


def findings_from(
    accepted: CommitAccepted, references: Sequence[Reference], proofs: Iterable[Iterable[Found]]
) -> Findings:
    """What is known of a request, from all of its references that can be read and from its proofs.

    Raises:
        ProofsDoNotFit: which references it had cannot be told any more.
    """
    whole = len(references) == accepted.references and digest_of(references) == accepted.digest
    findings = Findings(references, others=not whole)
    for found in proofs:
        findings.add(found)
    if not whole:  # then all that is missing must have been spoken of
        findings.check(accepted)
    return findings


def split_report(verdict: Verdict, limit: int, told: int = 0) -> list[Verdict]:
    """Reports of at most ``limit`` instances each, where a peer takes no more; 0 for one of all.

    ``told``: how many of the instances it has taken reports of.
    """
    instances = [*verdict.committed, *verdict.failed]
    limit = limit or len(instances)
    if not told and len(instances) <= limit:
        return [verdict]
    committed = len(verdict.committed)
    return [
        Verdict(
            instances[at : min(at + limit, committed)] if at < committed else [],
            instances[max(at, committed) : at + limit],
        )
        for at in range(told, len(instances), limit)
    ]
