"""The audit trail of one process: takes what happens, in memory and at once, and writes it once a second."""

import contextlib
import socket
import threading
from collections import Counter, deque
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import structlog

from ingest.contract.audit.delivery import Delivery
from ingest.contract.audit.events import Transfer, application, settings_changed
from ingest.contract.audit.files import TrailFiles
from ingest.contract.audit.gathered import Gathered
from ingest.contract.audit.message import AuditSource, Message
from ingest.contract.audit.syslog import syslog_line
from ingest.contract.monitoring.instruments import Gauge, Instrument, KeptCounter
from ingest.contract.settings import Settings

_INTERVAL: Final = 1.0  # s; a killed process loses what it had not written of the last one, and nothing else
_QUEUED: Final = 4096  # messages that wait to be written; more are dropped, counted and logged

logger = structlog.get_logger(__name__)


class Trail:
    """``with Trail(settings, "worker-0")``: from then on `record` and `Trail.transferred` are heard.

    Nothing that an administrator sets off waits for it: with a full disk or a repository that is away, messages wait
    in memory, in the data folder and, at their limits, are dropped and counted.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self.name = name
        self.is_on = settings.audit.destination != "none"
        self._source = source_of(settings)
        self._files = TrailFiles(settings.data, settings.audit.maximum_size)
        self._gathered = Gathered(
            self._files.folder / f"gathered-{name}.msgpack",
            settings.audit.quiet_time,
            settings.audit.longest_time,
        )
        self._left_over: list[Message] = []  # of an earlier process
        self._queue: deque[Message] = deque()
        self._unwritten: list[bytes] = []
        self._written = 0
        self._dropped: Counter[str] = Counter()
        self._told = 0  # of the dropped
        self._failing = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        syslog = settings.audit.destination == "syslog"
        self._delivery = Delivery(settings.audit, self._files) if syslog else None

    def record(self, message: Message) -> None:
        """Take a message; never waits. Any thread may call."""
        if len(self._queue) >= _QUEUED:
            self._dropped["queue"] += 1
        else:
            self._queue.append(message)

    def transferred(self, transfer: Transfer, sop_class_uid: str) -> None:
        """An instance has its place; never waits."""
        if not self._gathered.add(transfer, sop_class_uid):
            self._dropped["queue"] += 1

    @property
    def instruments(self) -> list[Instrument]:
        """What the admin port shows of it."""
        if not self.is_on:
            return []
        return [
            KeptCounter(
                "audit_messages_total", "Audit messages written to the trail.", lambda: self._written
            ),
            KeptCounter(
                "audit_dropped_total",
                "Audit messages lost; queue: for want of memory, size: for audit.maximum_size.",
                lambda: {(reason,): float(self._dropped[reason]) for reason in ("queue", "size")},
                ("reason",),
            ),
            Gauge(
                "audit_waiting_bytes",
                "Of the data folder's audit trail, what its repository does not have; 0 without one.",
                lambda: 0.0 if self._delivery is None else float(self._files.waiting()),
            ),
        ]

    def __enter__(self) -> Self:
        """Begin, with what an earlier process of this name has left."""
        global _current  # noqa: PLW0603 - one of a process, as logging is
        if self.is_on:
            self.record(application(self.name, started=True))
            self._left_over = self._gathered.left_over()
            self._thread.start()
            if self._delivery is not None:
                self._delivery.start()
            _current = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the last messages, and send them if that is quick."""
        global _current  # noqa: PLW0603 - likewise
        if not self.is_on:
            return
        _current = None
        self.record(application(self.name, started=False, description=kind.__name__ if kind else ""))
        self._stopping.set()
        self._thread.join()
        if self._delivery is not None:
            self._delivery.stop()

    def _run(self) -> None:
        while not self._stopping.wait(_INTERVAL):
            self._write()
        self._write(everything=True)

    def _write(self, *, everything: bool = False) -> None:
        try:
            self._take(everything=everything)
            if self._unwritten:
                self._dropped["size"] += self._files.append(self._unwritten)
                self._written += len(self._unwritten)
                self._unwritten = []
            self._gathered.keep()
        except OSError as error:
            if not self._failing:
                logger.error("the audit trail cannot be written; it waits in memory", errno=error.errno)  # noqa: TRY400 - it says all
            self._failing = True
        except Exception:
            logger.exception("a defect in the audit trail")
        else:
            self._failing = False
        if (dropped := self._dropped.total()) > self._told:
            logger.error("audit messages are lost", count=dropped - self._told, reasons=dict(self._dropped))
            self._told = dropped

    def _take(self, *, everything: bool) -> None:
        """What is to be written, as lines. While the last could not be, no more is taken: it waits, bounded."""
        if self._unwritten and not everything:
            return
        messages = [*self._left_over, *self._gathered.take(everything=everything)]
        self._left_over = []
        with contextlib.suppress(IndexError):
            while True:
                messages.append(self._queue.popleft())
        self._unwritten += [syslog_line(message, self._source) for message in messages]


_current: Trail | None = None


def record(message: Message) -> None:
    """To the trail of this process, if it has one; never waits."""
    if _current is not None:
        _current.record(message)


def settings_reloaded(keys: Sequence[str], problem: str = "") -> None:
    """Settings were read again: taken, or refused for ``problem``."""
    if _current is not None:
        _current.record(settings_changed(_current.name, keys, problem))


def record_now(settings: Settings, messages: Sequence[Message]) -> None:
    """Write messages of a command, which has no trail of its own; a running process delivers them.

    Raises:
        OSError: they cannot be written.
    """
    if settings.audit.destination != "none":
        source = source_of(settings)
        files = TrailFiles(settings.data, settings.audit.maximum_size)
        files.append([syslog_line(message, source) for message in messages])


def source_of(settings: Settings) -> AuditSource:
    """Who reports."""
    name = settings.audit.source_id or socket.gethostname()
    return AuditSource(name, settings.audit.enterprise_site)
