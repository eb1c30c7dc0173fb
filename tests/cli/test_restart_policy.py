"""When a child is started again."""

import pytest

from ingest.cli.restart_policy import EARLY_ENDS, MAXIMUM_DELAY, STEADY, GiveUp, Restart, RestartPolicy


def test_wrong_settings_end_at_once() -> None:
    """Settings that a child refuses do not become right by trying again."""
    assert RestartPolicy().ended(2, lived=1, ready=False) == GiveUp(2, "its settings are refused")


def test_wrong_settings_of_a_child_that_was_ready_end_nothing() -> None:
    """Somebody is about to change the file, as a worker crashes: the others go on, and it is back once the file is right."""
    policy = RestartPolicy()
    assert isinstance(policy.ended(-9, lived=100, ready=True), Restart)
    delays = [policy.ended(2, lived=1, ready=False) for _ in range(2000)]
    assert delays[-1] == Restart(MAXIMUM_DELAY)


def test_child_that_was_never_ready_gets_three_starts() -> None:
    """A port in use or a damaged installation is reported, not retried for ever."""
    policy = RestartPolicy()
    assert isinstance(policy.ended(1, lived=1, ready=False), Restart)
    assert isinstance(policy.ended(1, lived=1, ready=False), Restart)
    assert policy.ended(1, lived=1, ready=False) == GiveUp(1, "it does not start")


@pytest.mark.parametrize("code", [1, 70, -9, -11])
def test_child_that_was_ready_is_kept_for_ever(code: int) -> None:
    """A crash is followed by a new start, sooner or later, with bounded growing delays."""
    policy = RestartPolicy()
    decisions = [policy.ended(code, lived=1, ready=number == 0) for number in range(2000)]
    delays = [decision.delay for decision in decisions if isinstance(decision, Restart)]
    assert len(delays) == len(decisions)
    assert delays == sorted(delays)
    assert delays[-1] == MAXIMUM_DELAY


def test_steady_run_forgets_failures() -> None:
    """After a minute of life the next restart is quick again."""
    policy = RestartPolicy()
    first = policy.ended(-9, lived=1, ready=True)
    for _ in range(10):
        policy.ended(-9, lived=1, ready=True)
    assert policy.ended(-9, lived=STEADY, ready=True) == first


def test_child_that_keeps_ending_well_is_given_up() -> None:
    """Exit code 0 that nobody asked for is restarted a few times, not for ever."""
    policy = RestartPolicy()
    decisions = [policy.ended(0, lived=1, ready=True) for _ in range(EARLY_ENDS)]
    assert all(isinstance(decision, Restart) for decision in decisions[:-1])
    assert isinstance(decisions[-1], GiveUp)
    assert decisions[-1].code == 1
