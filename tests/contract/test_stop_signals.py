"""A process that is told to stop again and again ends as one that is told once."""

import signal
import subprocess
import sys

import pytest

# The main thread ends long before the process: another still works, as a pool's or a client's may.
_PROGRAM = """
import asyncio, sys, threading, time
import uvloop
from ingest.contract.stop_signals import stop_by_signal

async def main():
    stop = stop_by_signal()
    print("ready", flush=True)
    await stop.wait()
    threading.Thread(target=time.sleep, args=(0.5,)).start()

with asyncio.Runner(loop_factory={loop}) as runner:
    runner.run(main())
print("loop closed", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("loop", ["asyncio.new_event_loop", "uvloop.new_event_loop"])
def test_the_second_signal_changes_nothing(loop: str, number: signal.Signals) -> None:
    """Neither after the loop has gone nor while the interpreter ends."""
    command = [sys.executable, "-c", _PROGRAM.format(loop=loop)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "loop closed\n"
        while process.poll() is None:
            process.send_signal(number)
    assert process.returncode == 0
