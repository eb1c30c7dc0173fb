"""The move records of all stores: what administrators have moved since a worker counted it."""

from collections.abc import Iterable, Iterator

import msgspec

from workers.cli.account import Move
from workers.storage.layout import Area
from workers.storage.moves import Move as MoveRecord
from workers.storage.root import Root


class DamagedMove(Exception):  # noqa: N818 - states what was found
    """A move record that cannot be read: the places it moved from and to are not known."""


def read_moves(roots: Iterable[Root]) -> Iterator[Move]:
    """All moves; the stores are only read, and folders need not be there.

    Raises:
        DamagedMove: the message names the file.
        OSError, Unavailable: the store's.
    """
    for root in roots:
        for name, data in root.records(Area.MOVES):
            try:
                record = msgspec.json.decode(data, type=MoveRecord)
                yield Move(bytes.fromhex(record.upload_id), record.source, record.target)
            except (msgspec.MsgspecError, ValueError) as error:
                raise DamagedMove(f"{name}: {error}") from None
