"""What no sender can bring about, written into the log by hand, a codec that fails, and a discard: told as `test_telling` has it.

Of both together no reason may be missing that the product has a word for.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import xxhash

from ingest.contract.checkpoint import Checkpoint, write_checkpoints
from ingest.contract.identifiers import UploadId, association_id
from ingest.contract.records import Instance, Kind, Place, encode_header
from ingest.contract.settings import Settings
from ingest.log import SpoolWriter
from tests.support.acceptance import QUICK, Sent
from tests.support.admin import Samples, admin_ports, metrics_text, parsed
from tests.support.audit_trail import kinds, trail_of
from tests.support.command import run
from tests.support.element_trees import El
from tests.support.faulty_codec import FAILURES, failing
from tests.support.instances import ui
from tests.support.ledger_runs import live
from tests.support.ledgers import rows
from tests.support.pixel_objects import GRAY, native
from tests.support.telling import (
    RLE,
    ROOT,
    Way,
    apart,
    counts,
    encapsulated_frames,
    events,
    gray,
    kept,
    paths,
    secondary,
)
from workers.errors import Reason
from workers.stages.passage import Passage

pytestmark = [pytest.mark.real, pytest.mark.timeout(300), pytest.mark.xdist_group("telling")]

PRIVATE_CLASS = "1.3.12.2.1107.5.9.1"
HOPELESS = 6  # tries: twice worker.attempts
SETTINGS = """
[log]
partitions = 1
[transcode]
decode_lossless = ["rle"]
[sources.ct-1]
ae_titles = ["TESTER"]
"""


class Written(NamedTuple):
    """An instance as the log has it, and what is to be told of it."""

    way: Way
    size: int = 0  # that the receiver is to have said, where it is not that of the bytes
    seal: bytes = b""  # and this
    parts: int = 0  # that its END counts, none of which is there
    tries: int = 0  # that its partition's checkpoint counts


def of_private_class(number: int) -> Sent:
    sop_class = El(0x0008_0016, "UI", ui(PRIVATE_CLASS))
    return gray(number, x00080016=sop_class)._replace(sop_class=PRIVATE_CLASS)


def at_which_the_codec_fails(number: int, failure: int) -> Sent:
    uid = El(0x0008_0018, "UI", ui(f"{ROOT}.{number}"))
    data, _ = native(GRAY, [failing(GRAY, FAILURES[failure])], x00080018=uid)
    return secondary(number, data)


FAULTS = [
    Written(apart(gray(200), "quarantined", "seal"), seal=bytes(16)),
    Written(apart(gray(201)._replace(data=b""), "quarantined", "damaged-in-log"), size=9, parts=1),
    Written(apart(gray(202), "quarantined", "attempts"), tries=HOPELESS),
    Written(apart(gray(203)._replace(syntax="1.2.3"), "quarantined", "transfer-syntax")),
    Written(kept(of_private_class(204), "private-class")),
    Written(kept(encapsulated_frames(205, RLE, fragments=3, frames=2), "frames")),
    *(
        Written(kept(at_which_the_codec_fails(220 + number, number), str(failure)))
        for number, failure in enumerate(FAILURES)
    ),
]
DISCARDED = FAULTS[0].way  # by an administrator, afterwards
# By a worker that is told to leave all as it is.
LEFT = [Written(kept(gray(300), "disabled"))]


class Told(NamedTuple):
    """All that was said."""

    metrics: Samples
    lines: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    decisions: list[tuple[str, ...]]  # in the audit trail


class Folder:
    """A data folder whose log is written by hand."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.data.mkdir()
        self.log = folder / "worker.log"
        config = folder / "settings.toml"
        config.write_text(SETTINGS)
        self.settings = Settings.model_validate({"data": self.data, "log": {"partitions": 1}})
        self.environment = os.environ | QUICK | {
            "DICOM_INGEST_CONFIG": str(config),
            "DICOM_INGEST_TELEMETRY__FORMAT": "json",
            "DICOM_INGEST_ADMIN__LISTEN": "127.0.0.1:0",
        }  # fmt: skip
        self._numbers = count(1)

    async def write(self, written: Sequence[Written]) -> None:
        """Append these as a receiver does."""
        log = SpoolWriter(self.settings)
        await log.start()
        for one in written:
            number = next(self._numbers)
            sent = one.way.sent
            instance = Instance(
                sent.sop_class, sent.uid, sent.syntax, one.size or len(sent.data), one.seal or xxhash.xxh3_128_digest(sent.data), "TESTER", "DICOM-INGEST",
                "127.0.0.1", time.time_ns(), False, association_id(1, number),
            )  # fmt: skip
            upload_id = UploadId.of(log.receiver_id, log.epoch, number)
            kind, index = (Kind.END, one.parts) if one.parts else (Kind.INSTANCE, 1)
            payload = [memoryview(sent.data)] if sent.data else []
            await log.publish(0, encode_header(kind, upload_id, index, instance, payload), payload)
            if one.tries:
                folder = self.data / "checkpoints"
                folder.mkdir(exist_ok=True)
                attempts = {bytes(upload_id): one.tries}
                write_checkpoints(folder, [Checkpoint(partition=0, attempts=attempts)])
        await log.close()

    def work(self, module: str, expected: int, **environment: str) -> Samples:
        """What a worker counts that places as many as expected."""
        said = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", module, "worker", "--data", str(self.data)],
                stdout=log, stderr=log, env=self.environment | environment,
            )  # fmt: skip

        def found() -> Samples:
            port = admin_ports(self.log, said).get("worker-0")
            page = parsed(metrics_text(port)) if port else {}
            return {key: value for key, value in page.items() if key[0].startswith("dicom_ingest_")}

        try:
            until(
                lambda: sum(counts(found(), "placed_instances_total").values()) == expected,
                lambda: self.log.read_text()[-4000:],
            )
            return found()
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(120)


