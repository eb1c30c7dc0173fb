"""Leases: who holds a lock or is at work, as small objects in a bucket that their holders keep renewing.

A lease is taken by a conditional create or replacement, renewed by replacing exactly what was written last, and
given back by replacing it with nobody's; so of two that try, one succeeds, whatever happens to their answers.
No clock of another machine is believed: whoever wants a lease watches it, and takes it over when it has seen
the same version for as long as the lease is, by its own clock. The holder counts from before its last renewal,
so it stops relying on the lease earlier than any other can take it.

What remains possible: a holder that is stopped between its last check and its request, for longer than the
lease, and whose request then goes out; and a removal that a process left behind as it died. Creates and replacements are conditional in the store itself, so that
can lose nothing; before each try of a replacement, which rests on what was read before, and of a removal the lease is
checked anew. What is answered after a process's own presence may have run out does not count: the shard may have left.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from workers.errors import Unavailable
from workers.storage.bucket import Bucket, Version
from workers.storage.shard_map import WrongStores

_MAXIMUM: Final = 4096  # bytes
_RETRY: Final = 1.0  # seconds
_GIVE_UP: Final = 2.0  # seconds
_RENEWALS: Final = 4  # in the time of a lease


class LeaseLost(WrongStores):
    """Another has taken the lease over, so we were silent for longer than it lasts: what rested on it is void."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a lease."""

    token: str = ""  # of the holder; empty when nobody's
    beat: int = 0  # makes each renewal another content, so another version
    host: str = ""  # these two are for administrators
    pid: int = 0


