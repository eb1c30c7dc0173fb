"""How many connections come from one address."""

from collections import Counter
from typing import Generic, TypeVar

K = TypeVar("K")


class Addresses(Generic[K]):
    """Counts connections by address, up to a limit each; 0 is no limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: Counter[str] = Counter()
        self._of: dict[K, str] = {}

    def enter(self, key: K, address: str) -> bool:
        """Count a connection; whether it is within the limit. `leave` it in any case."""
        self._of[key] = address
        self._counts[address] += 1
        return not self._limit or self._counts[address] <= self._limit

    def leave(self, key: K) -> None:
        """It is gone."""
        address = self._of.pop(key, None)
        if address is None:
            return
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]
