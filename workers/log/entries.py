"""What a log reader hands out, whichever log it reads: records, and damage where a record should be."""

from typing import NamedTuple

from ingest.contract.records import Record


class LogRecord(NamedTuple):
    """A record at its place in the log; its views are of a buffer that no other record shares."""

    position: int
    next_position: int
    partition: int
    record: Record
    appended_at: int = 0  # milliseconds since 1970-01-01 UTC by the log's clock; 0 where it keeps none


class DamagedRecord(NamedTuple):
    """Acknowledged bytes that are no record any more; delivered, since an instance may be in them."""

    position: int
    next_position: int
    partition: int
    data: memoryview
    appended_at: int = 0


Entry = LogRecord | DamagedRecord
