"""Structured telemetry: one line an event, and nothing of a patient in it."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from ingest.contract.settings import TelemetrySettings
from ingest.contract.telemetry import configure_telemetry
from ingest.errors import OutOfResources

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _defaults_afterwards() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_event_is_one_json_line(capsys: Output) -> None:
    """Collectors get one object a line: time, level, process, event, fields."""
    configure_telemetry(TelemetrySettings(format="json"), "receiver")
    structlog.get_logger().info("listening", port=104)
    (event,) = lines(capsys.readouterr().err)
    assert {name: event[name] for name in ("level", "process", "event", "port")} == {
        "level": "info",
        "process": "receiver",
        "event": "listening",
        "port": 104,
    }
    assert str(event["timestamp"]).endswith("Z")


def test_event_of_a_thread_names_its_process(capsys: Output) -> None:
    """A thread begins without what was bound where it was started; the spool's and Kafka's tell of trouble."""
    configure_telemetry(TelemetrySettings(format="json"), "receiver")
    thread = threading.Thread(target=structlog.get_logger().warning, args=("spool takes no new instances",))
    thread.start()
    thread.join()
    (event,) = lines(capsys.readouterr().err)
    assert event["process"] == "receiver"


def test_level_is_respected(capsys: Output) -> None:
    """What is below the level is not written."""
    configure_telemetry(TelemetrySettings(format="json", level="warning"), "receiver")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [event["event"] for event in lines(capsys.readouterr().err)] == ["loud"]


@pytest.mark.parametrize("style", ["json", "console"])
def test_text_from_outside_stays_one_short_line(capsys: Output, style: str) -> None:
    """A peer cannot forge a line, move the cursor, or fill the disk."""
    configure_telemetry(TelemetrySettings.model_validate({"format": style}), "receiver")
    structlog.get_logger().info("association ended", title="A\n2026 forged\x1b[2J" + "x" * 10_000)
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert len(text) < 1000


def test_message_of_a_foreign_exception_is_left_out(capsys: Output) -> None:
    """A parser's error may quote what it failed on; its class and the place are enough."""
    configure_telemetry(TelemetrySettings(format="json"), "worker-0")
    try:
        int("DOE^JANE")
    except ValueError:
        structlog.get_logger().exception("instance failed")
    text = capsys.readouterr().err
    (event,) = lines(text)
    assert "DOE" not in text
    assert event["error"] == "ValueError"
    assert "test_message_of_a_foreign_exception" in str(event["stack"])


@pytest.mark.parametrize(
    "error", [OutOfResources("the disk is full"), OSError(28, "No space left on device")]
)
def test_message_of_our_own_exception_is_kept(capsys: Output, error: Exception) -> None:
    """Our errors never hold patient data, and the system's are needed."""
    configure_telemetry(TelemetrySettings(format="json"), "worker-0")
    structlog.get_logger().error("failed", exc_info=error)
    assert lines(capsys.readouterr().err)[0]["error_message"] == str(error)


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    """Its disk is full: lines are lost, and what they tell of goes on."""
    program = (
        "import structlog; from ingest.contract.settings import TelemetrySettings; "
        "from ingest.contract.telemetry import configure_telemetry; "
        "configure_telemetry(TelemetrySettings(), 'receiver'); "
        "structlog.get_logger().warning('lost'); structlog.get_logger().error('lost'); print('goes on')"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, text=True, check=False
        )
    assert (done.stdout, done.returncode) == ("goes on\n", 0)
