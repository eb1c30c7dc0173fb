"""Proof for storage commitment by reading back, from a folder and from MinIO, against bare reads + SHA-256.

Then a whole request, as a modality sees it (`commitment_whole`), and what requests cost those who send meanwhile
(`commitment_beside`).

Both sides handle the same objects, as many at a time, with the operating system's cache warm. The ratio is bare over
ours, so it is what a proof costs beside the reading that it cannot do without.
"""

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import uvloop
import xxhash

from benchmarks.arms import RATE, Arm, Comparison, Sample, alternate
from benchmarks.data import EXPLICIT_VR_LITTLE_ENDIAN, KINDS, UidSeries, template
from benchmarks.minio import minio
from benchmarks.scenarios.commitment_beside import receive_beside
from benchmarks.scenarios.commitment_whole import request_whole
from benchmarks.scenarios.network import next_run
from benchmarks.scenarios.scale import Scale
from ingest.contract.allocator import keep_freed_memory
from ingest.contract.commitments import CommitAsked, Finding, Policy, Reference
from ingest.contract.identifiers import TransactionId, UploadId
from ingest.contract.records import Instance
from ingest.contract.settings import StoreSettings, WorkerSettings
from workers.stages.prove import Prover
from workers.storage.bucket import Bucket
from workers.storage.layout import object_key
from workers.storage.manifest import received
from workers.storage.part10 import encode_head
from workers.storage.stores import Stores, open_stores

OURS: Final = "ours, proof by read"
BARE: Final = "bare read + SHA-256"
AIM: Final = 1.3
_COUNT: Final = 1000  # of the aim
_QUICK: Final = 200
_SOURCE: Final = "MODALITY"
_AT_ONCE: Final = WorkerSettings().proofs
# Rounds for one of other scenarios: each takes a second or two, in which a machine may be busy with something else.
_MORE: Final = 3

Read = Callable[[str], bytes]
_Item = TypeVar("_Item")


def run(scale: Scale) -> list[Comparison]:
    """On a folder, on MinIO, and beside those who send."""
    keep_freed_memory()  # as a worker does; both sides have it
    count = min(_QUICK if scale.quick else _COUNT, scale.instances("ct", _AT_ONCE))
    whole = request_whole(scale, count, _hash_files)
    return [_on_folder(scale, count), _on_minio(scale, count), whole, receive_beside(scale)]


def _on_folder(scale: Scale, count: int) -> Comparison:
    folder = scale.scratch / "store"

    def read(name: str) -> bytes:
        return (folder / name).read_bytes()

    with open_stores([folder]) as stores:
        comparison = _compare(scale, "a folder", stores, read, count)
    shutil.rmtree(folder)
    return comparison


def _on_minio(scale: Scale, count: int) -> Comparison:
    with minio() as server:
        url = server.url()
        bucket = Bucket(url, StoreSettings())

        def read(name: str) -> bytes:
            found = bucket.read(name, 1 << 30)
            assert found is not None
            return found[0]

        with open_stores([url], StoreSettings()) as stores:
            return _compare(scale, "MinIO", stores, read, count)


def _compare(scale: Scale, where: str, stores: Stores, read: Read, count: int) -> Comparison:
    kind = "ct"
    title = f"Proof of {count} instances on {where}, {KINDS[kind].label}, {_AT_ONCE} at a time"
    scale.progress(title)
    asyncio.run(_fill(stores, kind, uids := _uids(count)))
    os.sync()
    volume = count * template(KINDS[kind]).size
    arms = [
        Arm(OURS, lambda: _timed(volume, lambda: _prove(stores, kind, uids))),
        Arm(BARE, lambda: _timed(volume, lambda: _read_all(read, uids))),
    ]
    for arm in arms:
        arm.run()  # so that no round pays for the first look
    comparison = Comparison(
        title, "MB/s", alternate(arms, scale.rounds if scale.quick else _MORE * scale.rounds, scale.progress)
    )
    comparison.add_ratio(BARE, OURS, AIM, at_most=True)
    return comparison


def _timed(volume: int, work: Callable[[], None]) -> Sample:
    """Time and processor time; the latter is nearly the same on a machine that has other work, too."""
    begun, cpu = time.perf_counter(), time.process_time()
    work()
    used = time.process_time() - cpu
    return {RATE: volume / (time.perf_counter() - begun), "cpu_per_byte": used / volume}


def _uids(count: int) -> list[str]:
    series = UidSeries(next_run(), 0)
    return [series.next().decode("ascii") for _ in range(count)]


async def _fill(stores: Stores, kind: str, uids: Sequence[str]) -> None:
    """Store instances as a worker does, but for the codec."""
    image = template(KINDS[kind])
    for sequence, uid in enumerate(uids):
        data = b"".join((image.head_with(uid.encode("ascii")), *image.frames()))
        facts = Instance(
            image.kind.sop_class_uid, uid, EXPLICIT_VR_LITTLE_ENDIAN, len(data), xxhash.xxh3_128_digest(data),
            _SOURCE, "DICOM-INGEST", "127.0.0.1", 1,
        )  # fmt: skip
        manifest = received(UploadId.of(1, 1, sequence), facts, hashlib.sha256(data).hexdigest())
        key = object_key(uid)
        assert await stores.of(key).put_new(key, [encode_head(manifest), data])


def _prove(stores: Stores, kind: str, uids: Sequence[str]) -> None:
    asked = CommitAsked(TransactionId.of(_SOURCE, "1.2"), _SOURCE, (_SOURCE,), Policy.READ, 0, 0, 1, 1)
    references = [Reference(KINDS[kind].sop_class_uid, uid) for uid in uids]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as a worker has
        found = runner.run(Prover(stores, _AT_ONCE).prove(asked, references))
    assert all(one.finding is Finding.PROVED for one in found)


def _read_all(read: Read, uids: Sequence[str]) -> None:
    """Each object whole, and its SHA-256."""
    _at_once(lambda uid: hashlib.sha256(read(str(object_key(uid)))).digest(), uids)


def _hash_files(paths: list[Path]) -> None:
    """The same of files."""
    _at_once(lambda path: hashlib.sha256(path.read_bytes()).digest(), paths)


def _at_once(one: Callable[[_Item], bytes], items: Sequence[_Item]) -> None:
    """With as many threads as we look at objects at a time."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        assert all(threads.map(one, items))
