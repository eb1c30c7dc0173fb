"""To the audit repository: a thread that sends what the trail has, in whichever process holds the folder's lock."""

import threading
import time
from typing import Final

import structlog

from ingest.contract.audit.files import Mark, TrailFiles
from ingest.contract.audit.syslog import SyslogConnection
from ingest.contract.audit_settings import AuditSettings
from ingest.contract.settings_base import KiB, host_and_port
from ingest.contract.tls import WrongCertificate, client_context, reason_of

_LOOK: Final = 1.0  # s between looks for something to send
_BATCH: Final = 256 * KiB  # bytes; a message has 1 to 2 KiB
_AGAIN: Final = 0.1  # s between its last tries
_LAST: Final = 5.0  # s that a process which ends waits for its last messages to go

logger = structlog.get_logger(__name__)


class Delivery:
    """Sends from `start` to `stop`."""

    def __init__(self, settings: AuditSettings, files: TrailFiles) -> None:
        self.sent = 0  # messages
        self._settings = settings
        self._files = files
        self._connection: SyslogConnection | None = None
        self._unkept: Mark | None = None  # up to where was sent, while a full disk does not take it
        self._failing = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-delivery", daemon=True)

    def start(self) -> None:
        """Send from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Send what is there, if that is quick; the rest waits in the trail."""
        self._stopping.set()
        self._thread.join(_LAST)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._turn()
            self._stopping.wait(self._settings.retry)
        deadline = time.monotonic() + _LAST
        while not self._failing and self._files.waiting() and time.monotonic() < deadline:
            self._turn()  # another process that ends may have had its turn before our last message was there
            time.sleep(_AGAIN)

    def _turn(self) -> None:
        """Deliver for as long as it is on this process: until it ends, or an error."""
        try:
            self._files.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            with self._files.delivering() as ours:
                while ours:
                    self._deliver()
                    if self._stopping.wait(_LOOK):
                        break
        except (OSError, UnicodeError, WrongCertificate) as error:  # UnicodeError: a host that can be no name
            if not self._failing:
                self._failing = True
                logger.error(  # noqa: TRY400 - the message says all
                    "the audit repository cannot be reached; messages wait in the data folder",
                    repository=self._settings.repository,
                    why=reason_of(error),
                )
        finally:
            self._disconnect()

    def _deliver(self) -> None:
        mark = self._files.delivered()
        if self._unkept is not None:
            mark = self._keep(max(mark, self._unkept))
        while (batch := self._files.read(mark, _BATCH)).lines:
            lines = [line for line in batch.lines if line.endswith(b"</AuditMessage>")]
            if len(lines) < len(batch.lines):
                logger.warning("the audit trail has damaged lines", count=len(batch.lines) - len(lines))
            if lines:
                self._connected().send(lines)
            mark = self._keep(batch.end)
            self.sent += len(lines)
            if self._failing:
                self._failing = False
                logger.info("the audit repository is reached again", repository=self._settings.repository)

    def _keep(self, mark: Mark) -> Mark:
        self._unkept = mark
        self._files.set_delivered(mark)
        self._unkept = None
        return mark

    def _connected(self) -> SyslogConnection:
        if self._connection is not None and self._connection.is_closed():
            self._disconnect()
        if self._connection is None:
            settings = self._settings
            host, port = host_and_port(settings.repository)
            context = client_context(settings.ca_file, settings.certificate_file, settings.key_file)
            self._connection = SyslogConnection(host, port, context, settings.timeout)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
