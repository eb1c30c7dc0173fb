"""Questions of storage commitment for tests, and what answers them without stores."""

from collections.abc import Sequence

from ingest.contract.commitments import (
    CommitAsked,
    Finding,
    Found,
    Policy,
    Reference,
    encode_references,
)
from ingest.contract.identifiers import TransactionId, UploadId
from ingest.contract.records import Kind, encode_header
from workers.fences import Fences
from workers.log.proof import Proof

CLASS = "1.2.840.10008.5.1.4.1.1.2"
TRANSACTION = TransactionId.of("MODALITY", "1.2.3")


def asked(**changes: object) -> CommitAsked:
    """A question of the source MODALITY, with ``changes``."""
    facts: dict[str, object] = {
        "transaction_id": bytes(TRANSACTION),
        "calling_ae_title": "MODALITY",
        "ae_titles": ("MODALITY",),
        "policy": Policy.READ,
        "round": 0,
        "part": 0,
        "parts": 1,
        "asked_at": 1,
    }
    return CommitAsked(**(facts | changes))  # type: ignore[arg-type]


def references(*uids: str) -> list[Reference]:
    """References of one class."""
    return [Reference(CLASS, uid) for uid in uids]


def fence_record(fence_id: UploadId, uids: Sequence[str], **changes: object) -> bytes:
    """A COMMIT_ASKED record."""
    payload = encode_references(references(*uids))
    return encode_header(Kind.COMMIT_ASKED, fence_id, 0, asked(**changes), [payload]) + payload.tobytes()


class AllProved:
    """Proves whatever it is asked."""

    async def prove(self, asked: CommitAsked, references: Sequence[Reference]) -> list[Found]:
        """See `Prover`."""
        return [Found(one.sop_class_uid, one.sop_instance_uid, Finding.PROVED) for one in references]


class ProofList:
    """Proofs in memory."""

    def __init__(self) -> None:
        self.published: list[Proof] = []

    async def publish(self, proof: Proof) -> None:
        """See `Proofs`."""
        self.published.append(proof)


def any_fences() -> Fences:
    """For a worker whose log has none."""
    return Fences(AllProved(), ProofList())
