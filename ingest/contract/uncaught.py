"""What nobody caught becomes one event, as any other: Python would print many lines, and what it failed on."""

import asyncio
import sys
import threading
from collections.abc import Mapping
from typing import Any, Final

import structlog

UNCAUGHT: Final = "uncaught exception"  # the event; always a defect

_log = structlog.get_logger()


def report_uncaught(loop: asyncio.AbstractEventLoop) -> None:
    """From now on, for this process, its threads and ``loop``."""
    sys.excepthook = lambda _kind, error, _trace: _report("process", error)
    threading.excepthook = lambda args: _report("thread", args.exc_value)
    sys.unraisablehook = lambda args: _report("destructor", args.exc_value)
    loop.set_exception_handler(_in_loop)


def _in_loop(_loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    # Its message may have the arguments of a callback, and is left out.
    _report("event loop", context.get("exception"))


def _report(where: str, error: BaseException | None) -> None:
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return
    _log.critical(UNCAUGHT, where=where, exc_info=error)
