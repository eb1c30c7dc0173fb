"""What a storage SCU sees of the receiver, over a real socket, with a log that obeys the test."""

import asyncio
import struct

import pytest
import xxhash
from structlog.testing import capture_logs

from ingest.contract.records import Kind
from ingest.contract.settings import MiB
from ingest.dimse import CStoreRequest
from ingest.dimse.data_set import encode_element
from ingest.errors import LogUnavailable, OutOfResources
from tests.support.asynchronous import until
from tests.support.memory_log import MemoryLog
from tests.support.receiving import limit, receiver, run
from tests.support.scu import (
    ABORT,
    CT,
    RELEASE_RQ,
    VERIFICATION,
    Scu,
    associate,
    c_echo,
    c_store,
    ct_data_set,
    p_data,
    pdv,
)

UID = "1.2.826.1"


def test_success_only_after_the_log() -> None:
    """No C-STORE-RSP leaves before the log has acknowledged every record."""

    async def scenario() -> None:
        log = MemoryLog()
        log.hold = True
        async with receiver(log) as (port, _):
            scu = await Scu.associated(port)
            await scu.send(c_store(UID, ct_data_set(UID)))
            with pytest.raises(TimeoutError):
                await scu.pdu(seconds=0.3)
            log.acknowledge()
            assert (await scu.response()).status == 0x0000
            await scu.release()

    run(scenario())


@pytest.mark.parametrize("size", [600, 960 * 1024 - 300, 960 * 1024 * 2, 5 * MiB])
def test_bytes_arrive_as_sent(size: int) -> None:
    """What the log holds is the data set byte for byte, sealed, in one record up to 960 KiB."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log) as (port, _):
            scu = await Scu.associated(port)
            data_set = ct_data_set(UID, size)
            assert (await scu.store(UID, data_set)).status == 0
            await scu.release()
        instance, data = log.instances()[UID]
        assert data == data_set
        assert instance.size == len(data_set)
        assert instance.seal == xxhash.xxh3_128_digest(data_set)
        assert instance.calling_ae_title == "TESTER"
        assert instance.peer_address == "127.0.0.1"
        one = len(data_set) <= 960 * 1024
        assert (log.kinds() == [Kind.INSTANCE]) is one
        assert (log.kinds()[-1] is Kind.END) is not one

    run(scenario())


@pytest.mark.parametrize(
    ("failure", "status"), [(OutOfResources("disk full"), 0xA700), (LogUnavailable("gone"), 0xA700)]
)
def test_a_log_that_fails_refuses_and_the_association_goes_on(failure: Exception, status: int) -> None:
    """A700H with a comment while the log fails, success again when it works, on the same association."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log) as (port, _):
            scu = await Scu.associated(port)
            log.failure = failure
            answer = await scu.store(UID)
            assert answer.status == status
            assert answer.error_comment
            assert (await scu.store(UID, ct_data_set(UID, 3 * MiB))).status == status
            log.failure = None
            assert (await scu.store(UID)).status == 0
            log.reason = "free space is below the reserve"
            assert (await scu.store(UID)).status == 0xA700
            await scu.send(c_echo())
            assert (await scu.response()).status == 0
            await scu.release()

    run(scenario())


@pytest.mark.parametrize(
    ("data_set", "status"),
    [
        (ct_data_set("1.2.3.9"), 0xA900),
        (ct_data_set(UID, sop_class="1.2.840.10008.5.1.4.1.1.4"), 0xA900),
        (ct_data_set(UID)[52:], 0xA900),
        (ct_data_set(UID)[52:] + ct_data_set(UID)[:52], 0xA900),
        (ct_data_set(UID)[52:90] + ct_data_set("1.2.3.9"), 0xA900),
        (ct_data_set(UID)[52:90], 0xA900),
        (b"GET / HTTP/1.1\r\n\r\n", 0xC000),
        (ct_data_set(UID)[:20], 0xC000),
        (b"", 0xC000),
        (struct.pack("<HH2sH", 8, 5, b"CS", 0) * 100_000 + ct_data_set(UID), 0xC000),
    ],
    ids=[
        "other-instance", "other-class", "no-instance", "instance-behind-pixels", "other-instance-out-of-order",
        "no-instance-no-pixels", "not-dicom", "cut", "empty", "endless",
    ],
)  # fmt: skip
def test_a_data_set_that_contradicts_its_command(data_set: bytes, status: int) -> None:
    """A900H or C000H, nothing reaches the log, and the next instance is welcome."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log) as (port, _):
            scu = await Scu.associated(port)
            assert (await scu.store(UID, data_set)).status == status
            assert log.records == []
            assert (await scu.store(UID)).status == 0
            await scu.release()

    run(scenario())


@pytest.mark.parametrize("uid", ["", "1.2..3", "1.2.x", "1" * 66, "../../etc", "1.2.3."])
def test_an_unusable_uid(uid: str) -> None:
    """0117H, and only for what cannot be used: a leading zero can."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log) as (port, _):
            scu = await Scu.associated(port)
            assert (await scu.store(uid, ct_data_set(uid))).status == 0x0117
            assert (await scu.store("1.02.3")).status == 0
            await scu.release()

    run(scenario())


