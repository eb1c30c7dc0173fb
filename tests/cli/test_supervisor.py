"""The supervisor over small real processes: restart, stop, deadline, kill, nobody left behind."""

import asyncio
import errno
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from structlog.testing import capture_logs

from ingest.cli.serve import _say_ready
from ingest.cli.supervisor import Child, Supervisor
from ingest.contract.running import start_time
from ingest.contract.settings import Settings
from tests.support.asynchronous import until

WAIT = "import signal; signal.sigwait([signal.SIGTERM])"  # SIGTERM is blocked below, so nothing is missed
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"


class Folder:
    """Children report in files: their starts, one line of process id each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def child(self, name: str, program: str, *, stop_timeout: float = 60) -> Child:
        report = (
            "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); "
            "file = open(sys.argv[1], 'a'); print(os.getpid(), file=file, flush=True); "
        )
        command = [sys.executable, "-c", report + program, str(self.path / name)]
        return Child(name, command, stop_timeout, lambda pid: pid in self.starts(name))

    def starts(self, name: str) -> list[int]:
        path = self.path / name
        text = path.read_text() if path.exists() else ""
        return [int(line) for line in text.splitlines()]


async def run_until_ready(supervisor: Supervisor) -> asyncio.Task[int]:
    ready = asyncio.Event()
    running = asyncio.create_task(supervisor.run(ready.set))
    async with asyncio.timeout(60):
        await ready.wait()
    return running


def gone(pids: list[int]) -> bool:
    return not any(start_time(pid) for pid in pids)


def test_stop_is_clean(tmp_path: Path) -> None:
    """All children ready, a stop, all children gone: exit code 0."""
    folder = Folder(tmp_path)

    async def scenario() -> None:
        supervisor = Supervisor([folder.child("a", WAIT), folder.child("b", WAIT)])
        running = await run_until_ready(supervisor)
        supervisor.stop()
        assert await running == 0
        assert gone(folder.starts("a") + folder.starts("b"))

    asyncio.run(scenario())


def test_a_child_that_is_not_vital_holds_nobody_up(tmp_path: Path) -> None:
    """It cannot run, as with an exit code that gives up for others: nobody waits for it, and the others go on."""
    folder = Folder(tmp_path)

    async def scenario() -> None:
        useless = folder.child("useless", "sys.exit(2)")
        useless.vital = False
        supervisor = Supervisor([folder.child("a", WAIT)], [useless])
        running = await run_until_ready(supervisor)
        await until(lambda: bool(folder.starts("useless")) and gone(folder.starts("useless")))
        assert not running.done()
        assert not gone(folder.starts("a"))
        supervisor.stop()
        assert await running == 0
        assert gone(folder.starts("a") + folder.starts("useless"))

    asyncio.run(scenario())


def test_stop_during_the_start(tmp_path: Path) -> None:
    """A stop at any moment of the start ends it, and no child is left."""
    folder = Folder(tmp_path)

    async def scenario(turns: int) -> None:
        supervisor = Supervisor([folder.child("a", WAIT)], [folder.child("b", WAIT)])
        running = asyncio.create_task(supervisor.run(lambda: None))
        for _ in range(turns):
            await asyncio.sleep(0)
        supervisor.stop()
        async with asyncio.timeout(60):
            assert await running == 0
        assert gone(folder.starts("a") + folder.starts("b"))

    for turns in range(12):
        asyncio.run(scenario(turns))


def test_sigterm_to_the_supervisor_is_a_stop(tmp_path: Path) -> None:
    """The signals of a service manager and of a terminal both end it well."""
    folder = Folder(tmp_path)

    async def scenario(number: signal.Signals) -> None:
        running = await run_until_ready(Supervisor([folder.child("a", WAIT)]))
        os.kill(os.getpid(), number)
        assert await running == 0

    asyncio.run(scenario(signal.SIGTERM))
    asyncio.run(scenario(signal.SIGINT))


def test_killed_child_is_replaced(tmp_path: Path) -> None:
    """kill -9 of a child: another one takes its place, and the others go on."""
    folder = Folder(tmp_path)

    async def scenario() -> None:
        supervisor = Supervisor([folder.child("a", WAIT), folder.child("b", WAIT)])
        running = await run_until_ready(supervisor)
        os.kill(folder.starts("b")[0], signal.SIGKILL)
        await until(lambda: len(folder.starts("b")) == 2)
        assert len(folder.starts("a")) == 1
        supervisor.stop()
        assert await running == 0

    asyncio.run(scenario())


def test_a_child_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    """The system has no process to give: the others go on, and it starts once there is one."""
    folder = Folder(tmp_path)
    program = tmp_path / "python"

    async def scenario() -> None:
        child = folder.child("b", WAIT)
        child.command = [str(program), *child.command[1:]]
        program.symlink_to(sys.executable)
        supervisor = Supervisor([folder.child("a", WAIT), child])
        running = await run_until_ready(supervisor)
        program.unlink()
        with capture_logs() as lines:
            os.kill(folder.starts("b")[0], signal.SIGKILL)
            await until(lambda: any(line["event"] == "child cannot be started" for line in lines))
        program.symlink_to(sys.executable)
        await until(lambda: len(folder.starts("b")) == 2)
        assert len(folder.starts("a")) == 1
        supervisor.stop()
        assert await running == 0

    asyncio.run(scenario())


def test_a_child_whose_announcement_cannot_be_read_is_ready_once_it_can(tmp_path: Path) -> None:
    """A disk that does not answer, or no descriptor: it is looked again, and said once."""
    folder = Folder(tmp_path)

    async def scenario() -> None:
        child = folder.child("a", WAIT)
        is_ready, failures = child.is_ready, iter((errno.EIO, errno.EMFILE))

        def looked(pid: int) -> bool:
            if number := next(failures, None):
                raise OSError(number, os.strerror(number))
            return is_ready(pid)

        child.is_ready = looked
        supervisor = Supervisor([child])
        with capture_logs() as lines:
            running = await run_until_ready(supervisor)
        assert [line["reason"] for line in lines if line["log_level"] == "warning"] == [
            os.strerror(errno.EIO)
        ]
        supervisor.stop()
        assert await running == 0

    asyncio.run(scenario())


def test_a_ready_block_whose_facts_cannot_be_read_stops_nothing(tmp_path: Path) -> None:
    """As of a disk that does not answer."""
    (tmp_path / "run").write_bytes(b"")
    with capture_logs() as lines:
        _say_ready(Settings(data=tmp_path), 1)
    assert [line["event"] for line in lines] == ["the ready block cannot be written"]


def test_no_signal_goes_to_the_process_id_of_a_child_that_has_ended(tmp_path: Path) -> None:
    """Another process may have it by then; the child that comes next is told to read its settings once it is ready."""
    folder = Folder(tmp_path)
    heard: list[int] = []

    async def scenario() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, heard.append, signal.SIGHUP)
        child = folder.child("a", WAIT)
        child.reloads = True
        child.ready.set()
        child.process = cast("asyncio.subprocess.Process", SimpleNamespace(pid=os.getpid(), returncode=1))
        Supervisor([child]).reload()
        assert child.stale
        child.process = cast("asyncio.subprocess.Process", SimpleNamespace(pid=os.getpid(), returncode=None))
        Supervisor([child]).reload()
        await until(lambda: heard == [signal.SIGHUP])
        assert not child.stale

    asyncio.run(scenario())


def test_stubborn_child_is_killed_at_its_deadline(tmp_path: Path) -> None:
    """What does not stop is killed, and the exit code says that the stop was not clean."""
    folder = Folder(tmp_path)

    async def scenario() -> None:
        supervisor = Supervisor([folder.child("a", STUBBORN, stop_timeout=0.1)])
        running = await run_until_ready(supervisor)
        supervisor.stop()
        assert await running == 1
        assert gone(folder.starts("a"))

    asyncio.run(scenario())


def test_second_signal_kills_at_once(tmp_path: Path) -> None:
    """An administrator in a hurry does not wait for deadlines."""
    folder = Folder(tmp_path)

    async def scenario() -> None:
        supervisor = Supervisor([folder.child("a", STUBBORN, stop_timeout=10_000)])
        running = await run_until_ready(supervisor)
        supervisor.stop()
        await asyncio.sleep(0)
        supervisor.stop()
        assert await running == 1

    asyncio.run(scenario())


def test_refused_settings_stop_everything(tmp_path: Path) -> None:
    """A child's exit code 2 is the supervisor's; it is not restarted, and the others are stopped."""
    folder = Folder(tmp_path)

    async def scenario() -> None:
        refused = folder.child("b", "sys.exit(2)")
        # One that was ready once is started again.
        refused.is_ready = lambda _: False
        supervisor = Supervisor([folder.child("a", WAIT), refused])
        async with asyncio.timeout(60):
            assert await supervisor.run(lambda: None) == 2
        assert len(folder.starts("b")) == 1
        assert gone(folder.starts("a"))

    asyncio.run(scenario())


def test_children_of_a_killed_child_go_with_it(tmp_path: Path) -> None:
    """A worker that is killed leaves no codec behind."""
    folder = Folder(tmp_path)
    grandchild = (
        "import subprocess; p = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']); "
        "print(p.pid, file=open(sys.argv[1] + '-below', 'a'), flush=True); signal.sigwait([signal.SIGTERM])"
    )

    async def scenario() -> None:
        supervisor = Supervisor([folder.child("a", grandchild)])
        running = await run_until_ready(supervisor)
        await until(lambda: len(folder.starts("a-below")) == 1)
        below = folder.starts("a-below")
        os.kill(folder.starts("a")[0], signal.SIGKILL)
        await until(lambda: len(folder.starts("a")) == 2)
        await until(lambda: gone(below))
        supervisor.stop()
        assert await running == 0

    asyncio.run(scenario())


def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    """kill -9 of the supervisor leaves no child, so that no two receivers can ever run."""
    program = (
        "import os, sys; from ingest.contract.supervision import die_with; die_with(int(sys.argv[1])); "
        "print(os.getpid(), flush=True); import signal; signal.pause()"
    )
    parent = (
        "import os, subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1], str(os.getpid())]); "
        "import signal; signal.pause()"
    )

    async def scenario() -> None:
        supervisor = await asyncio.create_subprocess_exec(
            sys.executable, "-c", parent, program, stdout=asyncio.subprocess.PIPE
        )
        assert supervisor.stdout is not None
        child = int(await supervisor.stdout.readline())
        supervisor.kill()
        await supervisor.wait()
        await until(lambda: gone([child]))

    asyncio.run(scenario())


def test_orphan_does_not_start(tmp_path: Path) -> None:
    """A child whose supervisor went before it could ask the kernel ends by itself."""

    async def scenario() -> None:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from ingest.contract.supervision import die_with; die_with(1)",
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert await child.wait() == 1

    asyncio.run(scenario())
