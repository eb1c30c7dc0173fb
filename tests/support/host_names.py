"""Names of hosts as a test has them, for a process that it starts: a file of its own at the place of /etc/hosts."""

import os
from pathlib import Path

_MOUNT = 'mount --bind "$0" /etc/hosts && exec "$@"'


def with_hosts(hosts: Path) -> tuple[str, ...]:
    """What comes before a command that finds names of hosts there. A pipe that nobody writes to never answers."""
    own = () if os.geteuid() == 0 else ("--map-root-user",)
    return ("unshare", "--mount", *own, "sh", "-c", _MOUNT, str(hosts))


def is_looking(pid: int) -> bool:
    """Whether a thread of the process waits for somebody to write to a pipe, as who looks for a name in one does."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return any((thread / "wchan").read_text() == "wait_for_partner" for thread in threads)
