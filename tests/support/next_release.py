"""`dicom-ingest` of a release to come, whose records have a field more, as their rule of evolution lets it have.

``python -m tests.support.next_release receiver --config ...`` runs any command of it.
"""

import msgspec
from crc32c import crc32c

from ingest.contract import records
from ingest.contract.records import HEADER, Instance, Outcome


class NextInstance(Instance, frozen=True, array_like=True):
    """Of a release to come."""

    station: str = "CT-ROOM-2"


class NextOutcome(Outcome, frozen=True, array_like=True):
    """Of a release to come."""

    notes: tuple[str, ...] = ("one", "two")


def newer_record(upload_id: bytes, *, version: int = records.VERSION + 1, kind: int = 1) -> bytes:
    """A whole record of another version or kind: beside the CRC nothing of it is where this release looks for it."""
    body = HEADER.pack(version, kind, 4, 0, 0, upload_id, 1) + b"what"
    return body[:8] + crc32c(body[:8] + body[12:]).to_bytes(4, "little") + body[12:]


def _become() -> None:
    """Before anything else takes the names from `records`."""
    records.Instance = NextInstance  # type: ignore[misc]  # which is what a release does
    records.Outcome = NextOutcome  # type: ignore[misc]  # the same
    records._instance_decoder = msgspec.msgpack.Decoder(NextInstance)
    records._outcome_decoder = msgspec.msgpack.Decoder(NextOutcome)


if __name__ == "__main__":
    _become()
    from ingest.cli.group import main

    main()
