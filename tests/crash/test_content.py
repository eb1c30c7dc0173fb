"""Rows 20 to 23 of the crash matrix: duplicates, conflicts, uploads that are not whole, and what kills whoever reads it."""

import asyncio
import hashlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import xxhash
from pydicom.encaps import encapsulate

from benchmarks.processes import descendants
from ingest.contract.identifiers import UploadId, partition_of
from ingest.contract.records import Instance, Kind, encode_header
from tests.support.crash import Load, Run, Sent, committed, ends, marks, seeds
from tests.support.distributed import Distributed, Host
from tests.support.kafka_records import CT, EXPLICIT, Publisher
from tests.support.scu import Scu, ct_data_set, explicit
from workers.storage.part10 import decode_head

pytestmark = marks

RLE = "1.2.840.10008.1.2.5"


def entries(run: Run, name: str) -> list[dict[str, str]]:
    """The entries of a lane."""
    listed: list[dict[str, str]] = json.loads(run.pipeline.run(name, "list", "--json").stdout)
    return listed


def lane(run: Run, name: str) -> dict[str, dict[str, str]]:
    """The same by the digest of what was received."""
    return {entry["source_digest"]: entry for entry in entries(run, name)}


def publisher_of(run: Run) -> Publisher:
    """One whose uploads have ids of their own."""
    publisher = Publisher(run.settings)
    publisher.sequence = run.random.getrandbits(40)
    return publisher


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def object_of(run: Run, uid: str) -> str:
    """The source digest of the one object of a UID."""
    (key,) = (key for key in run.watch.objects() if key.endswith(f"/{uid}.dcm") and key.count("/") == 1)
    return decode_head(run.watch.head(key)).manifest.source_digest


async def send_at_once(ports: list[int], pairs: list[tuple[str, list[bytes]]]) -> None:
    """Each instance's data sets at the same time, over an association to each port."""
    scus = [await Scu.associated(port) for port in ports]
    for uid, data_sets in pairs:
        answers = await asyncio.gather(
            *(scu.store(uid, data) for scu, data in zip(scus, data_sets, strict=True))
        )
        assert [answer.status for answer in answers] == [0] * len(ports), uid
    for scu in scus:
        await scu.release()


def two_receivers(run: Run) -> list[int]:
    run.heal()
    while len(run.receivers()) < 2:
        run.pipeline.start_receiver()
    return run.ports()[:2]


@seeds
def test_same_instance_from_two_modalities(pipeline: Distributed, seed: int) -> None:
    """Row 20: by two receivers at once, and the same upload in the log twice: one object, both acknowledged."""
    run = Run(pipeline, seed, 20, load=Load(senders=0))
    ports = two_receivers(run)
    before = pipeline.settle()
    publisher = publisher_of(run)
    with run:
        for number in range(12):
            uid = f"{run.stem}1.{number}"
            run.ledger.tried[uid] = Sent(uid, run.random.choice((3000, 400_000, 1_500_000)))
            run.ledger.acknowledged.add(uid)
        asyncio.run(
            send_at_once(ports, [(uid, [sent.data_set()] * 2) for uid, sent in run.ledger.tried.items()])
        )
        for number in range(4):
            uid = f"{run.stem}2.{number}"
            sent = run.ledger.tried[uid] = Sent(uid, 300_000)
            run.ledger.acknowledged.add(uid)
            begun = publisher.sequence
            for _ in range(2):  # the same upload id
                publisher.sequence = begun
                publisher.upload(uid, sent.data_set(), part=run.random.choice((100_000, 1 << 20)))
        publisher.flush()
    publisher.close()
    report = run.check(handmade=True)
    assert report.conflicts == before["conflicts"], f"seed {run.seed}"
    assert report.quarantined == before["quarantined"], f"seed {run.seed}"
    assert report.duplicates - before["duplicates"] >= 12, f"seed {run.seed}: a second copy is not counted"


@seeds
def test_same_uid_other_bytes(pipeline: Distributed, seed: int) -> None:
    """Row 21: both are acknowledged, one is the object for ever, the other is kept apart and shown."""
    run = Run(pipeline, seed, 21, load=Load(senders=0))
    ports = two_receivers(run)
    before = pipeline.settle()
    pairs = []
    for number in range(6):
        uid = f"{run.others}{number}"
        data = ct_data_set(uid, run.random.choice((3000, 400_000, 1_500_000)))
        pairs.append((uid, [data, data[:-2] + b"\xab\xcd"]))
    with run:
        asyncio.run(send_at_once(ports, pairs))
    report = run.check(handmade=True)
    apart = lane(run, "conflicts")
    assert report.conflicts - before["conflicts"] == len(pairs), f"seed {run.seed}"
    for uid, data_sets in pairs:
        stored = object_of(run, uid)
        assert stored in map(sha256, data_sets), f"seed {run.seed}: I1: {uid} altered"
        (other,) = {*map(sha256, data_sets)} - {stored}
        assert apart[other]["reason"] == "pixels", f"seed {run.seed}: {uid}"


