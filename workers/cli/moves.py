"""The move records of all stores: what administrators have moved since a worker counted it."""

from collections.abc import Iterable

import msgspec

from workers.cli.account import Move
from workers.storage.layout import Area
from workers.storage.moves import Move as MoveRecord
from workers.storage.root import Root


class DamagedMove(Exception):  # noqa: N818 - states what was found
    """A move record that cannot be read: the places it moved from and to are not known."""


def read_moves(roots: Iterable[Root]) -> list[Move]:
    """The last move of each upload; the stores are only read, and folders need not be there.

    An interrupted `shards rebalance` leaves the records of a shard in two stores.

    Raises:
        DamagedMove: the message names the file.
        OSError, Unavailable: the store's.
    """
    found: dict[bytes, tuple[int, Move]] = {}
    for root in roots:
        for name, data in root.records(Area.MOVES):
            try:
                record = msgspec.json.decode(data, type=MoveRecord)
                move = Move(bytes.fromhex(record.upload_id), record.source, record.target)
            except (msgspec.MsgspecError, ValueError) as error:
                raise DamagedMove(f"{name}: {error}") from None
            found[move.upload_id] = max(found.get(move.upload_id, (0, move)), (record.at, move))
    return [move for _, move in found.values()]
