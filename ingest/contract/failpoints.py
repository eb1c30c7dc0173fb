"""Places where a test makes a process die, stop or stall; without the variable they do nothing at all.

    FAILPOINTS="receiver.before-response=kill@3,worker.after-put=stop,worker.polling=sleep:30"

means: at the third time that the point is reached, SIGKILL; at the first, SIGSTOP; at the first, half a
minute without a word. Kills at random moments seldom hit the microsecond between two steps; these do.
"""

import enum
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

VARIABLE: Final = "FAILPOINTS"
_SPEC = re.compile(r"(?P<action>kill|stop|sleep)(:(?P<seconds>[0-9.]+))?(@(?P<turn>[1-9][0-9]*))?\Z")


class Failpoint(enum.StrEnum):
    """The points, in the order in which an instance passes them."""

    PART_PUBLISHED = "receiver.part-published"  # given to the log, perhaps not yet durable
    BEFORE_RESPONSE = "receiver.before-response"  # the log has all of the instance
    ASKED = "receiver.asked"  # the whole of an N-ACTION is read; the log has nothing of it
    FENCED = "receiver.fenced"  # the instance log has all fences of a round
    ACCEPTED = "receiver.accepted"  # the commitment log has the request; it is not answered yet
    BEFORE_DECISION = "receiver.before-decision"
    DECIDED = "receiver.decided"
    BEFORE_REPORT = "receiver.before-report"
    REPORTED = "receiver.reported"  # the peer has taken it; the log does not know
    CLOSED = "receiver.closed"
    POLLING = "worker.polling"  # about to ask the log for more
    PART_READ = "worker.part-read"
    BEFORE_PUT = "worker.before-put"
    BETWEEN_PUTS = "worker.between-puts"  # of the parts of one object
    AFTER_PUT = "worker.after-put"
    BEFORE_OUTCOME = "worker.before-outcome"
    AFTER_OUTCOME = "worker.after-outcome"
    AFTER_COMMIT = "worker.after-commit"
    BEFORE_PROOF = "worker.before-proof"  # of a fence: the uploads before it have their places
    AFTER_PROOF = "worker.after-proof"
    PROOF_PUBLISHED = "worker.proof-published"  # and the fence not yet passed


class _Armed(NamedTuple):
    act: Callable[[], None]
    turn: int


def parse(text: str) -> dict[Failpoint, _Armed]:
    """What is armed.

    Raises:
        ValueError: not in the form above, or no such point.
    """
    armed = {}
    for item in filter(None, text.split(",")):
        name, _, spec = item.partition("=")
        match = _SPEC.match(spec)
        if match is None:
            raise ValueError(f"{VARIABLE}: {item!r} is not POINT=kill|stop|sleep:SECONDS, perhaps with @TURN")
        action, seconds = match["action"], float(match["seconds"] or 0)
        armed[Failpoint(name)] = _Armed(_act(action, seconds), int(match["turn"] or 1))
    return armed


def _act(action: str, seconds: float) -> Callable[[], None]:
    if action == "sleep":
        return lambda: time.sleep(seconds)
    number = signal.SIGKILL if action == "kill" else signal.SIGSTOP
    return lambda: os.kill(os.getpid(), number)


_armed: Final = parse(os.environ.get(VARIABLE, ""))
_reached: Counter[Failpoint] = Counter()


def _nothing(point: Failpoint) -> None:
    """Without the variable."""


def _reach(point: Failpoint) -> None:
    """With it."""
    if point in _armed:
        _reached[point] += 1
        if _reached[point] == _armed[point].turn:
            _armed[point].act()


reach: Final[Callable[[Failpoint], None]] = _reach if _armed else _nothing