def test_another_class_than_the_context() -> None:
    """0122H where the command names a SOP Class that no presentation context was accepted for."""

    async def scenario() -> None:
        async with receiver(MemoryLog()) as (port, _):
            scu = await Scu.associated(port)
            await scu.send(c_store(UID, ct_data_set(UID), sop_class="1.2.840.10008.5.1.4.1.1.4"))
            assert (await scu.response()).status == 0x0122
            await scu.release()

    run(scenario())


def test_a_class_that_is_not_stored() -> None:
    """0122H on a context of another service, whose SOP Class the command and the data set name: it is no image."""

    async def scenario() -> None:
        log = MemoryLog()
        uids = ((0x0008_0016, VERIFICATION), (0x0008_0018, UID))
        data_set = b"".join(encode_element(tag, b"UI", uid.encode(), explicit=False) for tag, uid in uids)
        async with receiver(log) as (port, _):
            scu = await Scu.associated(port)
            await scu.send(c_store(UID, data_set, sop_class=VERIFICATION, context_id=3))
            assert (await scu.response()).status == 0x0122
            assert log.records == []
            assert (await scu.store(UID)).status == 0
            await scu.release()

    run(scenario())


@pytest.mark.parametrize("size", [2048, 3 * MiB])
@pytest.mark.parametrize("how", ["close", "abort", "release"])
def test_an_instance_cut_short_never_appears(size: int, how: str) -> None:
    """A data set that ends without its last fragment leaves no INSTANCE and no END, whatever ends it."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log) as (port, server):
            scu = await Scu.associated(port)
            whole = c_store(UID, ct_data_set(UID, size))
            await scu.send(whole[:-20] if how == "close" else c_store(UID, b"")[:-12] + cut(size))
            if how == "abort":
                await scu.send(ABORT)
            if how == "release":
                await scu.send(RELEASE_RQ)
            await asyncio.sleep(0.05)
            await scu.close()
            await server.unused.wait()
        assert log.instances() == {}
        assert set(log.kinds()) <= {Kind.PART, Kind.ABORT}
        assert (Kind.ABORT in log.kinds()) == (Kind.PART in log.kinds())

    run(scenario())


def cut(size: int) -> bytes:
    """Whole PDUs of a data set without the last."""
    data_set = ct_data_set(UID, size)
    pieces = [data_set[at : at + 1000] for at in range(0, len(data_set), 1000)]
    return b"".join(pdv(piece, command=False, last=False) for piece in pieces[:-1])


def test_pipelined_requests_are_answered_in_order() -> None:
    """A peer that does not wait gets every answer, one at a time and in order."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log) as (port, _):
            scu = await Scu.associated(port)
            names = [f"1.2.3.{number}" for number in range(300)]
            requests = b"".join(
                c_store(uid, ct_data_set(uid), message_id=number) for number, uid in enumerate(names)
            )
            sending = asyncio.create_task(scu.send(requests))
            for number in range(len(names)):
                answer = await scu.response()
                assert (answer.status, answer.message_id_being_responded_to) == (0, number)
            await sending
            await scu.release()
        assert list(log.instances()) == names

    run(scenario())


def test_refused_pipelined_requests_do_not_nest() -> None:
    """Thousands of small refused messages in one buffer are answered without recursion."""

    async def scenario() -> None:
        log = MemoryLog()
        log.reason = "full"
        async with receiver(log) as (port, _):
            scu = await Scu.associated(port)
            sending = asyncio.create_task(scu.send(c_store("1.2.3", b"") * 5000))
            for _ in range(5000):
                assert (await scu.response()).status == 0xA700
            await sending
            await scu.release()

    run(scenario())


