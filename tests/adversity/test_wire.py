"""Bad input on the wire: each gets what PS3.8 prescribes, and costs its neighbours and the machine nothing."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ingest.association import AssociateRequest, PresentationContext, UserInformation
from ingest.contract.settings import MiB
from ingest.dimse import CStoreRequest
from tests.support.receiver_process import ReceiverProcess
from tests.support.scu import (
    ABORT,
    CT,
    EXPLICIT,
    RELEASE_RQ,
    Scu,
    associate,
    c_echo,
    c_store,
    ct_data_set,
    p_data,
    pdv,
    run_closing,
    uids,
)

pytestmark = [pytest.mark.real, pytest.mark.timeout(240), pytest.mark.xdist_group("wire")]

# The reject and garbage loops; ATTACKS=100000 is the long form.
ATTACKS = int(os.environ.get("ATTACKS", "2000"))
GROWTH = 24.0  # MiB that all attacks of this module together may add to the receiver's resident memory
ASSOCIATIONS = 300
AT_ONCE = 20  # associations asked for together: one after the other takes a busy machine longer than they may be idle
# Waited for by few tests, and long enough that nobody else meets them on a busy machine.
TIMERS = {
    "DICOM_INGEST_RECEIVER__ARTIM_TIMEOUT": "4",
    "DICOM_INGEST_RECEIVER__STALL_TIMEOUT": "4",
    "DICOM_INGEST_RECEIVER__IDLE_TIMEOUT": "15",
    "DICOM_INGEST_RECEIVER__MAXIMUM_ASSOCIATIONS": str(ASSOCIATIONS),
    "DICOM_INGEST_RECEIVER__BUFFER_BUDGET": str(4 * MiB),  # so that a chunk that is lost is missed soon
}
CONTEXTS = ((CT, (EXPLICIT,)), ("1.2.840.10008.1.1", ("1.2.840.10008.1.2",)))
fresh = uids("1.2.826.5")


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverProcess]:
    """One receiver meets all attacks, as in life; what they leave behind adds up."""
    with ReceiverProcess(tmp_path_factory.mktemp("wire"), TIMERS) as process:
        run_closing(warmed(process))
        before = process.resident
        yield process
        process.assert_calm()
        grown = process.resident - before
        print(f"resident memory grew by {grown:.1f} MiB")  # noqa: T201 - the figure, for whoever runs with -s
        assert process.stop() == 0
    assert grown < GROWTH, f"{grown:.0f} MiB"


async def warmed(process: ReceiverProcess) -> None:
    """So many associations at once as ever will be: their buffers are not an attack's."""
    scus = await associations(process.port, ASSOCIATIONS)
    for begin in range(0, len(scus), AT_ONCE):
        await asyncio.gather(*(scu.store(next(fresh)) for scu in scus[begin : begin + AT_ONCE]))


async def associations(port: int, count: int) -> list[Scu]:
    """So many, opened a few at a time."""
    opened: list[Scu] = []
    while len(opened) < count:
        more = min(AT_ONCE, count - len(opened))
        opened += await asyncio.gather(*(Scu.associated(port) for _ in range(more)))
    return opened


class Neighbour:
    """A good association that stores instance after instance."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.stored = 0
        self.size = 2048  # bytes of an instance
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        scu = await Scu.associated(self.port)
        while not self._stop.is_set():
            uid = next(fresh)
            found = await scu.store(uid, ct_data_set(uid, self.size))
            assert found.status == 0, found
            self.stored += 1
            await asyncio.sleep(0.001)
        await scu.release()

    async def stop(self) -> None:
        assert self._running is not None
        self._stop.set()
        await self._running

    def leave(self) -> None:
        """Where the attack's test has failed."""
        assert self._running is not None
        self._running.cancel()

    async def goes_on(self, count: int = 20) -> None:
        """Return once it has stored that many more, or raise what ended it."""
        wanted = self.stored + count
        async with asyncio.timeout(60):
            while self.stored < wanted:
                if self._running is not None and self._running.done():
                    await self._running
                await asyncio.sleep(0.01)


@asynccontextmanager
async def beside_a_good_one(receiver: ReceiverProcess) -> AsyncIterator[Neighbour]:
    """Attack in the body: the neighbour gets on meanwhile, and every descriptor comes back afterwards."""
    before = receiver.descriptors
    neighbour = Neighbour(receiver.port)
    neighbour.start()
    try:
        await neighbour.goes_on(1)
        yield neighbour
        await neighbour.goes_on()
        await neighbour.stop()
    finally:
        neighbour.leave()
    await Scu.close_all()
    async with asyncio.timeout(120):
        while receiver.descriptors > before:  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.05)
    receiver.assert_calm()


