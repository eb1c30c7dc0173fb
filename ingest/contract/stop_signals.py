"""SIGTERM and SIGINT ask a process to stop, and may do so again until it has ended."""

import asyncio
import atexit
import contextlib
import signal


def stop_by_signal() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set, from the main thread's loop on to the process's end.

    The handlers are the process's, not the loop's: a loop takes its own with it, and a second signal while the
    interpreter ends would turn a clean end into one by signal.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def heard(*_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the end is near
            loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, heard)
        # The interpreter takes handlers back before it has ended; what is ignored stays so.
        atexit.register(signal.signal, number, signal.SIG_IGN)
    return stop
