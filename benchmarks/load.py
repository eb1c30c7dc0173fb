"""A storage SCU that is never the bottleneck: pre-encoded PDUs, plain sockets, each response awaited and checked.

Associations are spread over processes. In closed loop each sends its next instance when the last one is answered; in
open loop instances are due at a fixed rate (`open_loop`). `discard_sink` measures what this SCU can do at most; its
ceiling stands in every report.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Final

from benchmarks import closed_loop, open_loop
from benchmarks.data import UidSeries, template
from benchmarks.messages import (
    DEFAULT_PDU_LENGTH,
    Message,
    UnexpectedAnswer,
    context_id_of,
    store_message,
)
from benchmarks.mix import draw, shares, sizes
from benchmarks.processes import forked
from benchmarks.scu import TIMEOUT, Association, Proposal

_BEGIN_AFTER: Final = (
    0.05  # s from the signal to the first instance of an open loop, which all processes have by then
)


@dataclass(frozen=True)
class Load:
    """What is sent: ``instances`` in all, over ``associations`` in ``processes``."""

    kind: str  # of `data.KINDS` or `mix.MIXES`
    instances: int
    associations: int = 1
    processes: int = 1
    pdu_length: int = DEFAULT_PDU_LENGTH
    called_ae_title: str = "DICOM-INGEST"
    calling_ae_title: str = "BENCHMARK"
    run: int = 1  # keeps the UIDs of different runs apart, and seeds a mix
    rate: float = 0.0  # instances a second, of all processes together, in open loop; 0: closed loop


@dataclass(frozen=True)
class Sent:
    """What came of it; times in seconds."""

    instances: int
    data_bytes: int
    seconds: float
    latencies: tuple[float, ...]  # request begun, or due, to response complete; sorted
    cpu_seconds: float  # of the senders
    late: tuple[float, ...] = ()  # in open loop: what the sender itself was late by; sorted
    intended: Mapping[bytes, float] = field(default_factory=dict)  # in open loop: see `open_loop`

    @property
    def rate(self) -> float:
        """Bytes of data sets a second."""
        return self.data_bytes / self.seconds

    def latency(self, quantile: float) -> float:
        """The latency that ``quantile`` of the instances do not exceed."""
        return quantile_of(self.latencies, quantile)


def quantile_of(values: tuple[float, ...], quantile: float) -> float:
    """The smallest of the sorted ``values`` that so many of them do not exceed."""
    return values[max(0, min(len(values) - 1, math.ceil(quantile * len(values)) - 1))]


@dataclass(frozen=True)
class _Result:
    """Of one sender process."""

    begun: float
    ended: float
    cpu_seconds: float
    data_bytes: int
    loop: open_loop.OpenLoopResult


def _messages(load: Load) -> list[Message]:
    """One a presentation context."""
    return [
        store_message(template(kind), load.pdu_length, context_id_of(number))
        for number, kind in enumerate(shares(load.kind))
    ]


def _sender(channel: Connection, address: tuple[str, int], load: Load, first: int, offset: float) -> None:
    """A sender process: associate, report ready, send when told, report what came of it."""
    try:
        classes = [kind.sop_class_uid for kind in shares(load.kind)]
        proposal = Proposal(
            load.called_ae_title, load.calling_ae_title, classes, _messages(load), load.pdu_length
        )
        associations = [
            Association(address, proposal, UidSeries(load.run, first + number))
            for number in range(load.associations)
        ]
        channel.send(None)
        channel.send(_drive(associations, load, load.run * 1000 + first, channel.recv() + offset))
        for association in associations:
            association.release()
    except (OSError, UnexpectedAnswer) as error:
        channel.send(error)


def _drive(associations: list[Association], load: Load, seed: int, begin: float) -> _Result:
    known, data_bytes = sizes(load.kind), 0

    def order() -> Iterator[int]:
        nonlocal data_bytes
        for number in draw(load.kind, seed):
            data_bytes += known[number]
            yield number

    cpu, begun = time.process_time(), time.monotonic()
    if load.rate:
        schedule = open_loop.Schedule(begin, 1 / load.rate, load.instances)
        result, begun = open_loop.drive(associations, order(), schedule), begin
    else:
        result = open_loop.OpenLoopResult(closed_loop.drive(associations, order(), load.instances))
    return _Result(begun, time.monotonic(), time.process_time() - cpu, data_bytes, result)


def _shares(load: Load) -> Iterator[Load]:
    processes = min(load.processes, load.associations)
    for number in range(processes):
        associations = load.associations // processes + (number < load.associations % processes)
        instances = load.instances // processes + (number < load.instances % processes)
        yield replace(
            load, associations=associations, instances=instances, processes=1, rate=load.rate / processes
        )


def send(address: tuple[str, int], load: Load) -> Sent:
    """Run ``load`` against the SCP at ``address``.

    Raises:
        UnexpectedAnswer: a status other than success, an abort, a hang.
        OSError: the network's.
    """
    senders = []
    first = 0
    for number, share in enumerate(_shares(load)):
        ours, theirs = forked.Pipe()
        offset = number / load.rate if load.rate else 0.0  # the processes take turns
        process = forked.Process(target=_sender, args=(theirs, address, share, first, offset), daemon=True)
        process.start()
        theirs.close()
        senders.append((process, ours))
        first += share.associations
    try:
        for _, channel in senders:
            _received(channel)
        begin = time.monotonic() + _BEGIN_AFTER
        for _, channel in senders:
            channel.send(begin)
        results = [_result(channel) for _, channel in senders]
        for process, _ in senders:
            process.join(TIMEOUT)
    finally:
        for process, channel in senders:
            channel.close()
            if process.is_alive():
                process.terminate()
            process.join()
    return _together(results)


def _together(results: list[_Result]) -> Sent:
    latencies = sorted(latency for result in results for latency in result.loop.latencies)
    return Sent(
        len(latencies),
        sum(result.data_bytes for result in results),
        max(result.ended for result in results) - min(result.begun for result in results),
        tuple(latencies),
        sum(result.cpu_seconds for result in results),
        tuple(sorted(late for result in results for late in result.loop.late)),
        {uid: at for result in results for uid, at in result.loop.intended.items()},
    )


def _received(channel: Connection) -> object:
    try:
        result = channel.recv()
    except EOFError:
        raise UnexpectedAnswer("a sender process died") from None
    if isinstance(result, Exception):
        raise result
    return result


def _result(channel: Connection) -> _Result:
    result = _received(channel)
    assert isinstance(result, _Result)
    return result


@contextmanager
def discard_sink(load: Load) -> Iterator[tuple[str, int]]:
    """An SCP that reads each message of ``load`` as so many bytes, looks at none, and answers success."""
    from benchmarks.sink import Expected, serve_sink  # noqa: PLC0415 - the child process imports this module

    expected = [
        Expected(kind.sop_class_uid, message.wire_size)
        for kind, message in zip(shares(load.kind), _messages(load), strict=True)
    ]
    ours, theirs = forked.Pipe()
    process = forked.Process(target=serve_sink, args=(theirs, expected), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()
        ours.close()
