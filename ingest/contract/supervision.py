"""The child's end of supervision: a process that `serve` started never outlives it, and ends when it hangs.

A supervisor that is killed cannot stop its children, and a second `serve` would then meet the old receiver
on its port and spool. So the kernel is asked to kill the child when its parent goes (prctl(2),
PR_SET_PDEATHSIG). The child asks after its start, as code between fork and exec is unsafe in a threaded
parent; the check of the parent's id afterwards covers a parent that died in between.

A supervisor sees a process, not whether it works. So a child ends by itself when its event loop does not answer,
and is started again; in Kubernetes `/livez` leads to the same.
"""

import asyncio
import ctypes
import faulthandler
import os
import signal
import sys
import termios
from typing import Final

import click

_PR_SET_PDEATHSIG: Final = 1
_BEATS: Final = 4  # in the time without an answer

supervisor_option = click.option(
    "--supervisor",
    type=int,
    hidden=True,
    help="Process id of the parent without which this process must not live.",
)


def die_with(supervisor: int | None) -> None:
    """Be killed when the process ``supervisor``, our parent, ends; nothing to do for None.

    SIGKILL and not SIGTERM: nothing that was acknowledged can be lost, and a drain would keep the port and
    the spool from the successor.

    Raises:
        SystemExit: it has ended already.
        OSError: the kernel does not know how.
    """
    if supervisor is None:
        return
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != supervisor:
        raise SystemExit("the supervisor has gone")


def end_when_hung(supervisor: int | None, loop: asyncio.AbstractEventLoop, limit: float) -> None:
    """Have the process end with 1 once ``loop`` has not answered for ``limit`` seconds; nothing to do without supervisor.

    Where each of its threads stood is written to standard error. The watch is a thread of faulthandler's that needs no
    interpreter lock, so nothing that Python or a library does can stop it.
    """
    if supervisor is None:
        return

    def beat() -> None:
        faulthandler.dump_traceback_later(limit, exit=True)
        loop.call_later(limit / _BEATS, beat)

    loop.call_soon(beat)


def has_terminal() -> bool:
    """Whether standard error is a terminal that is still there."""
    try:
        termios.tcgetattr(sys.stderr.fileno())
    except (OSError, ValueError, termios.error):
        return False
    return True
