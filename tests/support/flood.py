"""What attackers do to a port, as a process of its own: `python -m tests.support.flood KIND HOST PORT SECONDS`.

``drop``   1,000 associations a second, each opened and dropped at once
``silent`` connections that never say anything, as many a second, up to the limit of descriptors
``slow``   slowloris: associations asked for a byte at a time, one a second on each of 500 connections
``syn``    half-open connections from addresses that do not exist, as fast as it goes; needs a raw socket

It prints how many there were. Only loopback is ever attacked.
"""

import random
import resource
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from tests.support.scu import associate

RATE: Final = 1000  # a second
_SLOW: Final = 500  # connections
_NO_LINGER: Final = struct.pack("ii", 1, 0)  # close sends RST: no TIME_WAIT is left on this machine


def _connect(address: tuple[str, int]) -> socket.socket | None:
    connection = socket.socket()
    connection.settimeout(5)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        return None
    return connection


class Drop:
    """Opens an association, and drops it when it is accepted."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._request = associate(calling="FLOOD")

    def __call__(self) -> bool:
        connection = _connect(self._address)
        if connection is None:
            return False
        with connection:
            try:
                connection.sendall(self._request)
                return connection.recv(4096)[:1] == b"\x02"
            except OSError:
                return False


class Silent:
    """Connects, and holds on."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._held: deque[socket.socket] = deque()
        self._most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100

    def __call__(self) -> bool:
        connection = _connect(self._address)
        if connection is None:
            return False
        self._held.append(connection)
        if len(self._held) > self._most:
            self._held.popleft().close()
        return True


class Slow:
    """Asks for associations a byte at a time."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._request = associate(calling="FLOOD")
        self._open: deque[tuple[socket.socket | None, int]] = deque([(None, 0)] * _SLOW)

    def __call__(self) -> bool:
        connection, at = self._open.popleft()
        try:
            if connection is None or at == len(self._request):
                connection, at = _connect(self._address), 0
            if connection is not None:
                connection.send(self._request[at : at + 1])
        except OSError:
            if connection is not None:
                connection.close()
            connection = None
        self._open.append((connection, at + 1))
        return connection is not None


class Syn:
    """The first segment of connections from 10.0.0.0/8, whose answers go nowhere (RFC 9293 3.5)."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._host, self._port = address
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._random = random.Random(1)

    def __call__(self) -> bool:
        source = b"\x0a" + self._random.randbytes(3)
        target = socket.inet_aton(self._host)
        tcp = struct.pack(
            ">HHIIBBHHH", self._random.randint(1024, 65535), self._port, self._random.getrandbits(32), 0,
            5 << 4, 2, 65535, 0, 0,
        )  # fmt: skip
        pseudo = source + target + struct.pack(">BBH", 0, socket.IPPROTO_TCP, len(tcp))
        tcp = tcp[:16] + struct.pack(">H", _checksum(pseudo + tcp)) + tcp[18:]
        head = struct.pack(
            ">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, socket.IPPROTO_TCP, 0, source, target
        )
        self._socket.sendto(head + tcp, (self._host, 0))
        return True


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


KINDS: Final[dict[str, Callable[[tuple[str, int]], Callable[[], bool]]]] = {
    "drop": Drop,
    "silent": Silent,
    "slow": Slow,
    "syn": Syn,
}


def main(kind: str, address: tuple[str, int], seconds: float) -> None:
    """Attack, `RATE` times a second, and print how often, and how often it went through."""
    attack = KINDS[kind](address)
    begun = time.monotonic()
    done = through = 0
    while (now := time.monotonic()) - begun < seconds:
        while done < (now - begun) * RATE:
            through += attack()
            done += 1
            if time.monotonic() - begun >= seconds:
                break
        time.sleep(0.001)
    print(done, through)  # noqa: T201 - for whoever started it


if __name__ == "__main__":
    assert sys.argv[2].startswith("127.")
    main(sys.argv[1], (sys.argv[2], int(sys.argv[3])), float(sys.argv[4]))