def until(condition: Callable[[], bool], said: Callable[[], str]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, said()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = Folder(tmp_path_factory.mktemp("faults"))
    asyncio.run(folder.write(FAULTS))
    first = folder.work("tests.support.faulty_codec", len(FAULTS))
    asyncio.run(folder.write(LEFT))
    second = folder.work("ingest", len(LEFT), DICOM_INGEST_TRANSCODE__ENABLED="false")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DICOM_INGEST_AUDIT__DESTINATION", "file")
        done = run(folder.data, "quarantine", "discard", DISCARDED.sent.uid, "--reason", "a test image")
        assert done.code == 0, done.err
    metrics = {name: first.get(name, 0.0) + second.get(name, 0.0) for name in first | second}
    lines = [json.loads(line) for line in folder.log.read_text().splitlines() if line.startswith("{")]
    ledger = live(folder.settings)
    fates = rows(ledger, "SELECT * FROM fates")
    ledger.close()
    return Told(metrics, lines, fates, kinds(trail_of(folder.data)))


WAYS = [one.way for one in (*FAULTS, *LEFT)]


def test_instances_are_counted_once_each_and_nothing_else(told: Told) -> None:
    """Placed, where and why; transcoded, or why not."""
    assert counts(told.metrics, "placed_instances_total") == Counter(
        (w.place, w.reason, w.source) for w in WAYS
    )
    assert counts(told.metrics, "transcodes_total") == Counter((w.transcode,) for w in WAYS if w.transcode)
    assert counts(told.metrics, "placed_after_seconds_count") == {("ct-1",): len(WAYS)}


def test_each_exception_has_one_line(told: Told) -> None:
    """With the association that brought it and its digest."""
    expected = {
        (way.place, way.reason, way.sent.uid, way.sent.digest, association_id(1, number))
        for number, way in enumerate(WAYS, 1)
        if way.place == "quarantined"
    }
    assert expected == {
        (line["place"], line["reason"], line["sop_instance_uid"], line["source_digest"], line["association"])
        for line in events(told.lines, "upload set apart")
    }
    warnings = Counter(
        line["event"] for line in told.lines if line["level"] in {"warning", "error", "critical"}
    )
    assert warnings == {"upload set apart": len(expected)}


def fate_of(way: Way) -> tuple[str, str]:
    """Where it is now, and why."""
    return (Place.DISCARDED, "") if way is DISCARDED else (way.place, way.reason)


def test_each_has_one_row(told: Told) -> None:
    """At its place with the reason, of its source, by its digest."""
    expected = Counter((w.sent.uid, *fate_of(w), w.sent.digest, w.source, w.calling) for w in WAYS)
    assert expected == Counter(
        (row["sop_instance_uid"], row["place"], row["reason"], row["source_digest"], row["source"],
         row["calling_ae_title"])
        for row in told.rows
    )  # fmt: skip


def test_what_is_discarded_was_told_before_and_is_told_of(told: Told) -> None:
    """Counted and logged as quarantined, as it was; then the decision is in the audit trail, and its row says where it came from."""
    assert told.decisions == [("110103", "quarantine-discard")]
    (row,) = [row for row in told.rows if row["sop_instance_uid"] == DISCARDED.sent.uid]
    assert (row["place"], row["moved_from"]) == (Place.DISCARDED, Place.QUARANTINED)


def test_no_reason_is_left_out(told: Told) -> None:
    """Each word for quarantine and each for bytes that stay as they came is driven, here or by bytes on the wire."""
    ways = [*WAYS, *paths()]
    assert {way.reason for way in ways if way.place == "quarantined"} == set(Reason)
    assert {way.transcode for way in ways} == {"", "transcoded", *Passage}
    assert {row["place"] for row in told.rows} | {way.place for way in paths()} == {"", *Place}
