"""Modalities beside the cluster: they send at full rate through whichever nodes say that they serve, and never give up.

A node says so at the port of the Service's health check, which is what a load balancer looks at (`externalTrafficPolicy: Local`).
"""

import asyncio
import contextlib
import ctypes
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tests.support.crash.senders import Sent, status_of
from tests.support.scu import RELEASE_RQ, Scu, associate, c_store

# Most are small, so that there are many records; the largest has parts.
SIZES: Final = (*(3000,) * 16, *(20_000,) * 8, *(140_000,) * 5, 1_100_000)
_ASSOCIATION: Final = (1.0, 30.0)  # s; many outlast the pause before SIGTERM, none receiver.drain_timeout
_PATIENCE: Final = 60.0  # s that one waits for any answer
_NETWORK: Final = 0x40000000  # CLONE_NEWNET


def enter_network(name: str) -> None:
    """Have this thread, and all that it starts from now on, in a named network namespace.

    Raises:
        OSError: There is none, or this is not root.
    """
    handle = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, _NETWORK):
            raise OSError(ctypes.get_errno(), "setns", name)
    finally:
        os.close(handle)


class Association(NamedTuple):
    """How one went: what its sender saw of it, between two times of the monotonic clock."""

    begun: float
    ended: float
    node: str
    end: str  # released, rejected, aborted, broken or unreachable
    stored: int


@dataclass
class Ledger:
    """What was tried and what was answered."""

    tried: dict[str, Sent] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    refused: int = 0
    associations: list[Association] = field(default_factory=list)


class Modalities:
    """Some senders in a thread of their own."""

    def __init__(self, nodes: Sequence[str], port: int, health: int, senders: int = 8) -> None:
        self.ledger = Ledger()
        self.serving: set[str] = set()
        self._nodes = nodes
        self._port = port
        self._health = health
        self._senders = senders
        self._sending = threading.Event()
        self._ending = threading.Event()
        self._busy = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Send until told to rest."""
        self._sending.set()

    def rest(self) -> None:
        """Let each association come to its end, and begin no other."""
        self._sending.clear()
        deadline = time.monotonic() + 3 * _PATIENCE
        while self._busy:
            assert time.monotonic() < deadline, "a sender hangs"
            time.sleep(0.1)

    def end(self) -> None:
        """End them for good."""
        self._ending.set()
        self._thread.join(3 * _PATIENCE)

    async def _run(self) -> None:
        looking = asyncio.create_task(self._look())
        await asyncio.gather(*(self._send(number) for number in range(self._senders)))
        looking.cancel()

    async def _look(self) -> None:
        while True:
            for node in self._nodes:
                (self.serving.add if await self._serves(node) else self.serving.discard)(node)
            await asyncio.sleep(0.5)

    async def _serves(self, node: str) -> bool:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection(node, self._health)
                writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
                line = await reader.readline()
                writer.transport.abort()
                return b" 200 " in line
        return False

    async def _send(self, sender: int) -> None:
        choice = random.Random(sender)
        instances = self._instances(sender, choice)
        while not self._ending.is_set():
            if not self._sending.is_set() or not self.serving:
                await asyncio.sleep(0.1)
                continue
            self._busy += 1
            try:
                await self._associate(choice.choice(sorted(self.serving)), choice, instances)
            finally:
                self._busy -= 1

    def _instances(self, sender: int, choice: random.Random) -> Iterator[Sent]:
        """Each until it is acknowledged."""
        number = 0
        while True:
            number += 1
            sent = Sent(f"1.2.826.9.{sender + 1}.{number}", choice.choice(SIZES))
            self.ledger.tried[sent.uid] = sent
            while sent.uid not in self.ledger.acknowledged:
                yield sent

    async def _associate(self, node: str, choice: random.Random, instances: Iterator[Sent]) -> None:
        begun, stored, end = time.monotonic(), 0, "unreachable"
        scu: Scu | None = None
        try:
            async with asyncio.timeout(10):
                scu = Scu(*await asyncio.open_connection(node, self._port))
            end = "broken"
            await scu.send(associate())
            kind, _ = await scu.pdu(_PATIENCE)
            if kind == 2:
                until = begun + choice.uniform(*_ASSOCIATION)
                while not stored or (time.monotonic() < until and self._sending.is_set()):
                    stored += await self._store(scu, next(instances))
                await scu.send(RELEASE_RQ)
                kind, _ = await scu.pdu(_PATIENCE)
                end = "released" if kind == 6 else "aborted"
            else:
                end = "rejected" if kind == 3 else "aborted"
                await asyncio.sleep(0.2)
        except ConnectionAbortedError:
            end = "aborted"
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            await asyncio.sleep(0.2)
        finally:
            if scu is not None:
                Scu.forget(scu)
                scu.writer.transport.abort()
            self.ledger.associations.append(Association(begun, time.monotonic(), node, end, stored))

    async def _store(self, scu: Scu, sent: Sent) -> bool:
        async with asyncio.timeout(_PATIENCE):
            await scu.send(c_store(sent.uid, sent.data_set()))
        status = await status_of(scu, _PATIENCE)
        if status:
            self.ledger.refused += 1
            await asyncio.sleep(0.2)
        else:
            self.ledger.acknowledged.add(sent.uid)
        return status == 0
