"""The client's log: no record in it, whatever level the settings ask for."""

import logging

import pytest
import structlog

from ingest.contract.kafka_logging import use_our_events


def test_debug_is_never_formatted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client formats whole records for it."""
    kafka = logging.getLogger("kafka")
    for name in ("level", "propagate", "handlers"):
        monkeypatch.setattr(kafka, name, getattr(kafka, name))
    kafka.handlers = []
    logging.getLogger("kafka.producer").debug(
        "nobody formats this"
    )  # the child's cached levels are renewed below
    use_our_events()
    use_our_events()
    assert len(kafka.handlers) == 1
    assert not logging.getLogger("kafka.producer").isEnabledFor(logging.INFO)
    with structlog.testing.capture_logs() as events:
        for node in range(3, 6):  # said once
            logging.getLogger("kafka.producer").warning("node %d is gone", node)
    assert events == [
        {
            "event": "kafka client",
            "severity": "warning",
            "text": "node 3 is gone",
            "left_out": 0,
            "log_level": "warning",
        }
    ]


def test_the_same_again_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that fails in a loop must not fill the disk."""
    kafka = logging.getLogger("kafka")
    for name in ("level", "propagate", "handlers"):
        monkeypatch.setattr(kafka, name, getattr(kafka, name))
    kafka.handlers = []
    use_our_events()
    clock = iter([10.0, 10.1, 10.9, 11.0])
    monkeypatch.setattr("ingest.contract.kafka_logging.time.monotonic", lambda: next(clock))
    with structlog.testing.capture_logs() as events:
        for number in range(4):
            logging.getLogger("kafka.net").error("try %d failed", number)
    assert [(event["text"], event["left_out"]) for event in events] == [
        ("try 0 failed", 0),
        ("try 3 failed", 2),
    ]
