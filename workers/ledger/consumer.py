"""The consumer: enters what the logs have, until all is read."""

from collections.abc import Iterator

import msgspec
import structlog

from ingest.contract.settings import Settings
from workers.ledger.inserts import Row
from workers.ledger.ledger import Ledger
from workers.ledger.logs import Logs
from workers.ledger.spool_logs import SpoolLogs
from workers.storage.layout import Area
from workers.storage.moves import Move
from workers.storage.roots import roots_of

logger = structlog.get_logger(__name__)


def logs_of(settings: Settings) -> Logs:
    """The logs of the settings.

    Raises:
        KafkaUnreachable: the log is Kafka, and no broker answers.
    """
    if settings.log.kind == "kafka":
        # The client is an extra that one machine does not need.
        from workers.ledger.topic_logs import TopicLogs  # noqa: PLC0415

        return TopicLogs(settings)
    return SpoolLogs(settings.data)


def catch_up(ledger: Ledger, logs: Logs) -> int:
    """Enter all that the logs have now; how many records that were. Raises what `entered` raises."""
    return sum(entered(ledger, logs))


def entered(ledger: Ledger, logs: Logs) -> Iterator[int]:
    """Enter what the logs have, batch by batch as it is iterated: of each, how many records that were.

    Raises:
        LedgerUnavailable: the database does not answer.
        KafkaUnreachable, SpoolMismatch, OSError: the logs'.
    """
    while batches := logs.read(ledger.positions()):
        for batch in batches:
            yield len(batch.records) if ledger.take(batch) else 0


def move_rows(settings: Settings) -> Iterator[Row]:
    """The move records of all stores as rows; they are only read.

    Raises:
        WrongStores, Unavailable, OSError: the stores'.
    """
    for root in roots_of(settings.store_locations, settings.store):
        try:
            for name, data in root.records(Area.MOVES):
                try:
                    move = msgspec.json.decode(data, type=Move)
                    bytes.fromhex(move.upload_id)
                except (msgspec.MsgspecError, ValueError):
                    logger.warning("a move record is damaged", record=name)
                    continue
                if move.source is move.target and not move.earlier:
                    continue  # a replay that was begun and moved nothing: the reason is what it was
                yield {
                    "upload_id": move.upload_id,
                    "source": move.source.value,
                    "target": move.target.value,
                    "key": move.key,
                    "moved_at": move.at,
                }
        finally:
            root.close()
