"""Storage commitment asked for over a real socket: N-ACTIONs good and bad (PS3.4 J.3.2)."""

import asyncio
from pathlib import Path

import pytest

from ingest.contract.commitments import Reference
from ingest.contract.refusals import RefusalOf, read_refusals
from ingest.contract.settings import CommitmentSettings, KiB, Settings
from ingest.dimse import NActionRequest, NActionResponse, NEventReportRequest, NEventReportResponse
from ingest.dimse.command_set import encode_command_set
from ingest.dimse.commitment_request import encode_request
from ingest.dimse.data_set import encode_element, encode_item
from ingest.receiver import reasons
from ingest.receiver.telemetry import Telemetry
from tests.support.asynchronous import until
from tests.support.commitment_engine import Engine
from tests.support.memory_log import MemoryLog
from tests.support.receiving import receiver, run
from tests.support.scu import (
    COMMITMENT,
    COMMITMENT_INSTANCE,
    CT,
    Scu,
    associate,
    c_echo,
    commitment_association,
    n_action,
    p_data,
)

UIDS = [f"1.2.826.1.{number}" for number in range(5)]
LIMITS = CommitmentSettings(maximum_references=60_000)


async def asked_for(scu: Scu, message: bytes) -> NActionResponse:
    await scu.send(message)
    answer, _, _ = await scu.message()
    assert isinstance(answer, NActionResponse)
    return answer


@pytest.mark.parametrize(("context_id", "explicit"), [(5, True), (7, False)])
def test_request_is_asked_and_answered(context_id: int, explicit: bool) -> None:
    """The engine gets each reference once, with both AE titles; the response names the instance, no data set."""

    async def scenario() -> None:
        engine = Engine()
        async with receiver(MemoryLog(), engine) as (port, _):
            scu = await Scu.committing(port)
            message = n_action([*UIDS, UIDS[0]], context_id=context_id, explicit=explicit, message_id=77)
            assert await asked_for(scu, message) == NActionResponse(77, 0, COMMITMENT, COMMITMENT_INSTANCE)
            await scu.release()
        (asked,) = engine.asked
        assert asked.transaction_uid == "2.25.1"
        assert asked.references == tuple(Reference(CT, uid) for uid in UIDS)
        assert (asked.calling_ae_title, asked.called_ae_title) == ("TESTER", "DICOM-INGEST")

    run(scenario())


def test_no_answer_before_the_engine_has_it() -> None:
    """N-ACTION-RSP waits for the engine, and what the peer sends meanwhile waits for N-ACTION-RSP."""

    async def scenario() -> None:
        engine = Engine(hold=True)
        async with receiver(MemoryLog(), engine) as (port, _):
            scu = await Scu.committing(port)
            await scu.send(n_action(UIDS) + c_echo(message_id=2) + n_action(UIDS, message_id=3))
            await until(lambda: bool(engine.asked))
            with pytest.raises(TimeoutError):
                await scu.pdu(seconds=0.3)
            assert len(engine.asked) == 1
            engine.let_go.set()
            ids = [(await scu.answer()).message_id_being_responded_to for _ in range(3)]
            assert ids == [1, 2, 3]
            await scu.release()

    run(scenario())


@pytest.mark.parametrize("status", [0x0110, 0x0131, 0x0213])
def test_status_of_the_engine_is_the_answer(status: int) -> None:
    """With a comment; and the association goes on."""

    async def scenario() -> None:
        engine = Engine(status)
        async with receiver(MemoryLog(), engine) as (port, _):
            scu = await Scu.committing(port)
            answer = await asked_for(scu, n_action(UIDS))
            assert (answer.status, answer.affected_sop_instance_uid) == (status, COMMITMENT_INSTANCE)
            assert answer.error_comment
            engine.status = 0
            assert (await asked_for(scu, n_action(UIDS))).status == 0
            engine.failure = RuntimeError("defect")
            assert (await asked_for(scu, n_action(UIDS))).status == 0x0110
            assert (await scu.store(UIDS[0])).status == 0
            await scu.release()

    run(scenario())


def test_each_refusal_is_remembered_with_its_remedy(tmp_path: Path) -> None:
    """For `status --rejected`: who asked, why not, and what to change."""
    telemetry = Telemetry(Settings(data=tmp_path))

    async def scenario() -> None:
        engine = Engine()
        async with receiver(MemoryLog(), engine, telemetry=telemetry) as (port, _):
            telemetry.refusals.start()
            scu = await Scu.committing(port)
            for status in reasons.COMMITMENT:
                engine.status = status
                assert (await asked_for(scu, n_action(UIDS))).status == status
            engine.failure = RuntimeError("defect")
            assert (await asked_for(scu, n_action(UIDS))).status == 0x0110
            other_action = n_action(UIDS, command=command(action_type_id=2))
            assert (await asked_for(scu, other_action)).status == 0x0123
            await scu.release()
            await telemetry.refusals.close()

    run(scenario())
    found = read_refusals(tmp_path)
    assert {one.reason for one in found} == {
        "transaction-uid", "commitment-limits", "commitment-failed", "commitment-request", "error",
    }  # fmt: skip
    assert {(one.refused, one.calling_ae_title) for one in found} == {(RefusalOf.COMMITMENT, "TESTER")}
    assert all(one.remedy for one in found)
    assert {one.reason: one.subject for one in found}["error"] == ""


