"""Structured logging for both sides: one event a line on standard error, console or JSON.

An event is a fixed sentence; facts go in fields. Patient data never: only identifiers that passed
``ingest.contract.identifiers`` may be fields. As a second line of defence, text from outside is cut, control
characters are escaped, and the message of a foreign exception, which may quote what it failed on, is left out.
"""

import atexit
import contextlib
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from ingest.contract.settings import TelemetrySettings

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_MAXIMUM_TEXT: Final = 300  # characters of one field
_MAXIMUM_FRAMES: Final = 20  # of a stack, the innermost
_OUR_PACKAGES: Final = ("ingest.", "workers.")


def configure_telemetry(settings: TelemetrySettings, process: str) -> None:
    """Set up structlog for this process; ``process`` names it in each event: receiver, worker-0, serve."""
    stream = sys.stderr
    atexit.register(_give_up_unwritten)
    _configure(settings, lambda *_: _Writer(stream), cache=True, process=process)
    structlog.contextvars.clear_contextvars()


def configure_command(settings: TelemetrySettings) -> None:
    """Set up structlog for a command, whose answer is on standard output: by default warnings would be in its JSON."""
    if not structlog.is_configured():
        _configure(settings, lambda *_: _Writer(sys.stderr), cache=False)


def _give_up_unwritten() -> None:
    """Let a process end with its own exit code: Python makes it 120 where standard error cannot be flushed."""
    try:
        sys.stderr.flush()
    except OSError:
        sys.stderr = None


class _Writer(structlog.WriteLogger):
    """Where a line cannot be written, as on a full disk, it is lost: what it tells of goes on as without it."""

    def msg(self, message: str) -> None:
        """Write a line."""
        with contextlib.suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _configure(
    settings: TelemetrySettings,
    factory: Callable[..., structlog.WriteLogger],
    *,
    cache: bool,
    process: str | None = None,
) -> None:
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if console
        else structlog.processors.JSONRenderer()
    )

    def name_process(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Not bound as a variable of the context, of which a thread begins with none."""
        if process is not None:
            event.setdefault("process", process)
        return event

    structlog.configure(
        processors=[
            name_process,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            describe_exception,
            bound_text,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=factory,
        cache_logger_on_first_use=cache,
    )


def bound_text(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Keep each text field on one line and short."""
    for key, value in event.items():
        if isinstance(value, str):
            safe = value if value.isprintable() else value.encode("unicode_escape").decode("ascii")
            event[key] = safe if len(safe) <= _MAXIMUM_TEXT else safe[:_MAXIMUM_TEXT] + "…"
    return event


def describe_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace ``exc_info`` by the exception's class, its message if it is ours or the system's, and its stack."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    elif isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["error"] = type(error).__qualname__
        if isinstance(error, OSError) or type(error).__module__.startswith(_OUR_PACKAGES):
            event["error_message"] = str(error)
        event["stack"] = _frames(error.__traceback__)
    return event


def _frames(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)[-_MAXIMUM_FRAMES:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
