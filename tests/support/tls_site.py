"""A hospital with TLS: its certificates, a receiver with a TLS listener, and peers that are let in or not."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ingest.contract.peer_settings import ListenerSettings
from ingest.receiver.server import Server
from tests.support.certificates import Authority
from tests.support.memory_log import MemoryLog
from tests.support.receiving import receiver
from tests.support.scu import Scu, associate

HOST = "127.0.0.1"


class Site:
    """The files of a hospital: its authority, the receiver's certificate, a modality's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder / "authority")
        self.certificate, self.key = self.authority.certificate("receiver")
        self.peer = self.authority.certificate("ct1", subject="/O=St. Mary, North/CN=ct1")

    def listener(self, **changes: object) -> ListenerSettings:
        return ListenerSettings.model_validate(
            {
                "port": 0,
                "certificate_file": str(self.certificate),
                "key_file": str(self.key),
                "client_ca_file": str(self.authority.ca),
                **changes,
            }
        )

    def client(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """Of a modality that trusts the authority and presents a certificate, its own unless told otherwise."""
        context = ssl.create_default_context(cafile=str(self.authority.ca))
        context.load_cert_chain(*(certificate or self.peer))
        return context

    def anonymous(self) -> ssl.SSLContext:
        """Of one that presents none."""
        return ssl.create_default_context(cafile=str(self.authority.ca))


@contextlib.asynccontextmanager
async def serving(
    log: MemoryLog, listener: ListenerSettings, **settings: Any
) -> AsyncIterator[tuple[int, Server]]:
    """A receiver with one plain and one TLS listener; the port of the latter."""
    async with receiver(log, listeners={"outside": listener}, **settings) as (_, server):
        yield server.bound[1].port, server


async def associated(port: int, context: ssl.SSLContext) -> Scu:
    scu = Scu(*await asyncio.open_connection(HOST, port, ssl=context))
    await scu.send(associate())
    kind, _ = await scu.pdu()
    assert kind == 2, kind
    return scu


async def refused(port: int, context: ssl.SSLContext) -> None:
    """No association comes of it, whether the handshake fails or, in TLS 1.3, the first answer."""
    with pytest.raises((OSError, asyncio.IncompleteReadError)):  # ssl.SSLError is an OSError
        await associated(port, context)
