"""Floods of associations and connections beside a good sender: it gets through, and nothing grows.

The default form is short and says nothing of speed. `FLOOD_SECONDS=60 pytest -m long -s tests/adversity/test_floods.py` is the
minute of the requirement, and judges the good sender's throughput too: on a quiet machine. With `FLOOD_PACE=0` the good sender
sends as fast as it can.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ingest.contract.settings import KiB
from tests.support.receiver_process import ReceiverProcess
from tests.support.scu import Scu, ct_data_set, run_closing, uids

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("wire")]

SECONDS = float(os.environ.get("FLOOD_SECONDS", "60"))
GROWTH = 24.0  # MiB; see tests/adversity/test_wire.py
DESCRIPTORS = 32  # that may be open once the flood is over, beyond those before
# s between two images of the good sender, 512 KiB each: a scanner at its best, 26 MB/s; 0 is as fast as it can.
PACE = float(os.environ.get("FLOOD_PACE", "0.02"))
LIMITS = {
    "DICOM_INGEST_RECEIVER__ARTIM_TIMEOUT": "5",
    "DICOM_INGEST_RECEIVER__MAXIMUM_CONNECTIONS": "2000",
    "DICOM_INGEST_RECEIVER__MAXIMUM_ASSOCIATIONS": "500",
}
NAMESPACE = ("unshare", "--map-root-user", "--net")
fresh = uids("1.2.826.11")


class Good(NamedTuple):
    """What the good sender got through."""

    stored: int
    seconds: float
    slowest: float

    @property
    def rate(self) -> float:
        return self.stored / self.seconds


async def good_sender(port: int, seconds: float) -> Good:
    """Images on one association after the other, ten on each, at the pace of a scanner."""
    begun = time.monotonic()
    stored, slowest = 0, 0.0
    while (now := time.monotonic()) - begun < seconds or not stored:
        scu = await associated(port)
        for _ in range(10):
            now = time.monotonic()
            uid = next(fresh)
            assert (await scu.store(uid, ct_data_set(uid, 512 * KiB))).status == 0
            stored += 1
            took = time.monotonic() - now
            slowest = max(slowest, took)
            await asyncio.sleep(max(0.0, PACE - took))
        await scu.release()
        Scu.forget(scu)
    return Good(stored, time.monotonic() - begun, slowest)


async def associated(port: int) -> Scu:
    """An association; one that gave way to a newer connection before it was asked for is asked for again, as senders do."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                return await Scu.associated(port)
            await asyncio.sleep(0.01)


@contextlib.contextmanager
def flood(kind: str, port: int, seconds: float, *prefix: str) -> Iterator["subprocess.Popen[str]"]:
    command = [
        *prefix,
        sys.executable,
        "-m",
        "tests.support.flood",
        kind,
        "127.0.0.1",
        str(port),
        str(seconds),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def settled(receiver: ReceiverProcess, before: int) -> bool:
    """Whether the flood's descriptors are gone, which ARTIM at the latest sees to."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if receiver.descriptors <= before + DESCRIPTORS:
            return True
        time.sleep(0.1)
    return False


def attacked(folder: Path, kind: str, seconds: float, prefix: tuple[str, ...] = ()) -> tuple[Good, Good, int]:
    """The good sender alone and beside the flood, and how often that struck."""
    with ReceiverProcess(folder, LIMITS) as receiver:
        run_closing(good_sender(receiver.port, 1))
        alone = run_closing(good_sender(receiver.port, min(seconds, 10)))
        with flood(kind, receiver.port, 1, *prefix) as warm:  # the allocator takes what it will keep
            warm.wait(60)
        assert settled(receiver, 64)
        memory, descriptors = receiver.resident, receiver.descriptors
        with flood(kind, receiver.port, seconds, *prefix) as attack:
            beside = run_closing(good_sender(receiver.port, max(1.0, seconds - 1)))
            output, _ = attack.communicate(timeout=seconds + 120)
        struck, through = map(int, output.split())
        assert settled(receiver, descriptors)
        grown = receiver.resident - memory
        print(  # noqa: T201 - the figures, for whoever runs with -s
            f"\n{kind}: {struck} in {seconds:.0f} s, {through} went through; good sender {alone.rate:.1f} images/s alone, "
            f"{beside.rate:.1f} beside, ratio {beside.rate / alone.rate:.2f}, slowest {alone.slowest * 1e3:.0f} and "
            f"{beside.slowest * 1e3:.0f} ms; memory {grown:+.1f} MiB, descriptors {descriptors} -> {receiver.descriptors}"
        )
        assert grown < GROWTH
        assert struck > 0
        run_closing(good_sender(receiver.port, 0))
        receiver.assert_calm()
        assert receiver.stop() == 0
        return alone, beside, struck


@pytest.mark.parametrize("kind", ["drop", "silent", "slow"])
def test_a_short_flood(tmp_path: Path, kind: str) -> None:
    """The good sender's images are all stored; memory and descriptors are as before."""
    attacked(tmp_path, kind, 2.0)


@pytest.mark.slow
def test_half_open_connections(tmp_path: Path) -> None:
    """SYN segments from addresses that do not exist, in a network of this test's own: the kernel's queue is no way in."""
    half_open(tmp_path, 2.0)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_minute_of_half_open_connections(tmp_path: Path) -> None:
    """The good sender keeps four fifths of its throughput."""
    half_open(tmp_path, SECONDS)


def half_open(folder: Path, seconds: float) -> None:
    """Run this module as a program in a network namespace: its loopback is nobody else's."""
    setup = 'ip link set lo up && ip route add 10.0.0.0/8 dev lo && exec "$@"'
    command = [*NAMESPACE, "sh", "-c", setup, "sh"]
    program = [sys.executable, "-m", "tests.adversity.test_floods", str(folder), str(seconds)]
    done = subprocess.run([*command, *program], check=False, text=True, capture_output=True)
    print(done.stdout)  # noqa: T201 - the figures
    assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["drop", "silent", "slow"])
def test_a_minute(tmp_path: Path, kind: str) -> None:
    """The good sender keeps four fifths of its throughput."""
    alone, beside, struck = attacked(tmp_path, kind, SECONDS)
    assert struck >= 0.9 * 1000 * SECONDS
    assert beside.rate >= 0.8 * alone.rate


if __name__ == "__main__":
    good, pressed, strikes = attacked(Path(sys.argv[1]), "syn", float(sys.argv[2]))
    assert strikes >= 0.5 * 1000 * float(sys.argv[2])
    if float(sys.argv[2]) >= SECONDS:
        assert pressed.rate >= 0.8 * good.rate
