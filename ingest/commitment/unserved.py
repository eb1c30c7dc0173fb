"""Commitment that is switched off while transactions are open: nobody would report them, so a start says it loudly."""

import time
from collections.abc import Iterator
from typing import Final

import structlog

from ingest.commitment.transaction import Clock
from ingest.commitment.transactions import Patience, Rules, Transactions
from ingest.contract.settings import Settings
from ingest.contract.spool import Layout, OsDisk, SpoolMismatch, SpoolMissing, read_meta
from ingest.log.commitment_log import Entry
from ingest.log.commitment_segments import SegmentReader

logger = structlog.get_logger(__name__)

_TIMEOUT: Final = 30.0  # s for reading the topic; then what was counted so far is told
_POLL: Final = 0.2  # s


def tell_of_unserved(settings: Settings) -> None:
    """Log an error where transactions are open. Blocks; what cannot be read is warned about and keeps nobody off."""
    try:
        count = _open_transactions(settings)
    except (OSError, SpoolMismatch) as error:
        logger.warning("whether commitment requests are open is not known", error=str(error))
        return
    if count:
        logger.error(
            "storage commitment is off and accepted requests are open, which nobody reports: set commitment.enabled "
            "until `dicom-ingest commitments list` shows none, or give each up with `expire` and then start once so",
            open_transactions=count,
        )


def _open_transactions(settings: Settings) -> int:
    rules = Rules(-1, -1, shared=False, claim=0.0, remember=0, patience_of=lambda _: Patience(0.0, 0.0))
    transactions = Transactions(rules)
    for entry in _of_topic(settings) if settings.log.kind == "kafka" else _of_spool(settings):
        transactions.apply(entry, Clock(time.monotonic(), time.time_ns()))
    return len(transactions)


def _of_spool(settings: Settings) -> Iterator[Entry]:
    disk, layout = OsDisk(), Layout(settings.data / "commitments")
    try:
        meta = read_meta(disk, layout)
    except SpoolMissing:
        return  # nothing was ever asked for
    counter = disk.counter(layout.durable_end)
    end = counter.load()
    counter.close()
    reader = SegmentReader(disk, layout, meta, end)
    try:
        while reader.position < end:
            yield from reader.read(end)
    finally:
        reader.close()


def _of_topic(settings: Settings) -> Iterator[Entry]:
    # The client is an extra that one machine does not need.
    from kafka.errors import KafkaError  # noqa: PLC0415

    from ingest.contract.kafka import KafkaUnreachable  # noqa: PLC0415
    from ingest.contract.kafka_topics import describe_topics  # noqa: PLC0415
    from ingest.log.commitment_reader import TopicReader  # noqa: PLC0415

    enabled = settings.commitment.model_copy(update={"enabled": True})
    reader = TopicReader(settings)
    try:
        *_, state = describe_topics(settings.model_copy(update={"commitment": enabled}))
        if not state.partitions:
            return  # commitment was never served
        reader.open(_TIMEOUT)
        deadline = time.monotonic() + _TIMEOUT
        while not reader.caught_up and time.monotonic() < deadline:
            yield from reader.poll(_POLL)
    except (KafkaUnreachable, KafkaError) as error:
        logger.warning("whether commitment requests are open is not known", error=type(error).__name__)
    finally:
        reader.close()
