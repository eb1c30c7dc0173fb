"""Where stores are: folders and buckets, and what each keeps of the set of stores that it belongs to.

A root knows nothing of shards. It keeps small records (the shard map, which store it is), and says who is at
work: every process that uses the stores is present in each root, and whoever changes the shard map is alone
in all of them. `directory_root` and `bucket_root` do that, each in its way.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final, NamedTuple, Protocol

from workers.storage.layout import Area
from workers.storage.object_store import ObjectStore

SHARD: Final = re.compile(r"[0-9a-f]{3}\Z")
IN_USE: Final = "is in use: stop the workers and other commands first"


def changed_by(holder: str) -> str:
    """Why a root cannot be used while its map is changed; ``holder``: by whom, if that is known."""
    by = f" ({holder})" if holder else ""
    return f"is being changed by `dicom-ingest shards`{by}: try again when that has ended"


class OpenStore(ObjectStore, Protocol):
    """A store with what it holds open."""

    def sweep(self) -> int:
        """Remove what killed writers left; how many things that was."""

    def close(self) -> None:
        """Let go of it; may be called again."""


class Size(NamedTuple):
    """One object, as a report of sizes counts it."""

    shard: str
    size: int  # bytes


class Root(Protocol):
    """One place of stores. What blocks here is short; all of it raises `OSError` or `Unavailable`."""

    def __str__(self) -> str:
        """As settings and messages name it."""

    @property
    def place(self) -> str:
        """Where it is, the same for two names of one place."""

    def there(self) -> bool:
        """Whether it exists."""

    def make(self) -> None:
        """Make it, durably, if it does not exist."""

    def read(self, name: str) -> bytes | None:
        """A record; None where there is none."""

    def replace(self, name: str, data: bytes) -> None:
        """Put a record in the place of the one before, durably."""

    def remove(self, name: str) -> None:
        """Take a record away; one that is not there is gone already."""

    def holds_objects(self) -> bool:
        """Whether it has anything of a store in it."""

    def forming(self) -> AbstractContextManager[None]:
        """Hold others back while the first start gives it identity and map."""

    def shared(self) -> AbstractContextManager[None]:
        """Be present, beside others. Raises `WrongStores` where one is alone in it."""

    def alone(self) -> AbstractContextManager[None]:
        """Be alone. Raises `WrongStores` where others are present."""

    def probe(self) -> None:
        """Try whether it keeps what the pipeline relies on. Raises `WrongStores` where it does not.

        Nothing is tried of what the operating system promises; `probe.py` tries a bucket.
        """

    def open(self, name: str) -> OpenStore:
        """Open it as the store of that name, from within `shared` or `alone`."""

    def records(self, area: Area) -> Iterator[tuple[str, bytes]]:
        """The JSON objects of an area right below its shards: where they are, and what is in them. Only reads."""

    def sizes(self) -> Iterator[Size]:
        """All objects under UIDs. Only reads."""

    def close(self) -> None:
        """Let go of what it holds; may be called again."""
