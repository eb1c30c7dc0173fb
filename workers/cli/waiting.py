"""What was received and is not yet stored, as the ledger's commands tell it: read from the log itself."""

from ingest.contract.checkpoint import read_checkpoints
from ingest.contract.settings import Settings
from workers.cli.account import open_uploads
from workers.cli.backlog import Completed, Heads, completed_uploads


def waiting_uploads(settings: Settings, *, subjects: bool = False) -> list[Completed]:
    """The uploads; with ``subjects`` the first elements of each are read, too.

    What is placed meanwhile is in the outcome log, which is to be read afterwards.

    Raises:
        CorruptCheckpoint, SpoolMismatch, ForeignCommit: an administrator must decide what follows.
        KafkaUnreachable: the log is Kafka, and no broker answers.
        OSError: the disk's.
    """
    heads = Heads() if subjects else None
    match settings.log.kind:
        case "spool":
            marks = {
                number: found.low_water_mark for number, found in read_checkpoints(settings.data).items()
            }
            completed = list(completed_uploads(settings.data / "spool", marks, heads))
            return list(open_uploads(completed, read_checkpoints(settings.data)).values())
        case "kafka":
            # The client is an extra that one machine does not need.
            from workers.cli.group_account import read_open_uploads  # noqa: PLC0415

            return read_open_uploads(settings, heads)
