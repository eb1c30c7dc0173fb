"""No input may bring about anything but the errors that a parser documents; what was found is kept in ``corpus/``.

``FUZZ_SECONDS`` is the time of each target (a second each in `make test`); ``FUZZ_SEED`` picks the inputs. They are changed
from those of ``corpus/TARGET.txt``, a line of hex each: short ones of `make fuzz` that lead where no other does, and every
finding. A new one is cut down to what it needs and shown in hex, to be added there beside the repair.
"""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.fuzz.targets import TARGETS, Target

SECONDS: Final = float(os.environ.get("FUZZ_SECONDS", "1"))
SEED: Final = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().getrandbits(32)
CORPUS: Final = Path(__file__).parent / "corpus"

# What bounds are made of: lengths, signs, delimiters, ends of text.
_TELLING: Final = [
    b"\0", b"\xff", b"\0\0", b"\xff\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\x80\0\0\0",
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0", b"SQ\0\0\xff\xff\xff\xff",
    b"UN\0\0\xff\xff\xff\xff", b"..", b"../", b"\n[", b"'''", b"= 1e999\n", b"true", b"[]", b"-1",
]  # fmt: skip
_SIZES: Final = (1, 2, 4, 8, 64)


def changed(rng: random.Random, seeds: tuple[bytes, ...]) -> bytes:
    """A seed with some of it replaced, cut out, doubled, mixed with another or cut short."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at = rng.randrange(len(data) + 1)
        size = rng.choice(_SIZES)
        piece = rng.choice(_TELLING) if rng.getrandbits(1) else rng.randbytes(size)
        match rng.randrange(7):
            case 0 | 1:
                data[at : at + len(piece)] = piece
            case 2:
                data[at:at] = piece
            case 3:
                del data[at : at + size]
            case 4:
                data[at:at] = data[at : at + size] * rng.choice((1, 2, 100))
            case 5:
                other = rng.choice(seeds)
                data[at:] = other[rng.randrange(len(other) + 1) :]
            case 6:
                del data[at:]
    return bytes(data)


def escapes(feed: Callable[[bytes], object], data: bytes) -> type[Exception] | None:
    """The undocumented error that an input brings about."""
    try:
        feed(data)
    except Exception as error:  # noqa: BLE001 - whatever it is
        return type(error)
    return None


def cut_down(feed: Callable[[bytes], object], data: bytes) -> bytes:
    """As little of it as brings about the same error."""
    error = escapes(feed, data)
    size = len(data)
    while size := size // 2:
        at = 0
        while at < len(data):
            less = data[:at] + data[at + size :]
            if escapes(feed, less) is error:
                data = less
            else:
                at += size
    return data


def kept_of(name: str) -> tuple[bytes, ...]:
    path = CORPUS / f"{name}.txt"
    return tuple(map(bytes.fromhex, path.read_text().split())) if path.exists() else ()


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_once(name: str) -> None:
    """Each input that ever was a finding; and the seeds are taken, or nothing behind the first check is tried."""
    for data in (*kept_of(name), b""):
        TARGETS[name].feed(data)
    for data in TARGETS[name].seeds:
        assert TARGETS[name].feed(data), data


@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("name", TARGETS)
def test_only_documented_errors_escape(name: str) -> None:
    """For as long as there is time."""
    target: Target = TARGETS[name]
    seeds = (*target.seeds, *kept_of(name))
    rng = random.Random(SEED)
    end = time.monotonic() + SECONDS
    count = 0
    while time.monotonic() < end:
        count += 1
        data = changed(rng, seeds)
        if error := escapes(target.feed, data):
            least = cut_down(target.feed, data)
            pytest.fail(f"{error.__name__} from {least.hex()} (FUZZ_SEED={SEED}, input {count})")
    print(f"{name}: {count} inputs from FUZZ_SEED={SEED}")  # noqa: T201 - for whoever runs with -s


def test_a_finding_is_found_and_cut_down() -> None:
    """The search itself: a parser with a fault at one byte is caught, and the input is that byte."""

    def faulty(data: bytes) -> None:
        if b"\xff" in data:
            raise KeyError(data)

    rng = random.Random(1)
    found = next(data for data in iter(lambda: changed(rng, (bytes(40),)), None) if escapes(faulty, data))
    assert cut_down(faulty, found) == b"\xff"
