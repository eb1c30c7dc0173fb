"""Seal: are these the bytes that were received? One pass gives that answer and the source digest.

What is read again later, from a disk, is asked again: `Resealed`.
"""

import hashlib
from collections.abc import Iterator

import xxhash

from ingest.contract.records import Instance
from workers.dataset.payload import BLOCK, Payload
from workers.errors import Reason, Rejected, Spoiled


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


class Resealed:
    """A payload whose seal was checked, on a disk that may have changed since: read to its end, it tells."""

    def __init__(self, payload: Payload, seal: bytes) -> None:
        self._payload = payload
        self._seal = seal
        self.size: int = payload.size

    def read(self, offset: int, length: int) -> memoryview:
        """See `Payload.read`; tells nothing."""
        return self._payload.read(offset, length)

    def blocks(self, size: int = BLOCK) -> Iterator[memoryview]:
        """See `Payload.blocks`.

        Raises:
            Spoiled: after the last, these were not the bytes of the seal.
        """
        seal = xxhash.xxh3_128()
        for block in self._payload.blocks(size):
            seal.update(block)
            yield block
        if seal.digest() != self._seal:
            raise Spoiled("scratch: the data set is not the one whose seal was checked")
