"""Keeps child processes running: starts, watches, restarts and stops them.

Order of a stop: no more restarts, SIGTERM to every child, each one's deadline, SIGKILL to what remains.
Each child leads a process group, so that a Ctrl-C in a terminal reaches the supervisor alone and a killed
child's own children go with it.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

import structlog

from ingest.cli.restart_policy import MAXIMUM_DELAY, GiveUp, Restart, RestartPolicy
from ingest.contract.command_options import EXIT_FAILURE
from ingest.contract.supervision import has_terminal

_READY_POLL: Final = 0.05  # seconds between looks for a child's announcement

logger = structlog.get_logger()


@dataclass
class Child:
    """One process to keep: its name, how to start it, and what it may take to stop."""

    name: str
    command: Sequence[str]
    stop_timeout: float  # seconds from SIGTERM to SIGKILL
    is_ready: Callable[[int], bool]  # given its process id
    reloads: bool = False  # on SIGHUP
    vital: bool = True  # else nobody waits for it, and the others go on where it cannot run
    stale: bool = False  # it may have read its settings before they were to be read again
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    process: asyncio.subprocess.Process | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """Runs children until it is told to stop or one of them cannot run."""

    def __init__(self, *stages: Sequence[Child]) -> None:
        """Take the children in stages: those of one start together, once all of the one before are ready."""
        self._stages = stages
        self._stop = asyncio.Event()
        self._kill = asyncio.Event()
        self._code = 0
        self._had_terminal = has_terminal()

    def stop(self) -> None:
        """Begin to stop; when called again, kill at once."""
        if self._stop.is_set():
            self._kill.set()
        self._stop.set()

    def reload(self) -> None:
        """Have the children that read their settings again do so."""
        for child in chain(*self._stages):
            child.stale = child.reloads
            _reload(child)

    def _hang_up(self) -> None:
        if self._had_terminal and not has_terminal():
            self.stop()  # the terminal that ran us is gone: what SIGHUP was made for
        else:
            self.reload()

    async def run(self, when_ready: Callable[[], None]) -> int:
        """Start all, call ``when_ready`` once every child is ready, keep them until `stop`; the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        async with asyncio.TaskGroup() as tasks:
            starting = tasks.create_task(self._start(tasks, when_ready))
            await self._stop.wait()
            starting.cancel()
            for child in chain(*self._stages):
                tasks.create_task(self._end(child))
        return self._code

    async def _start(self, tasks: asyncio.TaskGroup, when_ready: Callable[[], None]) -> None:
        for stage in self._stages:
            for child in stage:
                tasks.create_task(self._keep(child))
            for child in stage:
                if child.vital:
                    await child.ready.wait()
        when_ready()

    async def _keep(self, child: Child) -> None:
        """Run ``child``, again and again as its policy says."""
        while not self._stop.is_set():
            begun = time.monotonic()
            code = await self._run_once(child)
            if self._stop.is_set():
                self._note_stop(child, code)
                return
            decision = child.policy.ended(code, lived=time.monotonic() - begun, ready=child.ready.is_set())
            if isinstance(decision, GiveUp) and not child.vital:
                decision = Restart(MAXIMUM_DELAY)
            if isinstance(decision, GiveUp):
                logger.error("giving up", child=child.name, reason=decision.reason)
                self._code = decision.code
                self._stop.set()
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), decision.delay)

    async def _run_once(self, child: Child) -> int:
        """Start ``child`` and wait for its end; its exit code."""
        child.ready.clear()
        try:
            process = await asyncio.create_subprocess_exec(
                *child.command, stdin=asyncio.subprocess.DEVNULL, process_group=0
            )
        except OSError as error:  # as for want of memory or processes: it may pass, and the others run
            logger.error("child cannot be started", child=child.name, reason=error.strerror)  # noqa: TRY400 - it says all
            return EXIT_FAILURE
        child.process = process
        if self._stop.is_set():
            await self._end(child)  # the stop came while it was being started, and has not seen it
        watching = asyncio.create_task(self._watch_for_ready(child, process.pid))
        code = await process.wait()
        watching.cancel()
        _kill_group(process.pid)  # what it left behind, such as codecs
        if not self._stop.is_set():
            logger.error("child ended", child=child.name, pid=process.pid, code=code)
        return code

    async def _watch_for_ready(self, child: Child, pid: int) -> None:
        told = False
        while True:
            try:
                if child.is_ready(pid):
                    break
            except OSError as error:
                # As of a disk that does not answer, or for want of descriptors: it may pass.
                if not told:
                    logger.warning(
                        "whether a child is ready cannot be read", child=child.name, reason=error.strerror
                    )
                told = True
            await asyncio.sleep(_READY_POLL)
        child.ready.set()
        _reload(child)
        logger.info("child ready", child=child.name, pid=pid)

    def _note_stop(self, child: Child, code: int) -> None:
        # A child that had not yet installed its handler ends by SIGTERM itself; that is as clean.
        if code not in {0, -signal.SIGTERM}:
            logger.error("child did not stop cleanly", child=child.name, code=code)
            if child.vital:
                self._code = self._code or EXIT_FAILURE

    async def _end(self, child: Child) -> None:
        """Ask ``child`` to stop, wait for its deadline or a second signal, then kill it."""
        process = child.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            # Not `Process.terminate`, which polls, and so may reap a child that has just ended by itself, whose
            # exit code is then lost to the event loop (it reports 255).
            os.kill(process.pid, signal.SIGTERM)
        ended = asyncio.create_task(process.wait())
        killed = asyncio.create_task(self._kill.wait())
        await asyncio.wait({ended, killed}, timeout=child.stop_timeout, return_when=asyncio.FIRST_COMPLETED)
        killed.cancel()
        if not ended.done():
            logger.error("child killed", child=child.name, after_seconds=child.stop_timeout)
            _kill_group(process.pid)
            await ended


def _reload(child: Child) -> None:
    """Send SIGHUP if it is due; a child that is not ready may not handle it yet, and would end by it.

    Of one that has ended the process id may be another's by now.
    """
    process = child.process
    if child.stale and child.ready.is_set() and process is not None and process.returncode is None:
        child.stale = False
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGHUP)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
