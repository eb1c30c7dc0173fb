"""Processes that were stopped."""

import contextlib
from pathlib import Path


def stands(pid: int) -> bool:
    """Whether all threads of a process stand still after a SIGSTOP."""
    return all(_state(task) == "T" for task in Path(f"/proc/{pid}/task").iterdir())


def _state(task: Path) -> str:
    with contextlib.suppress(OSError):  # it has ended
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    return "T"
