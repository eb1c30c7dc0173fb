"""The load generator sends what was ordered, counts only what was answered, and stops at the first fault."""

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE, evt
from pynetdicom.events import Event

from benchmarks.data import EXPLICIT_VR_LITTLE_ENDIAN, KINDS, template
from benchmarks.load import Load, discard_sink, send
from benchmarks.messages import UnexpectedAnswer
from benchmarks.peers import PYNETDICOM, STORESCP, STORESCP_BIT_PRESERVING, Peer, running
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


@pytest.mark.parametrize("peer", [STORESCP, STORESCP_BIT_PRESERVING, PYNETDICOM], ids=lambda peer: peer.name)
def test_peers_store_each_instance(peer: Peer, tmp_path: Path) -> None:
    """Each peer ends with one readable file an instance, so what is compared is the same work."""
    with running(peer, tmp_path) as receiver:
        sent = send(receiver.address, Load("mr", 6, 3, 2, run=4))
        files = [pydicom.dcmread(path) for path in receiver.folder.iterdir()]
        assert cpu_seconds(receiver.process.pid) > 0
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
