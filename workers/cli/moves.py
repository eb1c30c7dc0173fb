"""The move records of all stores: what administrators have moved since a worker counted it."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from workers.cli.account import Move
from workers.storage.layout import Area
from workers.storage.moves import Move as MoveRecord


class DamagedMove(Exception):  # noqa: N818 - states what was found
    """A move record that cannot be read: the places it moved from and to are not known."""


def read_moves(stores: Iterable[Path]) -> Iterator[Move]:
    """All moves; the stores are only read, and need not be there.

    Raises:
        DamagedMove: the message names the file.
        OSError: the disk's.
    """
    for store in stores:
        for path in (store / Area.MOVES).glob("*/*.json"):
            try:
                record = msgspec.json.decode(path.read_bytes(), type=MoveRecord)
                yield Move(bytes.fromhex(record.upload_id), record.source, record.target)
            except (msgspec.MsgspecError, ValueError) as error:
                raise DamagedMove(f"{path}: {error}") from None
