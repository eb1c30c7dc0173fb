"""A thread that has the next segment ready before the writer needs it, and says when none can be had."""

import threading
from typing import Final

import structlog

from ingest.contract.spool import SegmentPool, SpoolFull

logger = structlog.get_logger(__name__)

# How often space and low-water marks are looked at while nothing asks: refusals start and end by it.
WATCH_INTERVAL: Final = 0.25  # s


class SegmentSupply:
    """Owns the pool. `take` is for the writer's thread, `refusal` for any."""

    def __init__(self, pool: SegmentPool, next_number: int) -> None:
        self._pool = pool
        self._changed = threading.Condition()
        self._number = next_number
        self._fd: int | None = None
        self._full: str | None = None
        self._lacks_space: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spool-supply", daemon=True)

    def start(self) -> None:
        """Have the first segment ready, or know why not; then go on in the background."""
        self._step()
        self._thread.start()

    @property
    def refusal(self) -> str | None:
        """Why no new instance should be taken now."""
        return self._lacks_space or self._full

    def take(self, number: int, patience: float) -> int:
        """The descriptor of the next segment; waits while it is being made, and ``patience`` seconds when full.

        Raises:
            SpoolFull: still none; or the supply was closed.
        """
        with self._changed:
            assert number == self._number
            self._changed.wait_for(self._settled, patience)
            while not self._settled() and self._full is None:  # being made: that takes what it takes
                self._changed.wait(WATCH_INTERVAL)
            fd, self._fd = self._fd, None
            if fd is None:
                raise SpoolFull(self._full or "the log is closing")
            self._number += 1
            self._changed.notify_all()
            return fd

    def close(self) -> None:
        """Stop; a segment made ready stays for the next start."""
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
        self._thread.join()
        if self._fd is not None:
            self._pool.release(self._number, self._fd)
            self._fd = None

    def _settled(self) -> bool:
        return self._fd is not None or self._stopping.is_set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._step()
            with self._changed:
                if not self._stopping.is_set() and (self._fd is not None or self._full is not None):
                    self._changed.wait(WATCH_INTERVAL)

    def _step(self) -> None:
        lacks_space, full, fd = None, None, None
        try:
            lacks_space = self._pool.lacks_space()
            if lacks_space is not None:
                self._pool.shrink()
            with self._changed:  # both at one moment: the number of a segment in use must not be taken again
                number = self._number if self._fd is None else None
            if number is not None:
                fd = self._pool.take(number)
        except SpoolFull as error:
            full = str(error)
        except OSError as error:
            full = f"no segment can be made: {error.strerror}"
        except Exception:
            # The writer waits for this thread, so a defect here must become a refusal and not an end.
            logger.exception("no segment can be made")
            full = "no segment can be made"
        if self.refusal is None and (lacks_space or full):
            logger.warning("spool takes no new instances", reason=lacks_space or full)
        elif self.refusal is not None and not (lacks_space or full):
            logger.info("spool takes new instances again")
        with self._changed:
            self._lacks_space, self._full = lacks_space, full
            if fd is not None:
                self._fd = fd
            self._changed.notify_all()
