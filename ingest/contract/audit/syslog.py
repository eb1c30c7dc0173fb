"""Syslog messages (RFC 5424) and their transport over TLS (RFC 5425), as PS3.15 A.6 wants them."""

import array
import fcntl
import os
import select
import socket
import ssl
import termios
import time
from collections.abc import Sequence
from typing import Final

from ingest.contract.audit.message import AuditSource, Message, Outcome, encode, timestamp

_AUTHPRIV: Final = 10  # RFC 5424 6.2.1: security and authorization messages
_SEVERITY: Final = {
    Outcome.SUCCESS: 5,  # notice
    Outcome.MINOR_FAILURE: 4,  # warning
    Outcome.SERIOUS_FAILURE: 3,  # error
    Outcome.MAJOR_FAILURE: 2,  # critical
}
_APP_NAME: Final = "dicom-ingest"
_MSGID: Final = "DICOM+RFC3881"  # PS3.15 A.6
_BOM: Final = b"\xef\xbb\xbf"  # RFC 5424 6.4: the text is UTF-8
_POLL: Final = 0.02  # s between looks whether all has arrived


class NotDelivered(OSError):  # noqa: N818 - named for the fact
    """The repository may not have what was sent last."""


def syslog_line(message: Message, source: AuditSource) -> bytes:
    """The whole syslog message; it has no line ends."""
    priority = _AUTHPRIV * 8 + _SEVERITY[message.outcome]
    host = _token(source.id)
    header = f"<{priority}>1 {timestamp(message.at)} {host} {_APP_NAME} {os.getpid()} {_MSGID} - "
    return header.encode() + _BOM + encode(message, source)


class SyslogConnection:
    """A connection to a repository. All calls wait, at most ``timeout`` seconds each.

    Raises:
        OSError: no connection, or no TLS.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext, timeout: float) -> None:
        self._timeout = timeout
        plain = socket.create_connection((host, port), timeout)
        try:
            self._socket = context.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise

    def close(self) -> None:
        """End it."""
        self._socket.close()

    def send(self, lines: Sequence[bytes]) -> None:
        """Send messages, and return when the repository's system has all of them.

        Syslog knows no acknowledgement: that of TCP is the most that can be had. Whoever gets an error sends the same
        lines again; so the repository may have some twice and none not at all.

        Raises:
            OSError: the connection is gone.
        """
        self._socket.settimeout(self._timeout)
        self._socket.sendall(b"".join(b"%d %s" % (len(line), line) for line in lines))  # RFC 5425 4.3
        deadline = time.monotonic() + self._timeout
        while self._unacknowledged():
            if time.monotonic() > deadline:
                raise NotDelivered("what was sent is not acknowledged")
            time.sleep(_POLL)
        if self.is_closed():
            raise NotDelivered("the repository has closed the connection")

    def is_closed(self) -> bool:
        """Whether the repository has; it never says anything else."""
        poll = select.poll()  # select(2) takes no descriptor beyond 1023, and a receiver has more
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(0):
            return False
        self._socket.setblocking(False)
        try:
            return not self._socket.recv(1)
        except ssl.SSLWantReadError:
            return False  # TLS's own, as session tickets
        except OSError:
            return True

    def _unacknowledged(self) -> int:
        """Bytes that the peer's TCP has not acknowledged (SIOCOUTQ, tcp(7))."""
        number = array.array("i", [0])
        fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, number)
        return number[0]


def _token(text: str) -> str:
    """RFC 5424 6: printable ASCII without spaces."""
    return "".join(c if "!" <= c <= "~" else "-" for c in text)[:255] or "-"
