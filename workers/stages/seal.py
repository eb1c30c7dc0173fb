"""Seal: are these the bytes that were received? One pass gives that answer and the source digest."""

import hashlib

import xxhash

from ingest.contract.records import Instance
from workers.dataset.payload import Payload
from workers.errors import Reason, Rejected


def check_seal(payload: Payload, instance: Instance) -> str:
    """Verify size and XXH3-128 of the data set; return its source digest, SHA-256 as 64 hex digits.

    Raises:
        Rejected: size or seal differ from what the receiver recorded.
    """
    if payload.size != instance.size:
        raise Rejected(
            Reason.SEAL, 0, f"the data set has {payload.size} bytes, {instance.size} were received"
        )
    seal = xxhash.xxh3_128()
    source = hashlib.sha256()
    for block in payload.blocks():
        seal.update(block)
        source.update(block)
    if seal.digest() != instance.seal:
        raise Rejected(Reason.SEAL, payload.size, "the data set does not match the seal of its reception")
    return source.hexdigest()
