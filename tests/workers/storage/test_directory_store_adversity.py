"""Many processes, kills, cancelled callers and a full disk: still whole objects, one winner, nothing left behind."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.asynchronous import asynchronous, until
from tests.support.held_up import HeldUp
from workers.storage.directory_store import DirectoryStore
from workers.storage.layout import damaged_key, object_key

RACER = """
import asyncio, sys
from pathlib import Path
from workers.storage.directory_store import DirectoryStore
from workers.storage.layout import object_key
store = DirectoryStore(Path(sys.argv[1]), "store-0")
store._files._nameless = sys.argv[3] == "nameless"
mine = sys.argv[2].encode()
print("ready", flush=True)
sys.stdin.read()
for n in range(50):
    if asyncio.run(store.put_new(object_key(f"1.2.{n}"), [mine * 1000, mine * 1000])):
        print(n, flush=True)
"""
WRITER = """
import asyncio, sys
from pathlib import Path
from workers.storage.directory_store import DirectoryStore
from workers.storage.layout import object_key
store = DirectoryStore(Path(sys.argv[1]), "store-0")
store.sweep()
store._files._nameless = sys.argv[3] == "nameless"
async def run():
    for n in range(100_000):
        uid = f"1.{sys.argv[2]}.{n}"
        await store.put_new(object_key(uid), [uid.encode() * 2000] * 20)
        print(uid, flush=True)
asyncio.run(run())
"""
FILLER = """
import asyncio, os, sys
from pathlib import Path
from workers.errors import Unavailable
from workers.storage.directory_store import DirectoryStore
from workers.storage.layout import Area, object_key
disk = Path(sys.argv[1])
store = DirectoryStore(disk, "store-0")
store._files._nameless = sys.argv[2] == "nameless"
async def refused(call):
    try:
        await call
    except Unavailable as error:
        assert error.retry_after > 0
    else:
        raise AssertionError("there was room")
async def scenario():
    one, other = object_key("1.1"), object_key("1.2")
    await store.put_new(one, [bytes(1024)] * 1500)
    free = os.statvfs(disk).f_bfree
    for _ in range(3):
        await refused(store.put_new(other, [bytes(1024)] * 1000))
    await refused(store.replace(one, [bytes(1024)] * 1000))
    assert os.statvfs(disk).f_bfree >= free - 3  # folders
    assert await store.start(other, 1) is None
    assert [listed.size for listed in await store.find(Area.OBJECTS, one.shard)] == [1536000]
    await store.remove(one)
    assert await store.put_new(other, [bytes(1024)] * 1000)
asyncio.run(scenario())
assert not list(disk.glob("tmp/*"))
"""
MODES = ["nameless", "named"]


def descriptors_of(path: Path) -> list[Path]:
    """Those of this process that are open on it."""
    return [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink() and link.readlink() == path]


@pytest.mark.parametrize("mode", MODES)
def test_one_key_has_one_winner(tmp_path: Path, mode: str) -> None:
    """8 processes create 50 keys at once: each is created exactly once, with the winner's bytes whole."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path), str(number), mode],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(8)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.close()
    winners: dict[str, int] = {}
    for number, racer in enumerate(racers):
        assert racer.stdout is not None
        for won in racer.stdout.read().split():
            assert won not in winners
            winners[won] = number
        racer.stdout.close()
        assert racer.wait() == 0
    assert len(winners) == 50
    for won, number in winners.items():
        assert (tmp_path / str(object_key(f"1.2.{won}"))).read_bytes() == str(number).encode() * 2000
    assert not list(tmp_path.glob("tmp/*"))


@pytest.mark.parametrize("mode", MODES)
def test_a_killed_writer_leaves_whole_objects_only(tmp_path: Path, mode: str) -> None:
    """kill -9 in the middle of writing: each object is whole, all that was announced is there, nothing else."""
    seed = random.randrange(1000)
    chance = random.Random(seed)
    for run in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(run), mode], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        announced = [writer.stdout.readline().strip()]
        time.sleep(chance.uniform(0, 0.1))
        writer.send_signal(signal.SIGKILL)
        announced += writer.stdout.read().split("\n")[:-1]
        writer.stdout.close()
        writer.wait()
        for uid in announced:
            assert (tmp_path / str(object_key(uid))).exists(), seed
    store = DirectoryStore(tmp_path, "store-0")
    store.sweep()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == path.stem.encode() * 40_000, seed
    assert not list(tmp_path.glob("tmp/*"))
    store.close()


@pytest.mark.parametrize("mode", MODES)
def test_a_full_disk_refuses_and_recovers(tmp_path: Path, mode: str) -> None:
    """No space: unavailable with a time to retry, nothing left behind; room again: the same call succeeds."""
    # A mount namespace of its own: the disk of 2 MiB goes with the process.
    own = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    mounted = 'mount -t tmpfs -o size=2m tmpfs "$1" && exec "$0" -c "$2" "$1" "$3"'
    subprocess.run([*own, "sh", "-c", mounted, sys.executable, str(tmp_path), FILLER, mode], check=True)


@asynchronous
async def test_a_lock_is_kept_while_a_cancelled_holder_still_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a partition goes while a damaged object is set aside: the next must not have repaired it by then."""
    store = DirectoryStore(tmp_path, "store-0")
    key, aside = object_key("1.2.3"), damaged_key("1.2.3", "a" * 32)
    await store.put_new(key, [b"damaged"])
    move = HeldUp(monkeypatch, "rename")

    async def set_aside_and_repair() -> None:
        async with store.lock(key.shard):
            if await store.start(key, 0) is not None:
                await store.move(key, aside)
        await store.put_new(key, [b"repaired"])

    first = asyncio.create_task(set_aside_and_repair())
    await until(lambda: move.is_reached)
    first.cancel()
    second = asyncio.create_task(set_aside_and_repair())
    await asyncio.wait({second}, timeout=0.2)
    move.let_go()
    await second
    await asyncio.wait({first})
    await asyncio.get_running_loop().shutdown_default_executor()
    store.close()
    assert (tmp_path / str(key)).read_bytes() == b"repaired"
    assert (tmp_path / str(aside)).read_bytes() == b"damaged"


@asynchronous
async def test_whoever_is_cancelled_on_the_way_to_a_lock_leaves_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread opens the shard's folder all the same."""
    store = DirectoryStore(tmp_path, "store-0")
    key = object_key("1.2.3")
    await store.put_new(key, [b""])
    folder = (tmp_path / str(key)).parent
    opening = HeldUp(monkeypatch, "open")

    async def lock() -> None:
        async with store.lock(key.shard):
            raise AssertionError("it was cancelled before")

    task = asyncio.create_task(lock())
    await until(lambda: opening.is_reached)
    task.cancel()
    opening.let_go()
    await asyncio.wait({task})
    await asyncio.get_running_loop().shutdown_default_executor()
    left = descriptors_of(folder)
    store.close()
    assert not left
