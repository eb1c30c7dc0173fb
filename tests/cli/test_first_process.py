"""As the first process of a container, which the kernel spares from signals that it has no handler for."""

import os
import signal
import subprocess
import sys
from pathlib import Path

_STARTING = "import ingest.__main__; print('starting', flush=True); import time; time.sleep(600)"
# Whoever is not root is it in a namespace of users first.
_FIRST = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--pid", "--fork", "--kill-child"]


def test_told_to_stop_while_it_starts() -> None:
    """It ends, and does not first come up."""
    process = subprocess.Popen(
        [*_FIRST, sys.executable, "-c", _STARTING],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"starting\n"
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
