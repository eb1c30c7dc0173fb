"""A storage SCU that is never the bottleneck: pre-encoded PDUs, plain sockets, each response awaited and checked.

Associations are spread over processes; within one, a selector turns them. Each sends its next instance when the
last one is answered (closed loop) until the process's share is done. `discard_sink` measures what this SCU can
do at most; its ceiling stands in every report.
"""

import math
import multiprocessing
import selectors
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Final

from benchmarks.data import KINDS, UidSeries, template
from benchmarks.messages import (
    DEFAULT_PDU_LENGTH,
    RELEASE_REQUEST,
    Message,
    UnexpectedAnswer,
    accepted_pdu_length,
    associate_request,
    check_response,
    first_pdu,
    store_message,
)

_PIECES_A_CALL: Final = 64  # buffers handed to one sendmsg; IOV_MAX is 1024
_TIMEOUT: Final = 300.0  # s without progress: the peer hangs, and so would the benchmark
_spawn = multiprocessing.get_context("spawn")  # a fork would copy the parent's threads' locks


@dataclass(frozen=True)
class Load:
    """What is sent: ``instances`` of ``kind`` in all, over ``associations`` in ``processes``."""

    kind: str
    instances: int
    associations: int = 1
    processes: int = 1
    pdu_length: int = DEFAULT_PDU_LENGTH
    called_ae_title: str = "DICOM-INGEST"
    calling_ae_title: str = "BENCHMARK"
    run: int = 1  # keeps the UIDs of different runs apart


@dataclass(frozen=True)
class Sent:
    """What came of it; times in seconds."""

    instances: int
    data_bytes: int
    seconds: float
    latencies: tuple[float, ...]  # request begun to response complete, sorted
    cpu_seconds: float  # of the senders

    @property
    def rate(self) -> float:
        """Bytes of data sets a second."""
        return self.data_bytes / self.seconds

    def latency(self, quantile: float) -> float:
        """The latency that ``quantile`` of the instances do not exceed."""
        return self.latencies[min(len(self.latencies) - 1, math.ceil(quantile * len(self.latencies)) - 1)]


