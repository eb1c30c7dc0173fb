"""The move records of all stores: what administrators have moved since a worker counted it."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from ingest.contract.records import Place
from workers.cli.account import Move


class _MoveRecord(msgspec.Struct):
    """Of ``moves/SSS/<upload id>.json``, what counts."""

    source: Place = msgspec.field(name="from")
    target: Place = msgspec.field(name="to")


def read_moves(stores: Iterable[Path]) -> Iterator[Move]:
    """All moves.

    Raises:
        msgspec.MsgspecError: a record that this release cannot read.
        OSError: the disk's.
    """
    for store in stores:
        for path in (store / "moves").glob("*/*.json"):
            record = msgspec.json.decode(path.read_bytes(), type=_MoveRecord)
            yield Move(bytes.fromhex(path.stem), record.source, record.target)
