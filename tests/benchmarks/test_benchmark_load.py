"""The load generator sends what was ordered, counts only what was answered, and stops at the first fault."""

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE, evt
from pynetdicom.events import Event

from benchmarks.data import EXPLICIT_VR_LITTLE_ENDIAN, KINDS, template
from benchmarks.load import Load, discard_sink, send
from benchmarks.messages import UnexpectedAnswer
from benchmarks.mix import draw, shares
from benchmarks.peers import (
    DICOM_RS,
    ORTHANC,
    PYNETDICOM,
    STORESCP,
    STORESCP_BIT_PRESERVING,
    Peer,
    running,
)
from benchmarks.processes import cpu_seconds, free_port

pytestmark = pytest.mark.real


@pytest.fixture
def refusing() -> Iterator[tuple[str, int]]:
    """An SCP that takes one instance and refuses the next."""
    statuses = iter([0x0000, 0xA700])

    def store(_event: Event) -> int:
        return next(statuses)

    entity = AE("ANY")
    entity.maximum_pdu_size = 0
    entity.add_supported_context(KINDS["small"].sop_class_uid, EXPLICIT_VR_LITTLE_ENDIAN)
    port = free_port()
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    yield "127.0.0.1", port
    server.shutdown()


@pytest.mark.parametrize(("associations", "processes"), [(1, 1), (3, 1), (5, 2)])
@pytest.mark.parametrize("kind", ["small", "cine"])
def test_the_sink_swallows_any_load(associations: int, processes: int, kind: str) -> None:
    """Against the discard sink every instance is sent and answered once, however it is spread."""
    load = Load(kind, 7, associations, processes)
    with discard_sink(load) as address:
        sent = send(address, load)
    assert sent.instances == len(sent.latencies) == 7
    assert sent.data_bytes == 7 * template(KINDS[kind]).size
    assert 0 < sent.latency(0.5) <= sent.latency(1) <= sent.seconds


def dicom_files(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if path.read_bytes()[128:132] == b"DICM"]


def in_test_all(peer: Peer) -> object:
    return pytest.param(peer, marks=pytest.mark.servers)


@pytest.mark.parametrize(
    "peer",
    [STORESCP, STORESCP_BIT_PRESERVING, PYNETDICOM, in_test_all(DICOM_RS), in_test_all(ORTHANC)],
    ids=lambda peer: peer.name,
)
def test_peers_store_each_instance(peer: Peer, tmp_path: Path) -> None:
    """Each peer ends with one readable file an instance, so what is compared is the same work."""
    with running(peer, tmp_path) as receiver:
        sent = send(receiver.address, Load("mr", 6, 3, 2, run=4))
        files = [pydicom.dcmread(path) for path in dicom_files(receiver.folder)]
        assert cpu_seconds(receiver.process.pid) >= 0  # a clock tick is more than what so few cost dicom-rs
    assert sent.instances == len({found.SOPInstanceUID for found in files}) == 6
    assert {found.PixelData for found in files} == {template(KINDS["mr"]).distinct_frames[0]}
    assert not receiver.folder.exists()


def test_a_refusal_stops_the_measurement(refusing: tuple[str, int]) -> None:
    """A status other than success is no throughput: the load ends with the status named."""
    with pytest.raises(UnexpectedAnswer, match="00a7"):
        send(refusing, Load("small", 5))


def test_a_closed_port_stops_the_measurement() -> None:
    """Nobody there: an error at once, in the parent."""
    with pytest.raises(ConnectionRefusedError):
        send(("127.0.0.1", free_port()), Load("small", 1))


def test_a_mix_has_the_shares_that_it_states() -> None:
    """A seed gives one series for ever, in which each kind has its share."""
    drawn = list(itertools.islice(draw("day", 5), 20_000))
    assert drawn == list(itertools.islice(draw("day", 5), 20_000))
    assert drawn != list(itertools.islice(draw("day", 6), 20_000))
    weights = list(shares("day").values())
    for number, weight in enumerate(weights):
        assert drawn.count(number) / len(drawn) == pytest.approx(weight / sum(weights), rel=0.15, abs=0.001)


def test_a_mix_is_sent_as_it_is_drawn(tmp_path: Path) -> None:
    """Each instance of a mix arrives as its own class, and the volume counted is that of what was drawn."""
    load = Load("day-small", 20, 3, 2, run=9)
    with running(PYNETDICOM, tmp_path) as receiver:
        sent = send(receiver.address, load)
        files = [pydicom.dcmread(path) for path in receiver.folder.iterdir()]
    kinds = Counter((found.Rows, found.Columns) for found in files)
    assert sent.instances == len(files) == 20
    assert len(kinds) > 1
    assert sent.data_bytes == sum(
        template(kind).size * kinds[kind.rows, kind.columns] for kind in shares("day-small")
    )


@pytest.mark.parametrize("processes", [1, 2])
def test_open_loop_keeps_its_rate(processes: int) -> None:
    """Instances are due at the rate whatever the receiver does, so the last one is no sooner than its time."""
    load = Load("small", 40, 4, processes, rate=400)
    with discard_sink(load) as address:
        sent = send(address, load)
    assert sent.instances == len(sent.late) == len(sent.intended) == 40
    assert sent.seconds > 39 / 400
    times = sorted(sent.intended.values())
    assert times[-1] - times[0] == pytest.approx(39 / 400, abs=0.02)  # two processes have clocks of their own


def test_open_loop_counts_the_wait_of_what_could_not_be_sent() -> None:
    """A receiver that stands still once is in the latency of each instance due meanwhile, not of one alone."""
    stall, interval, due = 0.5, 0.01, 40
    entity, waits = AE("ANY"), iter([stall])
    entity.maximum_pdu_size = 0
    entity.add_supported_context(KINDS["small"].sop_class_uid, EXPLICIT_VR_LITTLE_ENDIAN)

    def store(_event: Event) -> int:
        time.sleep(next(waits, 0))
        return 0x0000

    port = free_port()
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    sent = send(("127.0.0.1", port), Load("small", due, rate=1 / interval))
    server.shutdown()
    for waited, latency in enumerate(reversed(sent.latencies[-due // 2 :])):
        assert latency >= stall - (waited + 1) * interval
