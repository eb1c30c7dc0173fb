"""The storage SCU against other people's SCPs: pynetdicom's in this process, DCMTK's storescp beside it."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from benchmarks.processes import free_port

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
CALLING = "DICOM-INGEST-SCU"


@contextmanager
def scp(store: Callable[[Event], int], classes: list[str], **settings: object) -> Iterator[int]:
    """A pynetdicom SCP on a free port."""
    entity = AE("DICOM-INGEST")
    for name, value in settings.items():
        setattr(entity, name, value)
    for uid in classes:
        entity.add_supported_context(uid, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    port = free_port()
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    try:
        yield port
    finally:
        server.shutdown()


def write(
    path: Path, uid: str, *, sop_class: str = CT, size: int = 100, syntax: UID = ExplicitVRLittleEndian
) -> Path:
    """A small instance; ``size`` bytes of private data."""
    data_set = Dataset()
    data_set.SOPClassUID = sop_class
    data_set.SOPInstanceUID = uid
    data_set.add_new(0x00091001, "OB", bytes(size))
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = syntax
    dcmwrite(path, data_set, enforce_file_format=True)
    return path


def stored(event: Event) -> C_STORE:
    """The request that a peer was sent."""
    assert isinstance(event.request, C_STORE)
    return event.request


def uid_of(event: Event) -> str:
    return str(stored(event).AffectedSOPInstanceUID)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ingest", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def to(port: int) -> tuple[str, str]:
    return "--to", f"127.0.0.1:{port}"


def test_echo() -> None:
    """Exit code 0 and the status, when the peer answers."""
    with scp(lambda event: 0, [VERIFICATION]) as port:
        done = run("echo", *to(port), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == 0


def test_nobody_there() -> None:
    """Exit code 1 and one line that says whom and why."""
    done = run("echo", *to(free_port()))
    assert done.returncode == 1
    assert done.stderr.startswith("Error: cannot connect to DICOM-INGEST at 127.0.0.1:")
    assert "Connection refused" in done.stderr


def test_rejection_says_why() -> None:
    """A peer that does not know our AE title is named with its reason."""
    with scp(lambda event: 0, [VERIFICATION], require_calling_aet=["OTHER"]) as port:
        done = run("echo", *to(port))
    assert done.returncode == 1
    assert "calling AE title not recognized (permanent)" in done.stderr


@pytest.mark.parametrize("associations", [1, 4])
def test_every_file_arrives_once_with_its_bytes(tmp_path: Path, associations: int) -> None:
    """A folder over several associations: each data set is what the file holds, in its own syntax."""
    received: dict[str, tuple[str, bytes]] = {}

    def store(event: Event) -> int:
        uid, sent = uid_of(event), stored(event).DataSet
        assert uid not in received
        assert sent is not None
        received[uid] = (str(event.context.transfer_syntax), sent.getvalue())
        return 0

    (tmp_path / "deep").mkdir()
    for number in range(40):
        syntax = ImplicitVRLittleEndian if number % 3 else ExplicitVRLittleEndian
        # Sizes around a piece, and beyond several: the last piece is full, short, or alone.
        size = (10, 1024 * 1024 - 500, 3 * 1024 * 1024)[number % 20 % 3] if number < 3 else 1000 * number
        write(tmp_path / "deep" / f"{number:02}", f"1.2.{number}", size=size, syntax=syntax)
    (tmp_path / "notes.txt").write_text("not an image")
    with scp(store, [CT]) as port:
        done = run("send", tmp_path, *to(port), "--associations", str(associations), "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["sent"], summary["failed"], summary["skipped"]) == (40, 0, 1)
    assert summary["statuses"] == {"0000H success": 40}
    for path in (tmp_path / "deep").iterdir():
        taken_as, data_set = received[f"1.2.{int(path.name)}"]
        assert path.read_bytes().endswith(data_set)
        assert taken_as == (ImplicitVRLittleEndian if int(path.name) % 3 else ExplicitVRLittleEndian)


def test_failures_are_counted_by_status(tmp_path: Path) -> None:
    """Every file is tried, each status is counted, exit code 1; a warning is no failure."""
    statuses = {"1.2.0": 0x0000, "1.2.1": 0xA700, "1.2.2": 0xB000, "1.2.3": 0xC123}
    for number in range(4):
        write(tmp_path / str(number), f"1.2.{number}")
    with scp(lambda event: statuses[uid_of(event)], [CT]) as port:
        done = run("send", tmp_path, *to(port), "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["statuses"] == {
        "0000H success": 1,
        "A700H out of resources": 1,
        "B000H stored, elements coerced": 1,
        "C123H cannot understand": 1,
    }


def test_class_that_the_peer_does_not_take(tmp_path: Path) -> None:
    """One class not accepted: its files fail, the others go."""
    write(tmp_path / "a", "1.2.1")
    write(tmp_path / "b", "1.2.2", sop_class="1.2.840.10008.5.1.4.1.1.4")
    with scp(lambda event: 0, [CT]) as port:
        done = run("send", tmp_path, *to(port))
    assert done.returncode == 1
    assert "1  0000H success" in done.stdout
    assert f"failed: {tmp_path}/b: SOP class or transfer syntax not accepted by the peer" in done.stderr


def test_peer_that_aborts_costs_one_file(tmp_path: Path) -> None:
    """The association ends in the middle: that file fails, a new association takes the rest."""

    def store(event: Event) -> int:
        if uid_of(event) == "1.2.2":
            event.assoc.abort()
        return 0

    for number in range(6):
        write(tmp_path / str(number), f"1.2.{number}")
    with scp(store, [CT]) as port:
        done = run("send", tmp_path, *to(port), "--json")
    assert done.returncode == 1
    summary = json.loads(done.stdout)
    assert (summary["sent"], summary["failed"]) == (5, 1)
    assert summary["failures"][0]["path"] == str(tmp_path / "2")
    assert " ended: the peer sent A-ABORT" in summary["failures"][0]["reason"]


def test_named_file_that_is_no_image(tmp_path: Path) -> None:
    """What was asked for by name and cannot be sent is a failure."""
    path = tmp_path / "notes.txt"
    path.write_text("not an image")
    done = run("send", path, *to(free_port()))
    assert done.returncode == 1
    assert "no DICOM instance" in done.stderr


def test_dcmtk_takes_more_than_128_kinds(tmp_path: Path) -> None:
    """150 pairs of class and syntax go to storescp over two associations, all of them."""
    classes = [f"1.2.840.10008.5.1.4.1.1.{number}" for number in (1, 2, 4, 7, 20, 128, 481)]
    private = [f"1.2.3.{number}" for number in range(150 - len(classes))]
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for number, uid in enumerate(classes + private):
        write(source / f"{number:03}", f"1.2.{number}", sop_class=uid)
    port = free_port()
    # --promiscuous: storescp accepts SOP classes that it does not know.
    with subprocess.Popen(["/usr/bin/storescp", "--promiscuous", "-od", target, str(port)]) as peer:
        try:
            while run("echo", *to(port)).returncode != 0:
                assert peer.poll() is None
                time.sleep(0.1)
            done = run("send", source, *to(port), "--json")
        finally:
            peer.terminate()
    assert json.loads(done.stdout)["statuses"] == {"0000H success": 150}, done.stderr
    assert len(list(target.iterdir())) == 150