class Faulty:
    """Puts uploads together by hand, as no receiver would."""

    def __init__(self, run: Run) -> None:
        self.publisher = publisher_of(run)
        self.random = run.random
        self.seed = run.seed
        self.others = run.others
        self.expected: dict[
            str, tuple[str, bytes, str]
        ] = {}  # by what was done: uid, bytes that are kept, reason

    def upload(
        self,
        name: str,
        reason: str,
        parts: Callable[[list[tuple[int, bytes]]], list[tuple[int, bytes]]] = lambda parts: parts,
        *,
        count: int = 0,
        size: int = 0,
        seal: bytes = b"",
        flip: bool = False,
        end_at: int | None = None,
    ) -> None:
        """One upload of some parts; ``reason`` in quarantine, empty where it is whole after all."""
        uid = f"{self.others}{len(self.expected)}"
        data = ct_data_set(uid, self.random.randint(40_000, 400_000))
        step = -(-len(data) // self.random.randint(3, 6))
        sound = [(index, data[at : at + step]) for index, at in enumerate(range(0, len(data), step))]
        sent = parts(list(sound))
        partition = partition_of(uid, self.publisher.settings.log.partitions)
        upload_id = UploadId.of(9, self.seed, len(self.expected) + 1)
        instance = Instance(
            CT,
            uid,
            EXPLICIT,
            size or len(data),
            seal or xxhash.xxh3_128_digest(data),
            "A",
            "B",
            "127.0.0.1",
            1,
        )
        records = [
            encode_header(Kind.PART, upload_id, index, None, [memoryview(piece)]) + piece
            for index, piece in sent
        ]
        if flip:
            at = self.random.randrange(len(records))
            spoilt = bytearray(records[at])
            spoilt[-1 - self.random.randrange(1000)] ^= 1
            records[at] = bytes(spoilt)
        end = encode_header(Kind.END, upload_id, count or len(sound), instance)
        records.insert(len(records) if end_at is None else end_at, end)
        for record in records:
            self.publisher.send(partition, record)
        self.expected[name] = uid, data, reason

    def send_all(self) -> None:
        """Everything that may be wrong, in an order of its own each time."""
        shuffled, gap = self.random.randrange(1000), self.random.randrange(3)
        uploads: list[Callable[[], None]] = [
            lambda: self.upload("sound", ""),
            lambda: self.upload(
                "reordered", "", lambda parts: random.Random(shuffled).sample(parts, len(parts))
            ),
            lambda: self.upload("twice the same", "", lambda parts: [*parts[:2], parts[0], *parts[2:]]),
            lambda: self.upload("again with others", "", lambda parts: [*parts[:2], (0, b"xx"), *parts[2:]]),
            lambda: self.upload("others first", "damaged-in-log", lambda parts: [(0, b"xx"), *parts]),
            lambda: self.upload(
                "others as long first", "seal", lambda parts: [(0, bytes(len(parts[0][1]))), *parts]
            ),
            lambda: self.upload("gap", "damaged-in-log", lambda parts: parts[:gap] + parts[gap + 1 :]),
            lambda: self.upload("no part at all", "damaged-in-log", lambda _: []),
            lambda: self.upload("one beyond", "damaged-in-log", lambda parts: [*parts, (len(parts), b"xx")]),
            lambda: self.upload("end too early", "damaged-in-log", end_at=2),
            lambda: self.upload("wrong count", "damaged-in-log", count=9),
            lambda: self.upload("wrong size", "damaged-in-log", size=7),
            lambda: self.upload("wrong digest", "seal", seal=bytes(16)),
            lambda: self.upload("wrong byte in a record", "seal", flip=True),
        ]
        self.random.shuffle(uploads)
        for upload in uploads:
            upload()
        self.publisher.flush()
        self.publisher.close()


@seeds
def test_uploads_that_are_not_whole(pipeline: Distributed, seed: int) -> None:
    """Row 22: what cannot be proved whole is in quarantine with its reason; the rest of the log goes on."""
    run = Run(pipeline, seed, 22, load=Load(senders=1))
    run.heal()
    faulty = Faulty(run)
    with run:
        faulty.send_all()
        run.acknowledged(3)
    run.check(handmade=True)
    # By UID: what is left of an upload without a part is the same each time, no byte at all.
    reasons = {entry["sop_instance_uid"]: entry["reason"] for entry in entries(run, "quarantine")}
    for name, (uid, data, reason) in faulty.expected.items():
        assert reasons.get(uid, "") == reason, f"seed {run.seed}: {name}"
        if not reason:
            assert object_of(run, uid) == sha256(data), f"seed {run.seed}: {name}"
        else:
            found = [
                key for key in run.watch.objects() if key.endswith(f"/{uid}.dcm") and key.count("/") == 1
            ]
            assert not found, f"seed {run.seed}: I2: {name}"
    run.until(lambda: committed(run.settings) == ends(run.settings), "I5: commits at the end of the log")


def noise(uid: str, side: int, seed: int) -> bytes:
    """An image of one frame that takes a codec long."""
    pixels = np.random.default_rng(seed).integers(0, 1 << 16, (side, side), dtype=np.uint16).tobytes()
    return image(uid, side, explicit(0x7FE0, 0x10, b"OW", pixels))


def rle_bomb(uid: str, side: int) -> bytes:
    """A frame of 16 bits and ``side`` squared, all zeros, in RLE: some 60 times smaller than it says."""
    runs = side * side // 128
    segment = bytes([129, 0]) * runs  # a run of 128 zeros each
    header = np.array([2, 64, 64 + len(segment), *[0] * 13], "<u4").tobytes()
    value = encapsulate([header + segment + segment])
    pixels = b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff" + value + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
    return image(uid, side, pixels)


def image(uid: str, side: int, pixels: bytes) -> bytes:
    """A CT image with the pixel data given."""
    head = ct_data_set(uid, 128)
    rows = side.to_bytes(2, "little")
    for element in (b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x11\x00US\x02\x00"):
        at = head.index(element) + len(element)
        head = head[:at] + rows + head[at + 2 :]
    return head[: head.index(b"\xe0\x7f\x10\x00")] + pixels


@contextmanager
def codecs_that_crash(run: Run, seconds: float) -> Iterator[list[int]]:
    """For a while every codec process ends by SIGSEGV soon after it has started."""
    killed: list[int] = []
    end = time.monotonic() + seconds

    def kill() -> None:
        while time.monotonic() < end:
            for host in run.workers():
                for pid in descendants(host.pid):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGSEGV)
                        killed.append(pid)
            time.sleep(0.05)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        thread.join()


@seeds
def test_what_kills_codecs(pipeline: Distributed, seed: int) -> None:
    """Row 23: a frame too large for memory, one that takes too long, codecs that crash: kept as received, in time."""
    run = Run(pipeline, seed, 23, load=Load(senders=1))
    for host in run.workers():
        host.stop()
    tight = {
        "worker.codec_memory": 256 << 20,
        "worker.codec_timeout": 0.5,
        "transcode.decode_lossless": "rle",
    }
    workers = [pipeline.start_worker(settings=tight) for _ in range(2)]
    run.heal()
    publisher = publisher_of(run)
    bomb, long = f"{run.others}1", f"{run.others}2"
    data = {bomb: rle_bomb(bomb, 8000), long: noise(long, 2000, run.seed)}
    try:
        publisher.upload(bomb, data[bomb], syntax=RLE)
        publisher.upload(long, data[long])
        publisher.flush()
        pipeline.settle()
        with run, codecs_that_crash(run, 2) as killed:
            run.acknowledged(3)
        run.check(handmade=True)
        assert killed, f"seed {run.seed}: no codec was at work"
        assert all(host.running for host in workers), f"seed {run.seed}: a worker died of its codec"
        for uid, sent in data.items():
            assert object_of(run, uid) == sha256(sent), f"seed {run.seed}: {uid}"
        reasons = set(pipeline.status()["reasons"])  # type: ignore[call-overload]
        assert any("memory" in reason for reason in reasons), f"seed {run.seed}: {reasons}"
        assert any("timed-out" in reason for reason in reasons), f"seed {run.seed}: {reasons}"
    finally:
        publisher.close()
        for host in workers:
            assert host.stop() == 0, host.tail()


def doomed(run: Run) -> Host:
    """A worker that dies of the first upload that it would store, after it did, or found none any more."""
    # With a name of its own it need not wait until the one before is given up.
    worker = run.pipeline.start_worker(
        "worker.before-put=kill", wait=False, settings={"kafka.group_instance_id": "doomed"}
    )
    run.until(lambda: not worker.running or '"upload set apart"' in worker.tail(), "its death or the verdict")
    return worker


@pytest.mark.slow
@seeds
def test_what_kills_workers(pipeline: Distributed, seed: int) -> None:
    """Row 23: an upload that ends every worker is set apart after its tries, and what is behind it goes on."""
    run = Run(pipeline, seed, 230, load=Load(senders=1))
    run.heal()
    pipeline.settle()
    for host in run.workers():
        host.stop()
    publisher = publisher_of(run)
    uid = f"{run.others}1"
    data = ct_data_set(uid, 3000)
    publisher.upload(uid, data)
    publisher.flush()
    publisher.close()
    deaths = 0
    while not (worker := doomed(run)).running:
        deaths += 1
        assert deaths < 20, f"seed {run.seed}: no end of it"
    worker.kill()  # which the next one would do
    with run:
        run.heal()
        run.acknowledged(3)
    run.check(handmade=True)
    assert deaths >= 3, f"seed {run.seed}: set apart after {deaths}"
    assert lane(run, "quarantine")[sha256(data)]["reason"] == "attempts", f"seed {run.seed}"
