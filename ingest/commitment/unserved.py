"""Commitment that is switched off while transactions are open: nobody would report them, so a start says it loudly."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Final

import structlog

from ingest.commitment.transaction import Clock
from ingest.commitment.transactions import watched
from ingest.contract.settings import Settings
from ingest.contract.spool import OsDisk, SpoolMismatch
from ingest.log.commitment_log import Entry
from ingest.log.commitment_segments import opened_beside

logger = structlog.get_logger(__name__)

THREAD: Final = "unserved-commitments"
_SILENCE: Final = 30.0  # s without a record of the topic, after which the rest of it is given up
_POLL: Final = 0.2  # s


class _NotKnown(Exception):  # noqa: N818 - states what was found
    """The log cannot be read, or not to its end: how many are open nobody can say."""


def tell_beside(settings: Settings) -> None:
    """`tell_of_unserved` in a thread of its own: a topic may take minutes, for which neither start nor end waits."""
    threading.Thread(target=tell_of_unserved, args=(settings,), name=THREAD, daemon=True).start()


def tell_of_unserved(settings: Settings) -> None:
    """Log an error where transactions are open. Blocks; what cannot be read is warned about and keeps nobody off."""
    transactions = watched()
    try:
        for entry in _of_topic(settings) if settings.log.kind == "kafka" else _of_spool(settings):
            transactions.apply(entry, Clock(time.monotonic(), time.time_ns()))
    except (OSError, SpoolMismatch, _NotKnown) as error:
        logger.warning(
            "whether accepted commitment requests are open, which nobody reports while commitment.enabled is off, is "
            "not known; see `dicom-ingest commitments list`",
            error=str(error),
            open_as_far_as_read=len(transactions),
        )
        return
    if len(transactions):
        logger.error(
            "storage commitment is off and accepted requests are open, which nobody reports: set commitment.enabled "
            "until `dicom-ingest commitments list` shows none, or give each up with `expire` and then start once so",
            open_transactions=len(transactions),
        )


def _of_spool(settings: Settings) -> Iterator[Entry]:
    beside = opened_beside(OsDisk(), settings.data)
    if beside is not None:
        with closing(beside.reader) as reader:
            yield from reader.read_all(beside.durable_end)


def _of_topic(settings: Settings) -> Iterator[Entry]:
    # The client is an extra that one machine does not need.
    from kafka.errors import KafkaError  # noqa: PLC0415 - an extra

    from ingest.contract.kafka import KafkaUnreachable  # noqa: PLC0415 - an extra
    from ingest.contract.kafka_topics import describe_topics  # noqa: PLC0415 - an extra
    from ingest.log.commitment_reader import TopicReader  # noqa: PLC0415 - an extra

    enabled = settings.commitment.model_copy(update={"enabled": True})
    reader = TopicReader(settings)
    try:
        *_, state = describe_topics(settings.model_copy(update={"commitment": enabled}))
        if not state.partitions:
            return  # commitment was never served
        reader.open(_SILENCE)
        heard = time.monotonic()
        while not reader.caught_up:
            if entries := reader.poll(_POLL):
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENCE:
                raise _NotKnown(f"no record of the rest for {_SILENCE:g} s")
            yield from entries
    except (KafkaUnreachable, KafkaError) as error:
        raise _NotKnown(type(error).__name__) from None
    finally:
        reader.close()
