"""What acceptance tests share: real senders of exact bytes, commands as a script runs them, a quick settle."""

import hashlib
import json
import multiprocessing
import subprocess
import time
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pynetdicom
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from pynetdicom import AE

from ingest.contract.settings import Settings
from tests.support.datasets import data_set_bytes
from tests.support.pipeline import PLACES, Pipeline, assert_adds_up
from tests.support.reactor import leave_responses_to_their_senders
from tests.support.scu import EXPLICIT, Scu, associate, c_store, run_closing
from workers.cli.status_report import read_report

Status = dict[str, int]
# Checkpoints are what a settled count waits for.
QUICK = {"DICOM_INGEST_WORKER__CHECKPOINT_INTERVAL": "0.1"}
COUNTS = ("received", *PLACES)


def settle(pipeline: Pipeline, timeout: float = 120) -> Status:
    """As `Pipeline.settle`, without a process for each look; the sum is exact at each."""
    settings = Settings(data=pipeline.data)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if _look(settings)["backlog"] == 0:
            # A look reads moves first: one that a worker made before its last upload counted may be missing in it.
            report = _look(settings)
            return {name: report[name] for name in COUNTS}
        time.sleep(0.05)
    raise TimeoutError(pipeline.log.read_text()[-4000:])


def _look(settings: Settings) -> Status:
    report = msgspec.to_builtins(read_report(settings, quick=True))
    assert_adds_up(report)
    return dict(report)


def gained(before: Status, after: Status) -> Status:
    """What the counters have grown by; those that have not are left out."""
    return {name: after[name] - before[name] for name in COUNTS if after[name] != before[name]}


class Ran(NamedTuple):
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """What it printed for scripts."""
        return json.loads(self.stdout)


def run(pipeline: Pipeline, *arguments: str) -> Ran:
    """Run `dicom-ingest` on the pipeline's data folder, as a script would."""
    done = subprocess.run(
        pipeline.command(*arguments, "--data", str(pipeline.data)),
        check=False, capture_output=True, text=True, env=pipeline.environment, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


def send_files(port: int, files: Iterable[Path]) -> dict[Path, int]:
    """Send the data sets of files byte for byte by pynetdicom, in one association; the status of each."""
    pynetdicom._config.STORE_SEND_CHUNKED_DATASET = True
    files = list(files)
    ae = AE("PYNETDICOM")
    for pair in dict.fromkeys(_class_and_syntax(path) for path in files):
        ae.add_requested_context(*pair)
    association = ae.associate("127.0.0.1", port, ae_title="DICOM-INGEST")
    assert association.is_established
    leave_responses_to_their_senders(association)
    try:
        return {path: int(association.send_c_store(path).Status) for path in files}
    finally:
        association.release()


def _class_and_syntax(path: Path) -> tuple[str, str]:
    meta = read_file_meta_info(path)
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)


class Sent(NamedTuple):
    """A data set to send as it is."""

    sop_class: str
    uid: str
    data: bytes
    syntax: str = EXPLICIT

    @property
    def digest(self) -> str:
        """Its source digest."""
        return hashlib.sha256(self.data).hexdigest()

    def write(self, path: Path) -> Path:
        """A PS3.10 file of it, its file meta by pydicom."""
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = UID(self.sop_class)
        meta.MediaStorageSOPInstanceUID = UID(self.uid)
        meta.TransferSyntaxUID = UID(self.syntax)
        head = DicomBytesIO()
        write_file_meta_info(head, meta, enforce_standard=True)
        path.write_bytes(bytes(128) + b"DICM" + head.getvalue() + self.data)
        return path


class Sender:
    """A peer in a process of its own, so that what it sends arrives while a test does something else."""

    def __init__(self, port: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._channel, theirs = context.Pipe()
        self._process = context.Process(target=_send_on_request, args=(port, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.sent = 0

    def begin(self, data_sets: Sequence[Sent]) -> None:
        """Send, while the caller goes on."""
        self._channel.send(list(data_sets))

    def end(self) -> None:
        """Wait until all of it is acknowledged."""
        statuses = self._channel.recv()
        assert set(statuses) == {0}
        self.sent += len(statuses)

    def close(self) -> None:
        """End the process."""
        self._channel.send([])
        self._process.join(30)
        self._process.close()
        self._channel.close()


def _send_on_request(port: int, channel: Connection) -> None:
    while data_sets := channel.recv():
        channel.send(send_data_sets(port, data_sets))


def send_data_sets(port: int, data_sets: Sequence[Sent]) -> list[int]:
    """Send data sets as they are in one association; the status of each."""

    async def scenario() -> list[int]:
        pairs = list(dict.fromkeys((one.sop_class, one.syntax) for one in data_sets))
        scu = await Scu.connect(port)
        await scu.send(associate(tuple((sop_class, (syntax,)) for sop_class, syntax in pairs)))
        kind, _ = await scu.pdu()
        assert kind == 2, kind
        statuses = []
        for one in data_sets:
            context = 2 * pairs.index((one.sop_class, one.syntax)) + 1
            await scu.send(c_store(one.uid, one.data, sop_class=one.sop_class, context_id=context))
            statuses.append((await scu.response()).status)
        await scu.release()
        return statuses

    return run_closing(scenario())


def source_digest(path: Path) -> str:
    """The source digest of a file whose data set is sent byte for byte."""
    return hashlib.sha256(data_set_bytes(path)).hexdigest()
