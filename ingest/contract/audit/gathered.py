"""Instances of a study, gathered until they are told of in one message (PS3.15 A.5.3.7: not one for each instance).

What is gathered is kept in a file of its process, renewed once a second: after a kill the next process of that name tells
it, and what is missing at most is the last second, which its worker does again.
"""

import threading
import time
from pathlib import Path
from typing import Final

import msgspec

from ingest.contract.audit.events import Transfer, transferred
from ingest.contract.audit.message import Message

# Studies at a time, as with a disk that has been full for hours; of more, nothing is kept.
_MOST: Final = 16_384


class Gathering(msgspec.Struct):
    """Of one `Transfer`; times are seconds since 1970-01-01 UTC."""

    transfer: Transfer
    instances: dict[str, int]  # number by SOP Class UID
    first: float
    last: float


class Gathered:
    """Added to by the thread that works, taken from by the one that writes."""

    def __init__(self, path: Path, quiet_time: float, longest_time: float) -> None:
        self._path = path
        self._quiet = quiet_time
        self._longest = longest_time
        self._lock = threading.Lock()  # held for microseconds only
        self._open: dict[Transfer, Gathering] = {}
        self._changed = False

    def add(self, transfer: Transfer, sop_class_uid: str) -> bool:
        """One more instance; whether there was room for it."""
        now = time.time()
        with self._lock:
            gathering = self._open.get(transfer)
            if gathering is None:
                if len(self._open) >= _MOST:
                    return False
                gathering = self._open[transfer] = Gathering(transfer, {}, now, now)
            gathering.instances[sop_class_uid] = gathering.instances.get(sop_class_uid, 0) + 1
            gathering.last = now
            self._changed = True
        return True

    def take(self, *, everything: bool = False) -> list[Message]:
        """What is to be told now; the caller has it written before it calls `keep`."""
        now = time.time()
        with self._lock:
            due = [one for one in self._open.values() if everything or self._is_due(one, now)]
            for one in due:
                del self._open[one.transfer]
                self._changed = True
        return [_message(one) for one in due]

    def keep(self) -> None:
        """Write down what is gathered, if it has changed.

        Raises:
            OSError: the file system's.
        """
        with self._lock:
            if not self._changed:
                return
            content = msgspec.msgpack.encode(list(self._open.values()))
            self._changed = False
        temporary = self._path.with_suffix(".new")
        try:
            temporary.write_bytes(content)
            temporary.replace(self._path)
        except OSError:
            self._changed = True
            raise

    def left_over(self) -> list[Message]:
        """What an earlier process of this name had gathered and not told."""
        try:
            found = msgspec.msgpack.decode(self._path.read_bytes(), type=list[Gathering])
        except (OSError, msgspec.MsgspecError):
            return []
        self._changed = True
        return list(map(_message, found))

    def _is_due(self, one: Gathering, now: float) -> bool:
        # A clock that was set back makes it due, too.
        return not (0 <= now - one.last < self._quiet and 0 <= now - one.first < self._longest)


def _message(one: Gathering) -> Message:
    return transferred(one.transfer, one.instances, one.last)
