"""Kill a process at each of its steps: before the n-th call that changes or syncs the file system."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

CALLS = ("fsync", "link", "rename", "replace", "unlink", "mkdir", "rmdir")


def killed_at_each_call(
    prepare: Callable[[], None], work: Callable[[], None], every: int = 1
) -> Iterator[int]:
    """For n = 1, 1 + ``every``, ...: `prepare`, run ``work`` in a child that is killed before its n-th call, yield n.

    Ends after the first child that came through, which is yielded too.
    """
    for number in count(1, every):
        prepare()
        came_through = run_killed_at(number, work)
        yield number
        if came_through:
            return


def run_killed_at(number: int, work: Callable[[], None]) -> bool:
    """Whether the child came through; it fails the test where it raised."""
    pid = os.fork()
    if pid == 0:
        try:
            _count_down(number)
            work()
        except BaseException:  # noqa: BLE001 - the child must end here, whatever it was
            traceback.print_exc(file=sys.__stderr__)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.waitstatus_to_exitcode(status) == 0
    return True


def _count_down(number: int) -> None:
    left = number

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def before(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return before

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
