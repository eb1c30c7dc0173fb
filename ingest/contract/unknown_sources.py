"""How much unknown sources have put into quarantine within the current period, as one receiver has it on disk.

``DIR/unknown-sources.json`` is written ahead: what it says may be somewhat more than was taken, never less. So after a kill
or a power cut nothing is taken twice under the same quota.
"""

from pathlib import Path

import msgspec

from ingest.contract.folder_sync import replace_synced, sync_folder


class Taken(msgspec.Struct, frozen=True):
    """What was taken since the period began."""

    begun_at: float = 0.0  # seconds since 1970-01-01 UTC; 0 before the first period
    instances: int = 0
    bytes: int = 0  # of their data sets


def unknown_sources_file(data: Path) -> Path:
    """Where it is."""
    return data / "unknown-sources.json"


def read_taken(data: Path) -> Taken:
    """What the file says; nothing where there is none.

    Raises:
        OSError: the file system's.
        ValueError: it is damaged.
    """
    try:
        return msgspec.json.decode(unknown_sources_file(data).read_bytes(), type=Taken)
    except FileNotFoundError:
        return Taken()
    except msgspec.MsgspecError as error:
        raise ValueError(f"{unknown_sources_file(data)}: {error}") from None


def write_taken(data: Path, taken: Taken) -> None:
    """Replace the file; durable when this returns.

    Raises:
        OSError: the file system's; the file is as before then.
    """
    data.mkdir(mode=0o750, parents=True, exist_ok=True)
    replace_synced(unknown_sources_file(data), msgspec.json.encode(taken))
    sync_folder(data)
