"""Storage commitment of the whole pipeline: pynetdicom stores and asks, and is told what the store can prove."""

import time
from collections.abc import Iterator

import pytest

from tests.support.console import PATIENCE, Console, ask, store
from tests.support.pipeline import Pipeline, assert_adds_up

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


def test_study_just_sent(pipeline: Pipeline, console: Console) -> None:
    """Asked for with the last response, while workers are busy: one report, all success."""
    uids = [f"1.2.826.50.{number}" for number in range(COUNT)]
    store(pipeline.port, uids)
    with console.association(pipeline.port) as association:
        ask(association, uids, "1.2.826.60.1")
        ask(association, uids, "1.2.826.60.1")  # as a console does that has not seen the response
    assert console.report() == (set(uids), {})
    assert {path.stem for path in (pipeline.data / "store").rglob("1.2.826.50.*.dcm")} == set(uids)
    assert_adds_up(pipeline.settle())
    assert console.reports.empty()


def test_damage_behind_our_back(pipeline: Pipeline, console: Console) -> None:
    """Flipped, cut and deleted objects fail, each as what it is; the others are committed."""
    uids = [f"1.2.826.51.{number}" for number in range(10)]
    store(pipeline.port, uids)
    pipeline.settle()
    objects = pipeline.objects()
    flipped, cut, gone = uids[:3]
    data = bytearray(objects[flipped].read_bytes())
    data[-100] ^= 1
    objects[flipped].write_bytes(data)
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
        time.sleep(0.5)  # pynetdicom may release before it has answered


def test_nothing_is_left_open(pipeline: Pipeline, console: Console) -> None:
    """Every transaction of this file was reported once, and none waits."""
    deadline = time.monotonic() + PATIENCE
    while pipeline.run_list("commitments", "list"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert console.reports.empty()
