"""What nobody caught is one event without what it failed on, wherever it comes from."""

import json
import subprocess
import sys

import pytest

from ingest.contract.uncaught import UNCAUGHT

SET_UP = """
import asyncio, threading
from ingest.contract.settings import TelemetrySettings
from ingest.contract.telemetry import configure_telemetry
from ingest.contract.uncaught import report_uncaught
configure_telemetry(TelemetrySettings(format="json"), "receiver")
class Bad:
    def __del__(self):
        int("DOE^JANE")
def fail(text):
    int(text)
async def main():
    report_uncaught(asyncio.get_running_loop())
    {}
    await asyncio.sleep(0.05)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("code", "where"),
    [
        ("asyncio.get_running_loop().call_soon(fail, 'DOE^JANE')", "event loop"),
        ("threading.Thread(target=fail, args=('DOE^JANE',)).start()", "thread"),
        ("Bad()", "destructor"),
        ("fail('DOE^JANE')", "process"),
    ],
)
def test_one_line_without_values(code: str, where: str) -> None:
    """Class and place are enough; the value may be a patient's name."""
    done = subprocess.run(
        [sys.executable, "-c", SET_UP.format(code)], capture_output=True, text=True, timeout=60, check=False
    )
    (line,) = done.stderr.splitlines()
    event = json.loads(line)
    assert (event["event"], event["where"], event["level"]) == (UNCAUGHT, where, "critical")
    assert event["error"] == "ValueError"
    assert event["stack"]
    assert "DOE" not in done.stderr
    assert done.returncode == (1 if where == "process" else 0)
