"""What a peer's clock counts against it, and what it does not."""

import time

import pytest

from ingest.contract.settings import ReceiverSettings
from ingest.receiver.clock import PeerClock

LIMITS = ReceiverSettings(idle_timeout=60, stall_timeout=10, maximum_upload_duration=1000, minimum_rate=1000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> PeerClock:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    return PeerClock(LIMITS)


def test_silence(clock: PeerClock) -> None:
    assert clock.overdue(1060, in_message=False, idle=60) == ""
    assert clock.overdue(1060.5, in_message=False, idle=60) == "idle"


def test_silence_within_a_message(clock: PeerClock) -> None:
    assert clock.overdue(1010, in_message=True, idle=60) == ""
    assert clock.overdue(1010.5, in_message=True, idle=60) == "stalled"


def test_a_message_that_drips(clock: PeerClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never silent, and yet too slow: judged by whole windows."""
    clock.begin()
    for second in range(1, 11):
        monkeypatch.setattr(time, "monotonic", lambda second=second: 1000.0 + second)
        clock.heard(999)
        assert clock.overdue(1000.0 + second, in_message=True, idle=60) == ""
    clock.heard(1)
    assert clock.overdue(1010.1, in_message=True, idle=60) == "too slow"


def test_a_message_without_end(clock: PeerClock, monkeypatch: pytest.MonkeyPatch) -> None:
    clock.begin()
    monkeypatch.setattr(time, "monotonic", lambda: 2000.5)
    clock.heard(1_000_000)
    assert clock.overdue(2000.5, in_message=True, idle=60) == "message takes too long"


def test_waiting_for_room_is_not_of_the_message(clock: PeerClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it was tried meanwhile; and the next message has waited for nothing."""

    def at(now: float) -> None:
        monkeypatch.setattr(time, "monotonic", lambda: now)

    clock.begin()
    clock.waits()
    at(1500)
    clock.waits()
    at(2400)
    clock.goes_on()
    clock.heard(1_000_000)
    assert clock.overdue(2400, in_message=True, idle=60) == ""
    at(3400.5)
    clock.heard(1_000_000)
    assert clock.overdue(3400.5, in_message=True, idle=60) == "message takes too long"
    clock.begin()
    at(4401)
    clock.heard(1_000_000)
    assert clock.overdue(4401, in_message=True, idle=60) == "message takes too long"


def test_what_we_were_not_there_to_see_is_no_silence(clock: PeerClock) -> None:
    clock.excuse(1500)
    assert clock.overdue(1510, in_message=True, idle=60) == ""
    assert clock.overdue(1511, in_message=True, idle=60) == "stalled"


def test_an_excuse_does_not_touch_what_was_measured(clock: PeerClock) -> None:
    """Times to the answer are reckoned from the last byte, however long the log has taken since."""
    clock.begin()
    clock.excuse(1500)
    assert (clock.begun, clock.last_byte) == (1000, 1000)


def test_answers_left_unread(clock: PeerClock) -> None:
    assert not clock.reads_too_late(5000)
    clock.leaves_unread()
    assert not clock.reads_too_late(1010)
    clock.excuse_reading(1010)
    assert not clock.reads_too_late(1020)
    assert clock.reads_too_late(1020.5)
    clock.reads()
    clock.excuse_reading(2000)
    assert not clock.reads_too_late(5000)
