"""Modalities: each sends instance after instance, and keeps what it was told."""

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ingest.dimse import CStoreResponse
from ingest.dimse.command_set import decode_command_set
from tests.support.scu import RELEASE_RQ, Scu, associate, c_store, ct_data_set

# Most fit one record; the last have parts, so that a crash finds uploads half read. Codecs take their time for these.
SIZES: Final = (3000, 3000, 20_000, 20_000, 140_000, 140_000, 600_000, 2_500_000)
_DATA, _ABORT = 4, 7  # types of PDUs


class Sent(NamedTuple):
    """An instance as its sender has it."""

    uid: str
    size: int

    def data_set(self) -> bytes:
        """The same each time."""
        return ct_data_set(self.uid, self.size)


@dataclass
class Ledger:
    """What senders tried, and what they were told."""

    tried: dict[str, Sent] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    bytes: int = 0  # of the acknowledged
    resent: int = 0
    refused: int = 0
    rejected: int = 0

    def answered(self, sent: Sent, status: int) -> None:
        """A sender has its answer."""
        if status:
            self.refused += 1
        elif sent.uid not in self.acknowledged:
            self.acknowledged.add(sent.uid)
            self.bytes += sent.size


@dataclass
class Load:
    """How modalities behave."""

    senders: int = 3
    pause: float = 0.2  # s at most between two instances
    sizes: Sequence[int] = SIZES
    patience: float = 20.0  # s that a sender waits for anything
    again: float = 0.1  # the chance that an instance is one that was sent before


class Senders:
    """Modalities in a thread of their own: each sends instance after instance and never gives up.

    What had no good answer is sent again as often as not, and now and then what had one.
    """

    def __init__(self, ports: Callable[[], list[int]], stem: str, load: Load) -> None:
        self.ledger = Ledger()
        self._ports = ports
        self._stem = stem
        self._load = load
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 60) -> None:
        """No further instance; what is under way is answered or given up."""
        self._stopping.set()
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "a sender hangs"

    async def _run(self) -> None:
        await asyncio.gather(*(self._send(number) for number in range(self._load.senders)))

    async def _send(self, sender: int) -> None:
        choice = random.Random(f"{self._stem} {sender}")
        instances = self._instances(sender, choice)
        while not self._stopping.is_set():
            ports = self._ports()
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                if ports:
                    await self._associate(choice.choice(ports), choice, instances)
                    continue
            await asyncio.sleep(0.1)

    def _instances(self, sender: int, choice: random.Random) -> Iterator[Sent]:
        number, last = 0, None
        while True:
            unsure = last is not None and last.uid not in self.ledger.acknowledged
            if last is not None and choice.random() < (0.5 if unsure else self._load.again):
                self.ledger.resent += 1
            else:
                number += 1
                last = Sent(f"{self._stem}{sender}.{number}", choice.choice(self._load.sizes))
                self.ledger.tried[last.uid] = last
            yield last

    async def _associate(self, port: int, choice: random.Random, instances: Iterator[Sent]) -> None:
        """One association, of some instances."""
        scu = await Scu.connect(port)
        try:
            await scu.send(associate())
            kind, _ = await scu.pdu(self._load.patience)
            if kind != 2:
                self.ledger.rejected += 1
                await asyncio.sleep(0.1)
                return
            for _ in range(choice.randint(5, 50)):
                if self._stopping.is_set():
                    break
                await self._store(scu, next(instances))
                await asyncio.sleep(choice.uniform(0, self._load.pause))
            await scu.send(RELEASE_RQ)
            await scu.pdu(self._load.patience)  # or an abort, by a receiver that was told to stop just then
        finally:
            Scu.forget(scu)
            scu.writer.transport.abort()

    async def _store(self, scu: Scu, sent: Sent) -> None:
        async with asyncio.timeout(self._load.patience):
            await scu.send(c_store(sent.uid, sent.data_set()))
        self.ledger.answered(sent, await status_of(scu, self._load.patience))


async def status_of(scu: Scu, patience: float) -> int:
    """The status of the next response.

    Raises:
        ConnectionAbortedError: the receiver aborts the association.
    """
    kind, body = await scu.pdu(patience)
    if kind == _ABORT:
        raise ConnectionAbortedError
    assert kind == _DATA, (kind, body)
    return CStoreResponse.decode(decode_command_set(body[6:])).status


async def send_slowly(sent: Sent, port: int, seconds: float, patience: float) -> int:
    scu = await Scu.associated(port)
    try:
        data = c_store(sent.uid, sent.data_set())
        step = max(1, len(data) // 50)
        for at in range(0, len(data), step):
            async with asyncio.timeout(patience):
                await scu.send(data[at : at + step])
            await asyncio.sleep(seconds / 50)
        return await status_of(scu, patience)
    finally:
        Scu.forget(scu)
        scu.writer.transport.abort()
