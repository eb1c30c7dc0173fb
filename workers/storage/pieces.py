"""The pieces of an object on their way to a bucket: gathered up to what one PUT takes, and no more than can be put."""

from collections.abc import Iterator
from typing import Final

from workers.errors import Unavailable
from workers.storage.object_store import Pieces

_TOO_LARGE: Final = (
    "store: an object is larger than S3 can put in its place, which is 5 GiB: its shard needs another store"
)
_RETRY: Final = 3600.0  # seconds; another store is known to a worker that starts anew


def up_to(limit: int, pieces: Pieces) -> Pieces:
    """The pieces, of no larger object.

    Raises:
        Unavailable: it is larger.
    """
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > limit:
            raise Unavailable(_TOO_LARGE, _RETRY)
        yield piece


class Gathered:
    """The first pieces of an object, whole or up to a limit."""

    def __init__(self) -> None:
        self.buffers: list[bytes | memoryview] = []
        self.size = 0
        self.whole = False


def gather(pieces: Iterator[bytes | memoryview], limit: int) -> Gathered:
    """The first pieces: all of them, or so many that they are more than ``limit`` bytes."""
    gathered = Gathered()
    for piece in pieces:
        gathered.buffers.append(piece)
        gathered.size += len(piece)
        if gathered.size > limit:
            return gathered
    gathered.whole = True
    return gathered
