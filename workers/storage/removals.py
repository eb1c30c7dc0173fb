"""Removals of names that are given anew: one at a time is on its way to the bucket, whatever becomes of its answer.

obstore cannot make a removal conditional. Where one was given up and made again, the first might arrive after the second, as
on a connection whose packets were lost for a while, and take what another has put under the name since: a good copy in the
place of a damaged one. So there is no second before it is known what became of the first, or it can arrive no more.
"""

import time
from collections.abc import Callable
from typing import Final

from workers.storage.bucket import RETRY_AFTER, Bucket, Silent

# Seconds. Linux goes on sending for a connection that is closed for some 100 s at most (tcp_orphan_retries).
STRAY: Final = 120.0
# Of HTTP: what stands before a store has given up waiting for it.
_NOT_THE_STORES: Final = ("502", "504")


class Removals:
    """In one bucket. Its method blocks."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._sent: dict[str, float] = {}  # by names, when the last was sent that has had no answer

    def remove(self, name: str, allow: Callable[[], None]) -> None:
        """Remove an object; one that is not there is removed already. ``allow``: see `Bucket.until_answered`.

        Raises:
            Unavailable: at the deadline; what became of it is not known.
        """
        for _ in self._bucket.tries():
            if self._may_be_on_its_way(name):
                if self._bucket.head(name) is not None:
                    continue
                break
            allow()
            now = time.monotonic()
            try:
                self._bucket.remove_once(name)
                break
            except Silent as error:
                if error.retry_after > RETRY_AFTER:
                    raise
                if not error.status or error.status.startswith(_NOT_THE_STORES):
                    self._sent[name] = now
        self._sent.pop(name, None)

    def _may_be_on_its_way(self, name: str) -> bool:
        sent = self._sent.get(name)
        return sent is not None and time.monotonic() - sent < STRAY
