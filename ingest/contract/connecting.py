"""Connections to hosts by name: neither a name server nor an address that does not answer holds up anything else."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple


class Address(NamedTuple):
    """What `socket.getaddrinfo` finds."""

    family: socket.AddressFamily
    kind: socket.SocketKind
    protocol: int
    name: str
    address: tuple[Any, ...]


async def addresses_of(host: str, port: int) -> list[Address]:
    """Where to connect to; looked for in a thread that nobody waits for, a process that ends least of all.

    Raises:
        OSError: there is no such host, or nobody says.
        UnicodeError: it can be no name.
    """
    found: Future[list[Address]] = Future()
    found.set_running_or_notify_cancel()  # the resolver cannot be broken off

    def look() -> None:
        try:
            found.set_result(
                [Address(*one) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, who asked is told
            found.set_exception(error)

    threading.Thread(target=look, name="name-of-host", daemon=True).start()
    return await asyncio.wrap_future(found)


async def connected(addresses: Sequence[Address], until: float) -> socket.socket:
    """A connection to the first that answers; each has its share of the time ``until`` then, by the clock of the loop.

    Raises:
        OSError: none does.
    """
    loop = asyncio.get_running_loop()
    problem = OSError("no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        with contextlib.ExitStack() as resources:
            try:
                connection = resources.enter_context(socket.socket(family, kind, protocol))
                connection.setblocking(False)
                async with asyncio.timeout((until - loop.time()) / (len(addresses) - number)):
                    await loop.sock_connect(connection, address)
            except OSError as error:  # a TimeoutError is one, too
                problem = error
            else:
                resources.pop_all()
                return connection
    raise problem