def pdu(kind: int, body: bytes = bytes(4), length: int | None = None) -> bytes:
    return struct.pack(">BxI", kind, len(body) if length is None else length) + body


def abort(source: int, reason: int) -> tuple[int, bytes]:
    return 7, bytes((0, 0, source, reason))


def reject(result: int, source: int, reason: int) -> tuple[int, bytes]:
    return 3, bytes((0, result, source, reason))


def request(
    ids: tuple[int, ...] = (1,),
    calling: str = "TESTER",
    context: str = "1.2.840.10008.3.1.1.1",
    version: int = 1,
) -> bytes:
    return AssociateRequest(
        "DICOM-INGEST",
        calling,
        tuple(PresentationContext(number, CT, (EXPLICIT,)) for number in ids),
        UserInformation(maximum_length=16384, implementation_class_uid="1.2.3"),
        context,
        version,
    ).encode()


def padded_request(item: bytes) -> bytes:
    """A request that ends in as many of an item as go into 1 MiB."""
    whole = request()
    body = whole[6:] + item * ((1024 * 1024 - len(whole)) // len(item))
    return pdu(1, body)


TLS_HELLO = bytes.fromhex("160301020001 0001fc0303") + bytes(508)
GIGABYTES = 0xFFFF_FFFF
# What is sent in Sta2, before anything else, and what comes back. AA-1 names the service user (PS3.8 9.2).
FIRST = {
    "http": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", abort(0, 0)),
    "tls": (TLS_HELLO, abort(0, 0)),
    "4-gib-request": (pdu(1, bytes(100_000), GIGABYTES), abort(0, 0)),
    "4-gib-data": (pdu(4, bytes(100_000), GIGABYTES), abort(0, 0)),
    "data-first": (c_echo(), abort(0, 0)),
    "release-first": (RELEASE_RQ, abort(0, 0)),
    "release-answer-first": (pdu(6), abort(0, 0)),
    "accept-first": (b"\2" + request()[1:], abort(0, 0)),
    "reject-first": (pdu(3), abort(0, 0)),
    "unknown-pdu-first": (pdu(8), abort(0, 0)),
    "abort-first": (ABORT, None),
    "half-a-request": (request()[:60], None),
    "nothing": (b"", None),
    "empty-items": (padded_request(struct.pack(">BxH", 0x77, 0)), abort(2, 6)),
    "empty-contexts": (padded_request(struct.pack(">BxH", 0x20, 0)), abort(2, 6)),
    "200-contexts": (request(tuple(range(1, 255, 2)) * 2), abort(2, 6)),
    "even-context-id": (request((1, 2)), abort(2, 6)),
    "zero-context-id": (request((0,)), abort(2, 6)),
    "context-id-twice": (request((1, 1)), abort(2, 6)),
    "no-context": (request(()), abort(2, 6)),
    "item-beyond-its-pdu": (pdu(1, request()[6:] + b"\x77\0\xff\xff"), abort(2, 6)),
    "version-0": (request(version=0), reject(1, 2, 2)),
    "other-application": (request(context="1.2.3"), reject(1, 1, 2)),
    "other-called-title": (associate(called="ELSEWHERE"), reject(1, 1, 7)),
    "no-calling-title": (request(calling=""), reject(1, 1, 3)),
}
# What is sent in Sta6: AA-8 names the service provider.
STORE = p_data(CStoreRequest(1, CT, "1.2.3").encode(), command=True)
LATER = {
    "second-request": (request(), abort(2, 2)),
    "accept": (b"\2" + request()[1:], abort(2, 2)),
    "reject": (pdu(3), abort(2, 2)),
    "release-answer": (pdu(6), abort(2, 2)),
    "unknown-pdu": (pdu(8), abort(2, 1)),
    "4-gib-data": (pdu(4, bytes(100_000), GIGABYTES), abort(2, 6)),
    "4-gib-release": (pdu(5, bytes(100_000), GIGABYTES), abort(2, 6)),
    "4-gib-unknown": (pdu(9, bytes(100_000), GIGABYTES), abort(2, 1)),
    "data-without-pdv": (pdu(4, b""), abort(2, 6)),
    "pdv-of-1": (pdu(4, struct.pack(">IBB", 1, 1, 3)), abort(2, 6)),
    "odd-pdv": (pdu(4, struct.pack(">IBB", 3, 1, 3) + b"\0"), abort(2, 6)),
    "pdv-beyond-its-pdu": (pdu(4, struct.pack(">IBB", 100, 1, 3) + bytes(50)), abort(2, 6)),
    "unknown-context": (c_echo(context_id=9), abort(2, 6)),
    "even-context": (c_echo(context_id=2), abort(2, 6)),
    "data-before-command": (p_data(bytes(100), command=False), abort(2, 5)),
    "command-within-data": (STORE + pdv(bytes(10), command=False, last=False) + c_echo(), abort(2, 5)),
    "context-changes": (STORE + p_data(bytes(100), command=False, context_id=3), abort(2, 5)),
    "garbage-command": (p_data(b"\xff" * 100, command=True), abort(2, 6)),
    "empty-command": (p_data(b"", command=True), abort(2, 6)),
    "1-mb-command": (p_data(bytes(1_000_000), command=True), abort(2, 6)),
    "stall-within-pdu": (STORE[:-3], abort(0, 0)),
    "stall-within-data": (STORE + pdv(bytes(10), command=False, last=False), abort(0, 0)),
    "stall-between-messages": (b"", abort(0, 0)),
    "abort": (ABORT, None),
}


async def answer(scu: Scu) -> tuple[int, bytes] | None:
    """The one PDU that comes before the receiver closes; None when it only closes."""
    try:
        found = await scu.pdu()
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(scu.reader.read(), 60) == b"", "more than one answer"
    return found


async def talk(port: int, sent: bytes, *, associated: bool) -> tuple[int, bytes] | None:
    scu = await (Scu.associated(port) if associated else Scu.connect(port))
    with contextlib.suppress(ConnectionError):
        await scu.send(sent)
    return await answer(scu)


@pytest.mark.parametrize("associated", [False, True], ids=["first", "later"])
def test_each_gets_what_is_prescribed(receiver: ReceiverProcess, associated: bool) -> None:
    """All at once: A-ABORT with its source and reason, A-ASSOCIATE-RJ, or a close; and then the connection ends."""
    cases = LATER if associated else FIRST

    async def scenario() -> None:
        async with beside_a_good_one(receiver):
            answers = await asyncio.gather(
                *(talk(receiver.port, sent, associated=associated) for sent, _ in cases.values())
            )
        wrong = {
            name: (found, wanted)
            for (name, (_, wanted)), found in zip(cases.items(), answers, strict=True)
            if found != wanted
        }
        assert not wrong

    run_closing(scenario())


def test_one_byte_a_second(receiver: ReceiverProcess) -> None:
    """A peer that drips is aborted within a message, and closed by ARTIM before its request is complete."""

    async def drip(scu: Scu, message: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            for position in range(len(message)):
                await scu.send(message[position : position + 1])
                await asyncio.sleep(0.5)

    async def scenario() -> None:
        async with beside_a_good_one(receiver):
            before, within = await Scu.connect(receiver.port), await Scu.associated(receiver.port)
            await within.send(STORE)
            data = p_data(ct_data_set("1.2.3"), command=False)
            drips = [asyncio.create_task(drip(before, request())), asyncio.create_task(drip(within, data))]
            assert await answer(before) is None
            assert await answer(within) == abort(0, 0)
            for task in drips:
                task.cancel()

    run_closing(scenario())


def test_a_thousand_connections_that_say_nothing(receiver: ReceiverProcess) -> None:
    """A good association beside them goes on, another can be opened, and ARTIM ends them all."""

    async def scenario() -> None:
        async with beside_a_good_one(receiver) as neighbour:
            silent = [await Scu.connect(receiver.port) for _ in range(1000)]
            await neighbour.goes_on()
            await (await Scu.associated(receiver.port)).release()
            assert await asyncio.gather(*map(answer, silent)) == [None] * 1000

    run_closing(scenario())


def test_more_connections_than_descriptors(tmp_path: Path) -> None:
    """Connections never take the descriptors that the log needs for its segments; those too many are closed."""
    small = {**TIMERS, "DICOM_INGEST_LOG__SEGMENT_SIZE": str(2 * MiB)}
    limited = ("prlimit", "--nofile=200:200")

    async def scenario(receiver: ReceiverProcess) -> None:
        async with beside_a_good_one(receiver) as neighbour:
            neighbour.size = 600_000
            silent = [await Scu.connect(receiver.port) for _ in range(400)]
            await neighbour.goes_on(10)  # three segments
            assert await asyncio.gather(*map(answer, silent)) == [None] * len(silent)

    with ReceiverProcess(tmp_path, small, prefix=limited) as receiver:
        run_closing(scenario(receiver))
        assert receiver.stop() == 0


def test_more_associations_than_allowed(receiver: ReceiverProcess) -> None:
    """Those above the limit are told local-limit-exceeded; idle ones are aborted, and then there is room."""

    async def scenario() -> None:
        async with beside_a_good_one(receiver) as neighbour:
            idle = await associations(receiver.port, ASSOCIATIONS - 1)
            one_more = await Scu.connect(receiver.port)
            await one_more.send(associate())
            assert await answer(one_more) == reject(2, 3, 2)
            await neighbour.goes_on()
            assert await asyncio.gather(*map(answer, idle)) == [abort(0, 0)] * len(idle)
            await (await Scu.associated(receiver.port)).release()

    run_closing(scenario())


def reset(scu: Scu) -> None:
    """Close with RST."""
    raw = scu.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    scu.writer.transport.abort()


async def drop(scu: Scu) -> None:
    pass


async def send_garbage(scu: Scu) -> None:
    await scu.send(os.urandom(64))


async def be_rejected(scu: Scu) -> None:
    await scu.send(associate(called="ELSEWHERE"))
    assert await scu.pdu() == reject(1, 1, 7)


async def vanish_associated(scu: Scu) -> None:
    await scu.send(associate())
    assert (await scu.pdu())[0] == 2


async def vanish_sending(scu: Scu) -> None:
    await scu.send(associate() + STORE + pdv(ct_data_set("1.2.3", 20_000), command=False, last=False))
    # Where the byte budget is used up nothing is read, so that a peer that has vanished is not seen at once.
    assert (await scu.pdu())[0] in (2, 3)


@pytest.mark.parametrize("attack", [drop, send_garbage, be_rejected, vanish_associated, vanish_sending])
def test_loops(receiver: ReceiverProcess, attack: Callable[[Scu], Awaitable[None]]) -> None:
    """Thousands that connect and drop, send garbage, are rejected or vanish leave nothing behind."""

    async def attacker(count: int) -> None:
        for _ in range(count):
            scu = await Scu.connect(receiver.port)
            await attack(scu)
            reset(scu)
            await scu.close()
            Scu._open.remove(scu)

    async def scenario() -> None:
        async with beside_a_good_one(receiver):
            await asyncio.gather(*(attacker(ATTACKS // 50) for _ in range(50)))

    run_closing(scenario())


def test_a_flood_whose_answers_nobody_reads(receiver: ReceiverProcess) -> None:
    """C-ECHO without end from a peer that never reads: it is held by TCP, then dropped."""

    def flood() -> int:
        sent = 0
        with socket.create_connection(("127.0.0.1", receiver.port)) as peer:
            peer.sendall(associate())
            assert peer.recv(1) == b"\2"
            echoes = c_echo() * 1000
            with contextlib.suppress(ConnectionError):
                while True:
                    sent += peer.send(echoes)
        return sent

    async def scenario() -> None:
        before = receiver.resident
        async with beside_a_good_one(receiver):
            floods = [asyncio.create_task(asyncio.to_thread(flood)) for _ in range(4)]
            while not all(task.done() for task in floods):
                assert receiver.resident - before < GROWTH
                await asyncio.sleep(0.1)
            assert all(task.result() for task in floods)

    run_closing(scenario())


def test_fragments_without_bytes(receiver: ReceiverProcess) -> None:
    """A megabyte of empty PDVs within a data set costs nothing, and the instance is stored."""

    async def scenario() -> None:
        async with beside_a_good_one(receiver):
            scu = await Scu.associated(receiver.port)
            uid = next(fresh)
            data_set = ct_data_set(uid)
            await scu.send(p_data(CStoreRequest(1, CT, uid).encode(), command=True))
            await scu.send(pdv(b"", command=False, last=False) * 100_000)
            await scu.send(p_data(data_set, command=False))
            assert (await scu.response()).status == 0
            await scu.release()

    run_closing(scenario())


@pytest.mark.parametrize("size", [1, 7, 1 << 20], ids=["byte-by-byte", "by-7", "whole"])
def test_a_session_however_it_is_cut(receiver: ReceiverProcess, size: int) -> None:
    """Byte by byte or all in one segment, release and all, the answers are the same bytes."""

    async def scenario() -> None:
        async with beside_a_good_one(receiver):
            uid = "1.2.826.6"
            session = associate() + c_echo() + c_store(uid, ct_data_set(uid, 512)) + RELEASE_RQ
            scu = await Scu.connect(receiver.port)
            scu.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for position in range(0, len(session), size):
                await scu.send(session[position : position + size])
            kinds = [(await scu.pdu())[0], (await scu.response()).status, (await scu.response()).status]
            assert [*kinds, (await scu.pdu())[0]] == [2, 0, 0, 6]

    run_closing(scenario())
