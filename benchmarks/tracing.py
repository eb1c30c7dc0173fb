"""What the kernel says of a running process: time and waits of its threads, system calls, and where the samples fall.

``strace`` and ``perf`` look at the process from outside; without them their columns stay empty, and cProfile, which
`benchmarks.scenarios.profile` runs the receiver under, says at least where the event loop's Python time goes.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.processes import descendants

_CALL: Final = re.compile(r"^\d+\s+(?:[\d.]+\s+)?(?:<\.\.\. )?(\w+)(?:\(| resumed>).*?(?:= (-?\d+))?[^=]*$")
_READS: Final = frozenset({"read", "readv", "pread64", "preadv", "recv", "recvfrom", "recvmsg"})
_WRITES: Final = frozenset(
    {"write", "writev", "pwrite64", "pwritev", "pwritev2", "send", "sendto", "sendmsg"}
)
_MOVES_BYTES: Final = _READS | _WRITES
_REPORTED: Final = re.compile(r"^\s*([\d.]+)%\s+(\S+)\s+\[(.)\]\s+(.+?)(?:\s+-)*\s*$")
# Symbols whose work is copying: glibc, the kernel's copies from and to user space, NumPy's strided ones.
_COPYING: Final = re.compile(
    r"mem(cpy|move|set)|copy_(user|to_iter|from_iter|page)|rep_movs|_copy_(to|from)|clear_page|strided|contig_to"
)
_STOP: Final = 30.0  # s


@dataclass(frozen=True)
class Use:
    """Of a thread or process, since its start: seconds of processor time, and how often it began to wait."""

    cpu: float
    waits: int

    def __sub__(self, other: "Use") -> "Use":
        return Use(self.cpu - other.cpu, self.waits - other.waits)

    def __add__(self, other: "Use") -> "Use":
        return Use(self.cpu + other.cpu, self.waits + other.waits)


def main_thread(pid: int) -> Use:
    """Of the thread that runs the event loop."""
    return _use(Path(f"/proc/{pid}/task/{pid}"))


def other_threads(pid: int) -> Use:
    """Of all others of the process that live."""
    total = Use(0, 0)
    for task in Path(f"/proc/{pid}/task").iterdir():
        if task.name != str(pid):
            total += _use(task)
    return total


def child_processes(pid: int) -> Use:
    """Of its living descendants, all threads."""
    total = Use(0, 0)
    for child in descendants(pid):
        total += main_thread(child) + other_threads(child)
    return total


def _use(task: Path) -> Use:
    try:
        status = (task / "status").read_text()
        waits = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("voluntary"))
        schedule = task / "schedstat"
        if schedule.exists():  # nanoseconds on a processor
            return Use(int(schedule.read_text().split()[0]) / 1e9, waits)
        ticks = (task / "stat").read_text().rpartition(")")[2].split()[11:13]  # utime, stime
        return Use(sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), waits)
    except OSError:
        return Use(0, 0)  # it is gone


@dataclass
class SystemCalls:
    """By name; and the bytes that those of reading and writing moved."""

    counts: Counter[str] = field(default_factory=Counter)
    moved: int = 0

    @classmethod
    def parse(cls, trace: str) -> "SystemCalls":
        """From what `strace -f -o` wrote; a call that was interrupted in the trace is counted where it ends."""
        found = cls()
        for line in trace.splitlines():
            if "<unfinished" in line:
                continue
            if match := _CALL.match(line):
                name, result = match.groups()
                found.counts[name] += 1
                if name in _MOVES_BYTES and result and int(result) > 0:
                    found.moved += int(result)
        return found


@contextmanager
def system_calls(pid: int, scratch: Path) -> Iterator[SystemCalls]:
    """Count those of a process and its threads in the block; nothing where strace is missing or not allowed."""
    found = SystemCalls()
    path = scratch / "strace"
    with _beside(["strace", "-f", "-o", str(path), "-p", str(pid)], path):
        yield found
    if path.exists():
        parsed = SystemCalls.parse(path.read_text(errors="replace"))
        found.counts, found.moved = parsed.counts, parsed.moved
        path.unlink()


@dataclass
class Samples:
    """Where perf found the process: symbols with their share."""

    symbols: list[tuple[float, str]] = field(default_factory=list)

    @property
    def copying(self) -> float:
        """The share of symbols that copy."""
        return sum(share for share, symbol in self.symbols if _COPYING.search(symbol))

    @classmethod
    def parse(cls, report: str) -> "Samples":
        """From what `perf report --sort dso,symbol` printed."""
        lines = (_REPORTED.match(line) for line in report.splitlines())
        return cls([(float(m[1]) / 100, f"{m[4]} ({Path(m[2]).name})") for m in lines if m])


@contextmanager
def samples(pid: int, scratch: Path) -> Iterator[Samples]:
    """Sample a process in the block; nothing where perf is missing or not allowed."""
    found = Samples()
    path = scratch / "perf.data"
    with _beside(["perf", "record", "-q", "-F", "997", "-o", str(path), "-p", str(pid)], path):
        yield found
    if path.exists() and path.stat().st_size:
        command = ["perf", "report", "--stdio", "--sort", "dso,symbol", "-i", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found.symbols = Samples.parse(done.stdout).symbols
    path.unlink(missing_ok=True)


@contextmanager
def _beside(command: list[str], output: Path) -> Iterator[None]:
    """Run a tracer during the block, from when its output file is there; SIGINT ends it and lets its target go."""
    if shutil.which(command[0]) is None:
        yield
        return
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + _STOP
    while not output.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)  # it opens the file before it is attached to every thread, and says so nowhere
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
