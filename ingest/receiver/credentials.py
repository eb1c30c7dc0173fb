"""The certificate of a listener, looked at again and again: a good new one is used, a bad one is refused."""

import time
from pathlib import Path
from typing import Final

import structlog

from ingest.contract.peer_settings import ListenerSettings
from ingest.contract.tls import WrongCertificate, holds_sessions, server_context

logger = structlog.get_logger(__name__)

_DAY: Final = 86400.0  # s
_WARN_BEFORE: Final = 30 * _DAY  # of its end; a certificate is not renewed in an hour

Stamp = tuple[tuple[int, int, int] | None, ...]


class Credentials:
    """What new connections are accepted with; `context` may be another one each time.

    Raises:
        WrongCertificate: the files cannot be used.
    """

    def __init__(self, name: str, listener: ListenerSettings) -> None:
        self._name = name
        self._listener = listener
        self._stamp = _stamp(listener)
        self.context, self._expires = server_context(listener)
        self._warned = 0.0
        self.warn(time.time())

    def refresh(self) -> None:
        """Take changed files, and let go of sessions; blocks for some milliseconds, so not in the event loop."""
        self.warn(time.time())
        stamp = _stamp(self._listener)
        changed = stamp != self._stamp
        self._stamp = stamp  # taken before the files are read: a change meanwhile is another one
        if not changed and not holds_sessions(self.context):
            return
        try:
            self.context, self._expires = server_context(self._listener)
        except WrongCertificate as error:
            if changed:
                logger.error(  # noqa: TRY400 - the message says all
                    "new certificate refused, the old one stays", listener=self._name, why=str(error)
                )
            return
        if changed:
            self._warned = 0.0
            logger.info("certificate reloaded", listener=self._name, days_left=self._days_left(time.time()))

    def warn(self, now: float) -> None:
        """Say once a day that the certificate ends soon."""
        if self._expires - now < _WARN_BEFORE and now - self._warned > _DAY:
            self._warned = now
            logger.warning("certificate expires", listener=self._name, days_left=self._days_left(now))

    def _days_left(self, now: float) -> int:
        return int((self._expires - now) // _DAY)


def _stamp(listener: ListenerSettings) -> Stamp:
    files = (
        listener.certificate_file,
        listener.key_file,
        listener.client_ca_file,
        listener.client_crl_file,
    )
    return tuple(_stamp_of(file) for file in files if file)


def _stamp_of(file: str) -> tuple[int, int, int] | None:
    try:
        status = Path(file).stat()
    except OSError:
        return None
    # Changed by permissions, too: what could not be read a moment ago may be by now.
    return status.st_ctime_ns, status.st_ino, status.st_size
