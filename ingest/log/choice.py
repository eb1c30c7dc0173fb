"""Which log runs: the only place on this side that makes one. A word of `log.kind` without its case is an error of types."""

from ingest.contract.settings import Settings
from ingest.log.commitment_log import CommitmentLog
from ingest.log.interface import Log
from ingest.log.spool_writer import SpoolWriter


def log_of(settings: Settings) -> Log:
    """The log that the settings choose, not yet started."""
    match settings.log.kind:
        case "spool":
            return SpoolWriter(settings)
        case "kafka":
            # The client is an extra that one machine does not need.
            from ingest.log.kafka_writer import KafkaWriter  # noqa: PLC0415 - an extra

            return KafkaWriter(settings)


def commitment_log_of(settings: Settings) -> CommitmentLog:
    """The commitment log that belongs to it, not yet started: Kafka's for many machines, that in files for one."""
    if settings.log.kind == "kafka":
        from ingest.log.commitment_topic import KafkaCommitmentLog  # noqa: PLC0415 - an extra

        return KafkaCommitmentLog(settings)
    from ingest.log.commitment_spool import SpoolCommitmentLog  # noqa: PLC0415 - as commitment itself

    return SpoolCommitmentLog(settings)
