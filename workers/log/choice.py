"""How a worker of one machine reads its log: the only place on this side that knows which it is."""

from collections.abc import Mapping
from typing import Protocol

from ingest.contract.settings import Settings
from workers.log.reader import Reader
from workers.log.spool_reader import SpoolReader


class LocalReader(Reader, Protocol):
    """A `Reader` that has its partitions for itself, by locks, from when it is made until it is closed."""

    def close(self) -> None:
        """Let go of files and locks."""


def local_reader(settings: Settings, starts: Mapping[int, int]) -> LocalReader:
    """What reads partitions, each from the position in ``starts``; their locks are held.

    Raises:
        SpoolMissing: no receiver has made the log yet; it is looked for again.
        SpoolError: another worker has one of the partitions, or the log is not that of the settings.
        OSError: the disk's.
    """
    match settings.log.kind:
        case "spool":
            return SpoolReader(settings.data / "spool", starts)
        case "kafka":
            raise AssertionError("its partitions come from the group: see `workers.grouped_process`")