def test_the_budget_is_shared_and_everyone_finishes() -> None:
    """Thirty half-sent instances on a budget of four chunks: all complete, and byte for byte."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log, buffer_budget=4 * MiB) as (port, _):
            scus = [await Scu.associated(port) for _ in range(30)]
            sets = {f"1.2.3.{n}": ct_data_set(f"1.2.3.{n}", 200_000 + 40_000 * n) for n in range(30)}
            messages = {uid: c_store(uid, data_set) for uid, data_set in sets.items()}

            async def halves(scu: Scu, uid: str) -> int:
                message = messages[uid]
                await scu.send(message[: len(message) // 2])
                await asyncio.sleep(0.05)
                await scu.send(message[len(message) // 2 :])
                return (await scu.response()).status

            results = await asyncio.gather(*map(halves, scus, sets))
            assert set(results) == {0}
        for uid, data_set in sets.items():
            instance, data = log.instances()[uid]
            assert data == data_set
            assert instance.seal == xxhash.xxh3_128_digest(data_set)

    run(scenario())


def test_silent_holders_of_the_budget_delay_nobody() -> None:
    """Twenty peers that stop after a few bytes of data set hold no chunk that a good peer needs."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log, buffer_budget=4 * MiB) as (port, _):
            silent = [await Scu.associated(port) for _ in range(20)]
            for number, scu in enumerate(silent):
                command = p_data(CStoreRequest(1, CT, f"1.2.3.{number}").encode(), command=True)
                await scu.send(command + pdv(ct_data_set(UID)[:10], command=False, last=False))
            await asyncio.sleep(0.05)
            good = await Scu.associated(port)
            assert (await good.store(UID, ct_data_set(UID, 2 * MiB))).status == 0

    run(scenario())


def test_limits_of_time() -> None:
    """A peer that stalls in a message and one that is idle are aborted; a slow one too."""

    async def scenario() -> None:
        async with receiver(MemoryLog(), stall_timeout=0.6) as (port, server):
            idle = await Scu.associated(port)
            stalled = await Scu.associated(port)
            await stalled.send(c_store(UID, ct_data_set(UID))[:-300])
            slow = await Scu.associated(port)
            await slow.send(c_store(UID, ct_data_set(UID))[:-300])
            limit(server, idle_timeout=0.6, artim_timeout=0.6)
            silent = await Scu.connect(port)

            async def drip() -> None:
                for _ in range(40):
                    await slow.send(b"\0")
                    await asyncio.sleep(0.1)

            dripping = asyncio.create_task(drip())
            for scu in (idle, stalled, slow):
                assert await scu.pdu() == (7, bytes(4))
            assert await silent.reader.read() == b""
            dripping.cancel()

    run(scenario())


def test_association_limit() -> None:
    """Above the limit: transient rejection, local-limit-exceeded; after a release there is room again."""

    async def scenario() -> None:
        async with receiver(MemoryLog(), maximum_associations=2) as (port, _):
            first, second = await Scu.associated(port), await Scu.associated(port)
            third = await Scu.connect(port)
            await third.send(associate())
            assert await third.pdu() == (3, bytes([0, 2, 3, 2]))
            await third.close()
            await first.release()
            await (await Scu.associated(port)).release()
            await second.release()

    run(scenario())


def test_drain_answers_what_is_in_progress() -> None:
    """At a stop, an instance in progress is answered before its association ends; idle ones end at once."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log) as (port, server):
            idle, busy = await Scu.associated(port), await Scu.associated(port)
            message = c_store(UID, ct_data_set(UID, 2 * MiB))
            await busy.send(message[:-1000])
            await asyncio.sleep(0.05)
            draining = asyncio.create_task(server.drain())
            assert await idle.pdu() == (7, bytes(4))
            await idle.close()
            await busy.send(message[-1000:])
            assert (await busy.response()).status == 0
            assert await busy.pdu() == (7, bytes(4))
            await busy.close()
            await draining
        assert UID in log.instances()

    run(scenario())


def test_drain_lets_associations_come_to_their_end() -> None:
    """With `receiver.drain_idle` who goes on sending is served until it releases; who does not is aborted before the deadline."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log, drain_idle=2.0, drain_timeout=600.0) as (port, server):
            idle, busy = await Scu.associated(port), await Scu.associated(port)
            draining = asyncio.create_task(server.drain())
            await until(lambda: server.admission.draining)
            for number in range(3):
                assert (await busy.store(f"{UID}.{number}")).status == 0
            await busy.release()
            assert await idle.pdu(60) == (7, bytes(4))
            await idle.close()
            await draining
        assert set(log.instances()) == {f"{UID}.{number}" for number in range(3)}

    run(scenario())


def test_drain_names_what_a_peer_did() -> None:
    """Only who is silent between two messages is ended by the shutdown; who stalls within one has stalled."""

    async def scenario() -> None:
        async with receiver(MemoryLog(), drain_idle=600.0, drain_timeout=600.0, stall_timeout=0.3) as (
            port,
            server,
        ):
            scu = await Scu.associated(port)
            limit(server, artim_timeout=0.3)
            await scu.send(c_store(UID, ct_data_set(UID))[:-300])
            await server.drain()
            await scu.close()

    with capture_logs() as lines:
        run(scenario())
    assert [line["how"] for line in lines if line["event"] == "association ended"] == ["stalled"]