class _Association:
    """One open association and the instance that it sends."""

    def __init__(self, address: tuple[str, int], load: Load, message: Message, uids: UidSeries) -> None:
        self._message = message.own()
        self._uids = uids
        self.socket = socket.create_connection(address, timeout=_TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self._pieces: list[memoryview] = []
        self._next = 0
        self._begun = 0.0
        self.socket.sendall(
            associate_request(
                load.called_ae_title, KINDS[load.kind].sop_class_uid, calling_ae_title=load.calling_ae_title
            )
        )
        announced = accepted_pdu_length(self._read_pdu())
        if announced and announced < load.pdu_length:
            raise UnexpectedAnswer(f"peer accepts PDUs of {announced} bytes at most")
        self.socket.setblocking(False)

    def _read_pdu(self) -> bytes:
        while (pdu := first_pdu(self._received)) is None:
            self._received += self._receive()
        return pdu

    def _receive(self) -> bytes:
        data = self.socket.recv(4096)
        if not data:
            raise UnexpectedAnswer("peer closed the connection")
        return data

    def begin(self) -> bool:
        """Start the next instance; whether all of it went into the socket."""
        self._message.patch(self._uids.next())
        self._pieces = [memoryview(self._message.first), *self._message.rest]
        self._next = 0
        self._begun = time.monotonic()
        return self.send()

    def send(self) -> bool:
        """Send what the socket takes; whether that was the rest."""
        pieces = self._pieces
        while self._next < len(pieces):
            try:
                count = self.socket.sendmsg(pieces[self._next : self._next + _PIECES_A_CALL])
            except BlockingIOError:
                return False
            while count:
                size = len(pieces[self._next])
                if count < size:
                    pieces[self._next] = pieces[self._next][count:]
                    break
                count -= size
                self._next += 1
        return True

    def answered(self) -> float | None:
        """Take what came; the latency, once the response is whole and says success."""
        self._received += self._receive()
        pdu = first_pdu(self._received)
        if pdu is None:
            return None
        check_response(pdu)
        return time.monotonic() - self._begun

    def block(self) -> None:
        """Let calls block, `_TIMEOUT` at most; Python's own timeout would poll before each call."""
        self.socket.setblocking(True)
        limit = struct.pack("ll", int(_TIMEOUT), 0)  # struct timeval
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def release(self) -> None:
        """A-RELEASE, answered."""
        self.block()
        self.socket.sendall(RELEASE_REQUEST)
        kind = self._read_pdu()[0]
        if kind != 0x06:
            raise UnexpectedAnswer(f"release answered with PDU type {kind:02X}H")
        self.socket.close()


def _drive_one(association: _Association, instances: int) -> list[float]:
    """As `_drive`, for one association: the socket blocks, and no selector costs a system call."""
    association.block()
    latencies: list[float] = []
    while len(latencies) < instances:
        association.begin()
        while (latency := association.answered()) is None:
            pass
        latencies.append(latency)
    return latencies


def _drive(associations: list[_Association], instances: int) -> list[float]:
    """Send ``instances`` over the associations, each in closed loop; the latencies."""
    if len(associations) == 1:
        return _drive_one(associations[0], instances)
    turns = _Turns(instances)
    for association in associations[:instances]:
        turns.join(association)
    while len(turns.latencies) < instances:
        turns.turn()
    return turns.latencies


class _Turns:
    """A selector that turns the associations of one process."""

    def __init__(self, instances: int) -> None:
        self.latencies: list[float] = []
        self._left = instances  # not begun yet
        self._selector = selectors.DefaultSelector()

    def join(self, association: _Association) -> None:
        """Let it send its first instance."""
        self._left -= 1
        self._selector.register(association.socket, _wanted(sent=association.begin()), association)

    def turn(self) -> None:
        """Wait, and let every association that can go on do so."""
        ready = self._selector.select(_TIMEOUT)
        if not ready:
            raise UnexpectedAnswer(f"no progress for {_TIMEOUT:.0f} s")
        for key, events in ready:
            wanted = self._go_on(key.data, events)
            if wanted != key.events:
                self._selector.modify(key.fileobj, wanted, key.data)

    def _go_on(self, association: _Association, events: int) -> int:
        """The events to wait for next."""
        if not events & selectors.EVENT_READ:
            return _wanted(sent=association.send())
        latency = association.answered()
        if latency is not None:
            self.latencies.append(latency)
            if self._left:
                self._left -= 1
                return _wanted(sent=association.begin())
        return selectors.EVENT_READ


def _wanted(*, sent: bool) -> int:
    return selectors.EVENT_READ if sent else selectors.EVENT_READ | selectors.EVENT_WRITE


def _sender(channel: Connection, address: tuple[str, int], load: Load, first_sender: int) -> None:
    """A sender process: associate, report ready, send when told, report what came of it."""
    try:
        message = store_message(template(KINDS[load.kind]), load.pdu_length)
        associations = [
            _Association(address, load, message, UidSeries(load.run, first_sender + number))
            for number in range(load.associations)
        ]
        channel.send(None)
        channel.recv()
        cpu, begun = time.process_time(), time.monotonic()
        latencies = _drive(associations, load.instances)
        channel.send((begun, time.monotonic(), time.process_time() - cpu, latencies))
        for association in associations:
            association.release()
    except (OSError, UnexpectedAnswer) as error:
        channel.send(error)


def _shares(load: Load) -> Iterator[Load]:
    processes = min(load.processes, load.associations)
    for number in range(processes):
        associations = load.associations // processes + (number < load.associations % processes)
        instances = load.instances // processes + (number < load.instances % processes)
        yield replace(load, associations=associations, instances=instances, processes=1)


def send(address: tuple[str, int], load: Load) -> Sent:
    """Run ``load`` against the SCP at ``address``.

    Raises:
        UnexpectedAnswer: a status other than success, an abort, a hang.
        OSError: the network's.
    """
    senders = []
    first = 0
    for share in _shares(load):
        ours, theirs = _spawn.Pipe()
        process = _spawn.Process(target=_sender, args=(theirs, address, share, first), daemon=True)
        process.start()
        theirs.close()
        senders.append((process, ours))
        first += share.associations
    try:
        for _, channel in senders:
            _result(channel)
        for _, channel in senders:
            channel.send(None)
        results = [_result(channel) for _, channel in senders]
        for process, _ in senders:
            process.join(_TIMEOUT)
    finally:
        for process, channel in senders:
            channel.close()
            if process.is_alive():
                process.terminate()
            process.join()
    seconds = max(end for _, end, _, _ in results) - min(begun for begun, _, _, _ in results)
    latencies = tuple(sorted(latency for *_, found in results for latency in found))
    size = template(KINDS[load.kind]).size
    return Sent(
        len(latencies), len(latencies) * size, seconds, latencies, sum(cpu for _, _, cpu, _ in results)
    )


def _result(channel: Connection) -> tuple[float, float, float, list[float]]:
    try:
        result = channel.recv()
    except EOFError:
        raise UnexpectedAnswer("a sender process died") from None
    if isinstance(result, Exception):
        raise result
    return result  # type: ignore[no-any-return]  # what `_sender` sends


@contextmanager
def discard_sink(load: Load) -> Iterator[tuple[str, int]]:
    """An SCP that reads each message of ``load`` as so many bytes, looks at none, and answers success."""
    from benchmarks.sink import serve_sink  # noqa: PLC0415 - the child process imports this module

    message = store_message(template(KINDS[load.kind]), load.pdu_length)
    ours, theirs = _spawn.Pipe()
    process = _spawn.Process(target=serve_sink, args=(theirs, message.wire_size, load.kind), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()
        ours.close()
