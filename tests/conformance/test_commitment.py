"""Storage commitment of the whole pipeline: pynetdicom stores and asks, and is told what the store can prove."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.console import Console, ask, store
from tests.support.pipeline import Pipeline, assert_adds_up
from tests.support.scu import associate, c_store, ct_data_set
from tests.support.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("commitment")]

COUNT = 500


@pytest.fixture(scope="module")
def console() -> Iterator[Console]:
    console = Console()
    with console.listening():
        yield console


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory, console: Console) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("commitment")
    config = folder / "settings.toml"
    config.write_text(
        "[commitment]\nenabled = true\nabsent_grace = 1\n"
        f'[sources.console]\nae_titles = ["CONSOLE", "TESTER"]\nhost = "127.0.0.1"\nport = {console.port}\n'
        '[sources.bedside]\nae_titles = ["BEDSIDE"]\nsame_association = true\n'
    )
    with Pipeline(folder / "data", environment={"DICOM_INGEST_CONFIG": str(config)}) as running:
        yield running


def flip(path: Path) -> None:
    """One bit of the pixels, behind everybody's back."""
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


@contextmanager
def hanging_upload(port: int, uid: str) -> Iterator[None]:
    """Another peer has begun to send, and neither goes on nor ends."""
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(associate().replace(b"TESTER", b"OTHERS"))
        assert peer.recv(1) == b"\2", "A-ASSOCIATE-AC"
        message = c_store(uid, ct_data_set(uid, 20_000))
        peer.sendall(message[: len(message) // 2])
        yield


@contextmanager
def workers_stopped(pipeline: Pipeline) -> Iterator[None]:
    """None of them gets any work done."""
    pids = [pid for pid in pipeline.children() if is_worker(pid)]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def is_worker(pid: int) -> bool:
    return b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def test_study_just_sent(pipeline: Pipeline, console: Console) -> None:
    """Asked for with the last response, before workers have come to any: one report, and none early.

    One instance of days ago, damaged since, fails alone; another peer's upload that hangs delays nothing.
    """
    damaged = "1.2.826.54.1"
    store(pipeline.port, [damaged])
    pipeline.settle()
    flip(pipeline.objects()[damaged])
    uids = [f"1.2.826.50.{number}" for number in range(COUNT)]
    with hanging_upload(pipeline.port, uids[0]):
        with workers_stopped(pipeline):
            store(pipeline.port, uids)
            with console.association(pipeline.port) as association:
                ask(association, [*uids, damaged], "1.2.826.60.1")
                # As a console does that has not seen the response.
                ask(association, [*uids, damaged], "1.2.826.60.1")
            (waiting,) = pipeline.run_list("commitments", "list")
            assert (waiting["state"], waiting["instances"]) == ("proving", COUNT + 1)
            assert console.reports.empty()
            assert not pipeline.objects().keys() & set(uids), "workers were not stopped"
        assert console.report() == (set(uids), {damaged: 0x0110})
        assert pipeline.objects().keys() & set(uids) == set(uids)
    assert_adds_up(pipeline.settle())
    assert console.reports.empty()


def test_damage_behind_our_back(pipeline: Pipeline, console: Console) -> None:
    """Flipped, cut and deleted objects fail, each as what it is; the others are committed."""
    uids = [f"1.2.826.51.{number}" for number in range(10)]
    store(pipeline.port, uids)
    pipeline.settle()
    objects = pipeline.objects()
    flipped, cut, gone = uids[:3]
    flip(objects[flipped])
    objects[cut].write_bytes(objects[cut].read_bytes()[:-1])
    objects[gone].unlink()
    with console.association(pipeline.port) as association:
        ask(association, uids, "1.2.826.60.2")
    assert console.report() == (set(uids[3:]), {flipped: 0x0110, cut: 0x0110, gone: 0x0112})


def test_everything_killed_with_a_request_accepted(pipeline: Pipeline, console: Console) -> None:
    """kill -9 of the whole pipeline behind N-ACTION-RSP: the report comes all the same."""
    uids = [f"1.2.826.52.{number}" for number in range(100)]
    store(pipeline.port, uids)
    with console.association(pipeline.port) as association:
        ask(association, uids, "1.2.826.60.3")
        pipeline.kill()
        pipeline.start()
    assert console.report() == (set(uids), {})


def test_on_the_same_association(pipeline: Pipeline) -> None:
    """A source without an address hears of it on the association that it keeps open."""
    bedside = Console("BEDSIDE")
    uids = [f"1.2.826.53.{number}" for number in range(20)]
    store(pipeline.port, uids)
    with bedside.association(pipeline.port) as association:
        ask(association, uids, "1.2.826.60.4")
        # What another source has stored, it has stored too: the same bytes, though under another name.
        assert bedside.report() == (set(uids), {})
        # pynetdicom may release before it has answered.
        until(lambda: not pipeline.run_list("commitments", "list"))


def test_nothing_is_left_open(pipeline: Pipeline, console: Console) -> None:
    """Every transaction of this file was reported once, and none waits."""
    until(lambda: not pipeline.run_list("commitments", "list"))
    assert console.reports.empty()
