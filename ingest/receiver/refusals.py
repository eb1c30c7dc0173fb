"""Remembers what was refused, off the path of the instances: gathered in memory, written once a second."""

import asyncio
import time
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from ingest.contract.refusals import Refusal, RefusalJournal, RefusalOf
from ingest.receiver.reasons import Reason
from ingest.receiver.receiving import Peer

logger = structlog.get_logger(__name__)

_INTERVAL: Final = 1.0  # s; what was refused in the last one is lost with the process, and nothing else
_GATHERED: Final = 1000  # different ones within that time; of more, only the number is known


class _What(NamedTuple):
    """A kind of refusal: many of one kind within a moment are one line."""

    refused: RefusalOf
    calling_ae_title: str
    called_ae_title: str
    address: str
    reason: str
    subject: str
    remedy: str


class Refusals:
    """Owned by one event loop, between `start` and `close`; before and after, nothing is written."""

    def __init__(self, data: Path) -> None:
        self._journal = RefusalJournal(data)
        self._gathered: dict[_What, tuple[int, int]] = {}  # when the last one was, and how many
        self._left_out = 0
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def start(self) -> None:
        """Write from now on, in the running event loop."""
        self._task = asyncio.create_task(self._write_regularly())

    async def close(self) -> None:
        """Write the last ones."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
            await self._write()

    def add(self, refused: RefusalOf, peer: Peer, reason: Reason, subject: str) -> None:
        """Remember one; every text must be fit to be shown."""
        if self._task is None:
            return
        calling, called, address, _ = peer
        what = _What(refused, calling, called, address, reason.word, subject, reason.remedy)
        _, times = self._gathered.get(what, (0, 0))
        if not times and len(self._gathered) >= _GATHERED:
            self._left_out += 1
        else:
            self._gathered[what] = time.time_ns(), times + 1

    async def _write_regularly(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL)
            await self._write()

    async def _write(self) -> None:
        gathered, self._gathered = self._gathered, {}
        if not gathered:
            return
        if self._left_out:
            logger.warning("more refusals than can be remembered", left_out=self._left_out)
            self._left_out = 0
        lines = [Refusal(at, *what, times) for what, (at, times) in gathered.items()]
        try:
            await asyncio.to_thread(self._journal.append, lines)
        except OSError as error:
            if not self._failing:
                logger.warning("refusals cannot be remembered", errno=error.errno)
            self._failing = True
        else:
            self._failing = False
