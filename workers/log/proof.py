"""What a fence's worker found, on its way to whoever asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ingest.contract.commitments import CommitProved, Found, encode_references
from ingest.contract.identifiers import TransactionId
from ingest.contract.records import Kind, encode_header


@dataclass(frozen=True)
class Proof:
    """The answer to one fence."""

    transaction_id: TransactionId
    proved: CommitProved
    found: Sequence[Found]

    def encoded(self) -> bytes:
        """Its COMMIT_PROVED record, whole."""
        payload = encode_references(self.found)
        return (
            encode_header(Kind.COMMIT_PROVED, self.transaction_id, 0, self.proved, [payload])
            + payload.tobytes()
        )


class Proofs(Protocol):
    """Where proofs are handed over."""

    async def publish(self, proof: Proof) -> None:
        """Make it durable where whoever asked will find it; the same one again changes nothing.

        Raises:
            Unavailable: not now.
        """
        ...