class Lease:
    """One lease, from the side of one who wants it or has it. All methods but `check` block."""

    def __init__(self, bucket: Bucket, name: str, seconds: float, request: float) -> None:
        """``seconds``: how long it lasts; ``request``: how long one request may be on its way."""
        self.name = name
        self.seconds = seconds
        self.holder: Holder | None = None  # who had it when we last looked
        self.changes = 0  # how often we have seen it change while another had it
        self._bucket = bucket
        self._relied_on = max(seconds - request, seconds / 3)
        self._token = os.urandom(16).hex()
        self._beat = 0
        self._version: Version | None = None  # ours
        self._since = 0.0
        self._seen: tuple[Version | None, float] = (None, 0.0)
        self._lost = False
        self._in_use = threading.Lock()

    def try_take(self) -> bool:
        """Take it if it is nobody's, or if its holder has been silent for its time under our eyes.

        Raises:
            Unavailable: the bucket.
        """
        now = _now()
        found = self._bucket.read(self.name, _MAXIMUM)
        if found is None:
            version = self._bucket.create(self.name, self._content())
        else:
            data, head = found
            self.holder = _decode(data)
            if self.holder.token and not self._is_silent(head.version, now):
                return False
            version = self._bucket.swap(self.name, self._content(), head.version)
        if version is None:
            return False
        self._version, self._since, self._lost = version, now, False
        return True

    def renew(self) -> None:
        """Say that we are still there.

        Raises:
            LeaseLost: another has taken it.
            Unavailable: the bucket; try again.
        """
        if self._version is None:
            return
        now = _now()
        version = self._bucket.swap(self.name, self._content(), self._version)
        if version is None and (unanswered := self._unanswered()) is not None:
            version = self._bucket.swap(self.name, self._content(), unanswered)
        if version is None:
            self._lost = True
            raise LeaseLost(f"the lease {self.name} was taken over: this process was stopped for too long")
        self._version, self._since = version, now

    def _unanswered(self) -> Version | None:
        """What is there, if it is a renewal of ours to which there was no answer."""
        found = self._bucket.read(self.name, _MAXIMUM)
        return found[1].version if found is not None and _decode(found[0]).token == self._token else None

    def check(self) -> None:
        """Return if what rests on the lease may be done now, one request long.

        Raises:
            LeaseLost: another has taken it.
            Unavailable: it was not renewed in time; it may be again.
        """
        if self._lost:
            raise LeaseLost(f"the lease {self.name} was taken over: this process was stopped for too long")
        if self._version is None or _now() - self._since > self._relied_on:
            raise Unavailable("store: our lease there could not be renewed in time", _RETRY)

    @contextlib.contextmanager
    def relied_on(self) -> Iterator[Callable[[], None]]:
        """Do requests that rest on the lease, which is not given back before their end; what to ask before each.

        Raises:
            Unavailable: the lease is not ours, or not surely.
        """
        with self._in_use:
            self._check_ours()
            yield self._check_ours

    def _check_ours(self) -> None:
        try:
            self.check()
        except LeaseLost:
            raise Unavailable("store: our lease there is another's by now", _RETRY) from None

    def try_clear(self) -> bool:
        """Whether it is nobody's, also by making it that after a silent holder.

        Raises:
            Unavailable: the bucket.
        """
        now = _now()
        found = self._bucket.read(self.name, _MAXIMUM)
        if found is None:
            return True
        data, head = found
        self.holder = _decode(data)
        if not self.holder.token:
            return True
        nobody = [_nobody()]
        return (
            self._is_silent(head.version, now)
            and self._bucket.swap(self.name, nobody, head.version) is not None
        )

    @property
    def holder_name(self) -> str:
        """Who had it when we last looked, for an administrator."""
        holder = self.holder
        return f"process {holder.pid} on {holder.host}" if holder and holder.token else ""

    def release(self) -> None:
        """Give it back, if it is still ours; after a failure it runs out by itself."""
        with self._in_use:
            version, self._version = self._version, None
        if version is None or self._lost:
            return
        _shortly(lambda: self._bucket.swap(self.name, [_nobody()], version))

    def remove(self) -> None:
        """Give back one whose name nobody else uses."""
        version, self._version = self._version, None
        if version is not None:
            _shortly(lambda: self._bucket.remove(self.name))

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew it from a thread while in the context. It must have been taken."""
        stop = threading.Event()

        def renew() -> None:
            while not stop.wait(self.seconds / _RENEWALS):
                with contextlib.suppress(Unavailable, LeaseLost):  # `check` tells
                    self.renew()

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(_GIVE_UP)

    def _is_silent(self, version: Version, now: float) -> bool:
        """Whether we have seen this version for the time of a lease."""
        if version != self._seen[0]:
            self.changes += self._seen[0] is not None
            self._seen = (version, now)
        return now - self._seen[1] > self.seconds

    def _content(self) -> list[bytes]:
        self._beat += 1
        return [
            msgspec.json.encode(
                Holder(token=self._token, beat=self._beat, host=socket.gethostname(), pid=os.getpid())
            )
        ]


def expire(bucket: Bucket, name: str, version: Version) -> bool:
    """Take the lease of a holder from it, and away, if it is still the version seen; False where it is not."""
    found = bucket.head(name)
    if found is None:
        return True
    if found.version.e_tag != version.e_tag or bucket.swap(name, [_nobody()], found.version) is None:
        return False
    bucket.remove(name)  # its holder's next renewal finds nothing, as it would find another version
    return True


def _shortly(work: Callable[[], object]) -> None:
    """Do what is good to have done, but not worth waiting for where the store does not answer."""

    def run() -> None:
        with contextlib.suppress(Unavailable, WrongStores):
            work()

    thread = threading.Thread(target=run, name="lease", daemon=True)
    thread.start()
    thread.join(_GIVE_UP)


def _nobody() -> bytes:
    """Content that is nobody's, each time another version."""
    return msgspec.json.encode(Holder(beat=int.from_bytes(os.urandom(6), "big")))


def _decode(data: bytes) -> Holder:
    try:
        return msgspec.json.decode(data, type=Holder)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Holder(token="unreadable")  # noqa: S106 - nobody's secret; it runs out like any other


def _now() -> float:
    """Seconds on a clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
