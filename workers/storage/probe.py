"""Whether a store keeps its word: of several that create one key at once, exactly one may succeed.

Everything rests on that: with a store that lets two creators win, one instance silently overwrites another, and
there are such stores. So the store is tried at the start, several rounds over several connections, and one
that fails is refused. What is tried lies under ``probe/`` and is removed again.
"""

import secrets
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from workers.errors import Unavailable
from workers.storage.bucket import Bucket, Uploaded, Version
from workers.storage.shard_map import WrongStores

if TYPE_CHECKING:
    from workers.storage.checksums import Checksums

R = TypeVar("R")

PROBES: Final = "probe"
ROUNDS: Final = 6
AT_ONCE: Final = 8
_RETRY: Final = 5.0  # seconds
_ADVICE: Final = "so it cannot be used: instances would silently overwrite each other there"

_NO_PROOF: Final = (
    "so checksum cannot be the proof of storage commitment: take read, which is stronger, or manifest, which sees "
    "neither flipped bits nor rot"
)


def probe(bucket: Bucket) -> None:
    """Try creates, replacements and copies of one key at once.

    Raises:
        WrongStores: the store let two of them succeed, or lost what it had acknowledged.
        Unavailable: it did not answer well enough to tell.
    """
    names: set[str] = set()
    try:
        for _ in range(ROUNDS):
            name = f"{PROBES}/{secrets.token_hex(8)}"
            names.add(name)
            first = _probe_create(bucket, name)
            _probe_swap(bucket, name, first)
        copy = f"{PROBES}/{secrets.token_hex(8)}"
        names.add(copy)
        _probe_copy(bucket, name, copy)
    finally:
        for name in names:
            bucket.remove(name)


def probe_checksums(bucket: Bucket, checksums: "Checksums") -> None:
    """Put one object with the right SHA-256, and one with a wrong one.

    Raises:
        WrongStores: the store took the wrong one, or does not return the right one.
        Unavailable: it did not answer well enough to tell.
    """
    right, wrong = (f"{PROBES}/{secrets.token_hex(8)}" for _ in range(2))
    try:
        if checksums.takes_wrong(wrong, wrong.encode()) or bucket.head(wrong) is not None:
            raise WrongStores(
                f"{bucket.url} stores bytes that have another SHA-256 than was sent with them, {_NO_PROOF}"
            )
        bucket.create(right, [right.encode()])
        found = bucket.head(right)
        if found is None or not checksums.has(found):
            raise WrongStores(
                f"{bucket.url} does not return the SHA-256 that was sent with an object, {_NO_PROOF}"
            )
    finally:
        bucket.remove(right)
        bucket.remove(wrong)


def _probe_create(bucket: Bucket, name: str) -> Version:
    contents = [f"create {number} {name}".encode() for number in range(AT_ONCE)]
    answers = _at_once([partial(bucket.create_once, name, data) for data in contents])
    _one_winner(bucket, name, contents, answers, "creates a key once for each of several who try at a time")
    if bucket.create_once(name, b"late") is not None:
        raise WrongStores(f"{bucket.url} overwrites a key that was to be created, {_ADVICE}")
    return _read(bucket, name)[1]


def _probe_swap(bucket: Bucket, name: str, before: Version) -> None:
    contents = [f"swap {number} {name}".encode() for number in range(AT_ONCE)]
    answers = _at_once([partial(bucket.swap_once, name, data, before) for data in contents])
    _one_winner(bucket, name, contents, answers, "lets several replace the same version of a key")


def _probe_copy(bucket: Bucket, source: str, target: str) -> None:
    content = _read(bucket, source)[0]
    bucket.create(target, [b"taken"])
    if bucket.copy_new(source, target, Uploaded.of(content)):
        raise WrongStores(f"{bucket.url} overwrites by copying what was to be left alone, {_ADVICE}")
    if _read(bucket, target)[0] != b"taken":
        raise WrongStores(f"{bucket.url} overwrites by copying what was to be left alone, {_ADVICE}")


def _one_winner(
    bucket: Bucket, name: str, contents: list[bytes], answers: list[Version | None], fault: str
) -> None:
    """At most one was told that it succeeded, and then its content is there."""
    winners = [data for data, answer in zip(contents, answers, strict=True) if answer is not None]
    if len(winners) > 1:
        raise WrongStores(f"{bucket.url} {fault}, {_ADVICE}")
    content, _ = _read(bucket, name)
    if winners and content != winners[0]:
        raise WrongStores(f"{bucket.url} does not keep what it said it had stored, {_ADVICE}")


def _read(bucket: Bucket, name: str) -> tuple[bytes, Version]:
    found = bucket.read(name, 1024)
    if found is None:
        raise Unavailable("store: it does not answer well enough to be tried", _RETRY)
    return found[0], found[1].version


def _at_once(calls: list[Callable[[], R]]) -> list[R]:
    """The results of calls made at the same time."""
    barrier = threading.Barrier(len(calls))
    results: dict[int, R] = {}
    errors: list[Exception] = []

    def run(number: int, call: Callable[[], R]) -> None:
        barrier.wait()
        try:
            results[number] = call()
        except Unavailable as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(calls))]