def command(**changes: object) -> bytes:
    fields = {
        "message_id": 1,
        "requested_sop_class_uid": COMMITMENT,
        "requested_sop_instance_uid": COMMITMENT_INSTANCE,
        "action_type_id": 1,
    }
    return NActionRequest(**{**fields, **changes}).encode()  # type: ignore[arg-type]  # by name


NO_DATA_SET = encode_command_set(
    {
        0x0003: COMMITMENT.encode(),
        0x0100: b"\x30\x01",
        0x0110: b"\x01\0",
        0x0800: b"\x01\x01",
        0x1001: COMMITMENT_INSTANCE.encode(),
        0x1008: b"\x01\0",
    }
)
REFERENCES = [Reference(CT, f"1.2.840.113619.2.55.3.604688119.969.{number:020}") for number in range(100_000)]
DEEP = b"\x09\0\x01\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
HOSTILE = {
    "other class": (n_action(UIDS, command=command(requested_sop_class_uid=CT)), 0x0118),
    "no class": (n_action(UIDS, command=command(requested_sop_class_uid="")), 0x0118),
    "other instance": (n_action(UIDS, command=command(requested_sop_instance_uid="1.2.3")), 0x0112),
    "no instance": (n_action(UIDS, command=command(requested_sop_instance_uid="")), 0x0112),
    "other action": (n_action(UIDS, command=command(action_type_id=2)), 0x0123),
    "no action": (n_action(UIDS, command=command(action_type_id=None)), 0x0123),
    "no data set": (p_data(NO_DATA_SET, command=True, context_id=5), 0x0115),
    "empty data set": (n_action(data_set=b""), 0x0115),
    "empty sequence": (n_action([]), 0x0115),
    "missing UIDs": (
        n_action(data_set=encode_element(0x00081199, b"SQ", encode_item(b""), explicit=True)),
        0x0115,
    ),
    "wrong VRs": (n_action(data_set=encode_element(0x00081195, b"LO", b"2.25.1", explicit=True)), 0x0115),
    "wrong syntax": (n_action(UIDS, explicit=False), 0x0115),
    "deep sequences": (n_action(data_set=DEEP * 100_000), 0x0115),
    "100,000 references": (n_action(data_set=encode_request("2.25.1", REFERENCES, explicit=True)), 0x0213),
    "100,000 times one": (
        n_action(data_set=encode_request("2.25.1", REFERENCES[:1] * 100_000, explicit=True)),
        0x0213,
    ),
    "too long": (n_action(data_set=bytes(17 * 1024 * KiB)), 0x0213),
    "on a context of images": (n_action(UIDS, context_id=1), 0x0211),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_request(name: str) -> None:
    """Each gets its status, nothing of it stays, and the association is as good as before."""

    async def scenario() -> None:
        engine = Engine()
        async with receiver(MemoryLog(), engine, LIMITS) as (port, server):
            scu = await Scu.committing(port)
            room = server.services.commitment._room
            message, status = HOSTILE[name]
            for _ in range(2):
                answer = await asked_for(scu, message)
                assert answer.status == status
                assert answer.error_comment
            assert not engine.asked
            assert (await scu.store(UIDS[0])).status == 0
            assert (await asked_for(scu, n_action(UIDS, message_id=9))).status == 0
            await scu.send(c_echo())
            assert (await scu.response()).status == 0
            await scu.release()
            assert server.services.commitment._room == room

    run(scenario())


def test_many_references() -> None:
    """As many as are allowed, in one request, each of them to the engine."""

    async def scenario() -> None:
        engine = Engine()
        async with receiver(MemoryLog(), engine, LIMITS) as (port, _):
            scu = await Scu.committing(port)
            data_set = encode_request("2.25.1", REFERENCES[:60_000], explicit=True)
            assert (await asked_for(scu, n_action(data_set=data_set))).status == 0
            assert engine.asked[0].references == tuple(REFERENCES[:60_000])
            await scu.release()

    run(scenario())


def test_requests_in_memory_are_bounded_together() -> None:
    """Peers that send large requests piece by piece share a budget; who finds it used up gets 0213H."""

    async def scenario() -> None:
        engine = Engine(hold=True)
        limits = CommitmentSettings(maximum_request=64 * KiB)
        data_set = encode_request("2.25.1", REFERENCES[:600], explicit=True)
        fitting = 4 * 64 * KiB // len(data_set)
        async with receiver(MemoryLog(), engine, limits) as (port, server):
            scus = [await Scu.committing(port) for _ in range(fitting + 1)]
            for number, scu in enumerate(scus[:-1]):
                await scu.send(n_action(data_set=data_set))
                await until(lambda: len(engine.asked) > number)  # noqa: B023 - awaited within the round
            assert (await asked_for(scus[-1], n_action(data_set=data_set))).status == 0x0213
            engine.let_go.set()
            for scu in scus[:-1]:
                assert (await scu.answer()).status == 0
            assert (await asked_for(scus[-1], n_action(data_set=data_set))).status == 0
            assert server.services.commitment._room == 4 * 64 * KiB

    run(scenario())


def test_who_never_ends_large_requests_keeps_out_no_small_one() -> None:
    """Of those that have not come whole the largest gives way, or five associations that drip would have all others refused."""

    async def scenario() -> None:
        limits = CommitmentSettings(maximum_request=64 * KiB)
        message = n_action(data_set=encode_request("2.25.1", REFERENCES[:500], explicit=True))
        cuts = [len(message) - 20] * 4 + [40_000]
        async with receiver(MemoryLog(), Engine(), limits) as (port, server):
            service = server.services.commitment
            dripping = [await Scu.committing(port) for _ in cuts]
            for scu, cut in zip(dripping, cuts, strict=True):
                left = service._room
                await scu.send(message[:cut])
                await until(lambda: service._room <= left - 38_000)  # noqa: B023 - awaited within the round
            small = n_action(data_set=encode_request("2.25.2", REFERENCES[:200], explicit=True))
            assert len(small) > service._room
            assert (await asked_for(await Scu.committing(port), small)).status == 0
            for scu, cut in zip(dripping, cuts, strict=True):
                await scu.send(message[cut:])
            assert sorted([(await scu.answer()).status for scu in dripping]) == [0, 0, 0, 0, 0x0213]
            assert service._room == 4 * 64 * KiB
            assert not service._unfinished

    run(scenario())


@pytest.mark.parametrize("asking", [False, True], ids=["within the data set", "while it is asked"])
def test_peer_that_goes_away(asking: bool) -> None:
    """What it sent half is forgotten, what it asked in full goes on without it."""

    async def scenario() -> None:
        engine = Engine(hold=True)
        async with receiver(MemoryLog(), engine) as (port, server):
            room = server.services.commitment._room
            scu = await Scu.committing(port)
            message = n_action([f"1.2.{number}" for number in range(1000)])
            await scu.send(message if asking else message[:-20])
            await until(lambda: bool(engine.asked) if asking else server.services.commitment._room < room)
            await scu.close()
            async with asyncio.timeout(60):
                await server.unused.wait()
            engine.let_go.set()
            await until(lambda: server.services.commitment._room == room)
            assert len(engine.asked) == asking

    run(scenario())


def test_without_an_engine() -> None:
    """Storage commitment is not accepted, and an N-ACTION on another context is not recognized."""

    async def scenario() -> None:
        async with receiver(MemoryLog()) as (port, _):
            scu = await Scu.connect(port)
            await scu.send(commitment_association())
            kind, body = await scu.pdu()
            assert kind == 2
            refused = bytes([0x21, 0, 0, 25])
            assert body.count(refused + b"\x05\0\x03\0") == body.count(refused + b"\x07\0\x03\0") == 1
            assert (await asked_for(scu, n_action(UIDS, context_id=1))).status == 0x0211
            assert (await scu.store(UIDS[0])).status == 0
            await scu.release()

    run(scenario())


def test_reports_are_not_for_us() -> None:
    """A peer's N-EVENT-REPORT is not recognized, its data set passes, and the association goes on."""

    async def scenario() -> None:
        async with receiver(MemoryLog(), Engine()) as (port, _):
            scu = await Scu.connect(port)
            await scu.send(associate(((COMMITMENT, ("1.2.840.10008.1.2",)),)))
            await scu.pdu()
            report = NEventReportRequest(4, COMMITMENT, COMMITMENT_INSTANCE, 1)
            await scu.send(p_data(report.encode(), command=True) + p_data(bytes(100), command=False))
            answer, _, _ = await scu.message()
            assert isinstance(answer, NEventReportResponse)
            assert (answer.message_id_being_responded_to, answer.status) == (4, 0x0211)
            await scu.release()

    run(scenario())
