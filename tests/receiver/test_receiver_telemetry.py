"""What the receiver tells of its associations: metrics by configured source, one line each, refusals with a remedy."""

import asyncio
import contextlib
import struct
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import structlog.testing

from ingest.association import AssociateRequest, PresentationContext, UserInformation
from ingest.contract.monitoring.exposition import Exposition
from ingest.contract.monitoring.instruments import Instrument
from ingest.contract.refusals import Refusal, RefusalOf, read_refusals
from ingest.contract.settings import Settings, SourceSettings
from ingest.dimse import CStoreRequest
from ingest.errors import LogUnavailable, OutOfResources
from ingest.receiver import reasons
from ingest.receiver.metrics import ReceiverMetrics, server_gauges
from ingest.receiver.server import Server
from ingest.receiver.telemetry import Telemetry
from tests.support.admin import Samples, of, parsed
from tests.support.asynchronous import until
from tests.support.memory_log import MemoryLog
from tests.support.receiving import operations, receiver
from tests.support.scu import (
    ABORT,
    COMMITMENT,
    CT,
    EXPLICIT,
    IMPLICIT,
    Scu,
    associate,
    c_store,
    ct_data_set,
    p_data,
    pdv,
)

UID = "1.2.826.1"
WORDS = {
    one.word
    for one in (*vars(reasons).values(), *reasons.REJECTIONS.values(), *reasons.REFUSED.values())
    if isinstance(one, reasons.Reason)
} - {
    "no-reason",  # which no answer of ours is
    "tls-handshake",  # test_tls_listeners.py
    "commitment-request",  # test_commitment_requests.py, with those of `reasons.COMMITMENT`
}
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
Events = list[dict[str, Any]]


def told(scenario: Coroutine[None, None, None]) -> Events:
    """The events of a scenario."""
    with structlog.testing.capture_logs() as events:
        asyncio.run(scenario)
    return [dict(event) for event in events]


def watched(folder: Path) -> Telemetry:
    settings = Settings.model_validate({"data": folder, "sources": {"ct-1": {"ae_titles": ["TESTER"]}}})
    return Telemetry(settings, ReceiverMetrics())


def counted(telemetry: Telemetry, *more: Instrument) -> Samples:
    assert telemetry.metrics is not None
    text, _ = Exposition([*telemetry.metrics.instruments, *more]).text("")
    return parsed(text.decode())


def request(calling: str, called: str = "DICOM-INGEST") -> bytes:
    contexts = (PresentationContext(1, CT, (EXPLICIT,)),)
    information = UserInformation(maximum_length=16384, implementation_class_uid="1.2.3")
    return AssociateRequest(called, calling, contexts, information).encode()


def test_instances_and_bytes_by_source_and_outcome(tmp_path: Path) -> None:
    """Acknowledged, refused and interrupted instances are counted, each once, with their bytes."""
    telemetry = watched(tmp_path)
    data_set = ct_data_set(UID)

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log, telemetry=telemetry) as (port, server):
            scu = await Scu.associated(port)
            for _ in range(3):
                assert (await scu.store(UID, data_set)).status == 0
            log.failure = OutOfResources("disk full")
            assert (await scu.store(UID, data_set)).status == 0xA700
            log.failure = None
            begun = p_data(CStoreRequest(1, CT, UID).encode(), command=True)
            await scu.send(begun + pdv(data_set[:1000], command=False, last=False))
            await until(lambda: any(operations(connection).receiving for connection in server.connections))
            await scu.send(ABORT)
            await until(lambda: not server.connections)
            found = counted(telemetry, *server_gauges(server))
        size = len(data_set)
        for outcome, instances, octets in (("acknowledged", 3, 3 * size), ("out-of-resources", 1, size)):
            assert found[of("received_instances_total", source="ct-1", outcome=outcome)] == instances
            assert found[of("received_bytes_total", source="ct-1", outcome=outcome)] == octets
        assert found[of("received_instances_total", source="ct-1", outcome="interrupted")] == 1
        assert 0 < found[of("received_bytes_total", source="ct-1", outcome="interrupted")] < size
        assert found[of("cstore_seconds_count", source="ct-1")] == 3
        assert found[of("log_append_seconds_count")] == 3
        assert found[of("cstore_seconds_sum", source="ct-1")] >= found[of("log_append_seconds_sum")]
        assert found[of("associations_total", source="ct-1", result="accepted")] == 1
        assert found[of("associations_ended_total", source="ct-1", end="aborted-by-peer")] == 1
        assert found[of("buffer_used_bytes")] == 0
        assert found[of("associations_open")] == 0

    events = told(scenario())
    (ended,) = [event for event in events if event["event"] == "association ended"]
    (refused,) = [event for event in events if event["event"] == "instance not taken"]
    assert ended["association"] == refused["association"]
    assert (ended["received"], ended["refused"], ended["bytes"]) == (3, 1, 3 * len(data_set))
    assert refused["reason"] == "out-of-resources"
    assert refused["sop_instance_uid"] == UID


def test_limits_name_the_settings_that_set_them(tmp_path: Path) -> None:
    """What is longer than allowed, and a SOP Class that its source may not store, are told from a full disk."""
    telemetry = watched(tmp_path)

    async def scenario() -> None:
        source = SourceSettings(ae_titles=("TESTER",), maximum_instance_size=1000)
        narrow = SourceSettings(ae_titles=("NARROW",), sop_classes=(SECONDARY_CAPTURE,))
        sources = {"ct-1": source, "narrow": narrow}
        async with receiver(MemoryLog(), telemetry=telemetry, sources=sources) as (port, _):
            telemetry.refusals.start()
            scu = await Scu.associated(port)
            assert (await scu.store(UID, ct_data_set(UID, 20_000))).status == 0xA700
            await scu.release()
            scu = await Scu.connect(port)
            await scu.send(request("NARROW"))
            await scu.pdu()
            await telemetry.refusals.close()

    asyncio.run(scenario())
    remembered = {(one.refused, one.reason): one.remedy for one in read_refusals(tmp_path)}
    assert "sources.NAME.maximum_instance_size" in remembered[RefusalOf.INSTANCE, "instance-too-long"]
    assert remembered[RefusalOf.CONTEXT, "sop-class-of-source"] == "sources.NAME.sop_classes"


def test_a_refused_source_says_nothing_unescaped(tmp_path: Path) -> None:
    """An AE title is a stranger's text; in the log it is escaped."""
    telemetry = watched(tmp_path)
    title = "\x1b[31mRED"

    async def scenario() -> None:
        async with receiver(MemoryLog(), telemetry=telemetry, unknown_sources="refuse") as (port, _):
            scu = await Scu.connect(port)
            await scu.send(request("PLACEHOLDER").replace(b"PLACEHOLDER     ", title.encode().ljust(16)))
            await scu.pdu()

    events = told(scenario())
    assert "source refused" in {event["event"] for event in events}
    assert "\x1b" not in "".join(str(value) for event in events for value in event.values())


def test_one_line_for_many_refused_instances(tmp_path: Path) -> None:
    """A full disk and a peer that goes on sending do not fill the log: the last line has the number."""
    telemetry = watched(tmp_path)

    async def scenario() -> None:
        log = MemoryLog()
        log.reason = "free space is below the reserve"
        async with receiver(log, telemetry=telemetry) as (port, _):
            scu = await Scu.associated(port)
            for _ in range(20):
                assert (await scu.store(UID)).status == 0xA700
            await scu.release()

    events = told(scenario())
    assert [event["event"] for event in events if event.get("association")] == [
        "instance not taken", "association ended",
    ]  # fmt: skip
    assert events[-1]["refused"] == 20
    found = counted(telemetry)
    assert found[of("received_instances_total", source="ct-1", outcome="out-of-resources")] == 20


def refusals_of(telemetry: Telemetry, folder: Path, *requests: bytes, **settings: Any) -> list[Refusal]:
    """What is remembered after these requests for an association."""

    async def scenario() -> None:
        async with receiver(MemoryLog(), telemetry=telemetry, **settings) as (port, server):
            telemetry.refusals.start()
            for pdu in requests:
                scu = await Scu.connect(port)
                await scu.send(pdu)
                await scu.pdu()
                await scu.close()
            await until(lambda: not server.connections)
            await telemetry.refusals.close()

    asyncio.run(scenario())
    return read_refusals(folder)


def words(refusals: Sequence[Refusal]) -> list[tuple[str, str, str]]:
    return [(found.refused, found.reason, found.subject) for found in refusals]


def test_refused_associations_name_the_setting(tmp_path: Path) -> None:
    """The first hour of an installation: who called, as whom, from where, why not, and what to change."""
    telemetry = watched(tmp_path)
    found = refusals_of(
        telemetry,
        tmp_path,
        request("TESTER", "WRONG"),
        request("TESTER", "WRONG"),
        request("A\tB\\", "DICOM-INGEST"),
    )
    assert words(found) == [
        (RefusalOf.ASSOCIATION, "called-ae-title", ""), (RefusalOf.ASSOCIATION, "calling-ae-title", ""),
    ]  # fmt: skip
    wrong_title, bad_title = found
    assert (wrong_title.calling_ae_title, wrong_title.called_ae_title) == ("TESTER", "WRONG")
    assert wrong_title.times == 2
    assert wrong_title.address == "127.0.0.1"
    assert "receiver.ae_title" in wrong_title.remedy
    assert bad_title.calling_ae_title == '"A\\tB\\\\"'
    counts = counted(telemetry)
    assert counts[of("associations_total", source="ct-1", result="called-ae-title")] == 2
    assert counts[of("associations_total", source="(other)", result="calling-ae-title")] == 1


def test_refused_contexts_name_the_setting(tmp_path: Path) -> None:
    """Each context that is not accepted, with its SOP Class and what would let it in."""
    telemetry = watched(tmp_path)
    contexts = (
        (CT, (EXPLICIT,)), (CT, ("1.2.3.4",)), (STUDY_ROOT_FIND, (IMPLICIT,)), ("1.2.3.5", (IMPLICIT,)),
        (COMMITMENT, (IMPLICIT,)),
    )  # fmt: skip
    found = refusals_of(telemetry, tmp_path, associate(contexts))
    assert words(found) == [
        (RefusalOf.CONTEXT, "transfer-syntax", CT),
        (RefusalOf.CONTEXT, "service", STUDY_ROOT_FIND),
        (RefusalOf.CONTEXT, "sop-class", "1.2.3.5"),
        (RefusalOf.CONTEXT, "commitment-off", COMMITMENT),
    ]
    assert [one.remedy.split()[0] for one in found[2:]] == [
        "receiver.private_storage_classes,",
        "commitment.enabled",
    ]
    counts = counted(telemetry)
    assert counts[of("presentation_contexts_refused_total", source="ct-1", reason="service")] == 1


def without_data_set() -> bytes:
    """A C-STORE-RQ that announces none (PS3.7 9.3.1.1)."""
    command = CStoreRequest(1, CT, UID).encode()
    kind = struct.pack("<HHI", 0, 0x0800, 2)
    at = command.index(kind) + len(kind)
    return p_data(command[:at] + struct.pack("<H", 0x0101) + command[at + 2 :], command=True)


def test_what_brings_no_data_set_or_not_all_of_it_is_refused_and_counted(tmp_path: Path) -> None:
    """Whether or not its peer waits for the answer, an instance that is refused is told of once."""
    telemetry = watched(tmp_path)

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log, telemetry=telemetry) as (port, server):
            telemetry.refusals.start()
            scu = await Scu.associated(port)
            await scu.send(without_data_set())
            assert (await scu.response()).status == 0xC000
            log.reason = "disk full"
            begun = p_data(CStoreRequest(1, CT, UID).encode(), command=True)
            await scu.send(begun + pdv(ct_data_set(UID)[:1000], command=False, last=False))
            await until(lambda: any(operations(connection).receiving for connection in server.connections))
            await scu.send(ABORT)
            await until(lambda: not server.connections)
            await telemetry.refusals.close()

    events = told(scenario())
    reasons_found = ["unreadable", "out-of-resources"]
    assert [one.reason for one in read_refusals(tmp_path)] == reasons_found
    found = counted(telemetry)
    for reason in reasons_found:
        assert found[of("received_instances_total", source="ct-1", outcome=reason)] == 1
    (ended,) = [event for event in events if event["event"] == "association ended"]
    assert (ended["received"], ended["refused"]) == (0, 2)


def test_refused_connections_are_remembered(tmp_path: Path) -> None:
    """Beyond receiver.maximum_connections."""
    telemetry = watched(tmp_path)

    async def scenario() -> None:
        async with receiver(MemoryLog(), telemetry=telemetry, maximum_connections=1) as (port, _):
            telemetry.refusals.start()
            first, second = await Scu.associated(port), await Scu.connect(port)
            with contextlib.suppress(ConnectionError):
                assert await second.reader.read(1) == b""
            await first.release()
            await telemetry.refusals.close()

    asyncio.run(scenario())
    assert words(read_refusals(tmp_path)) == [(RefusalOf.CONNECTION, "too-many-connections", "")]


# What comes where an A-ASSOCIATE-RQ is due, and what is said of it.
UNREADABLE = {
    b"GET / HTTP/1.1\r\nHost: dicom\r\n\r\n": "unknown PDU type",
    p_data(b"", command=True): "PDU of Evt10 in Sta2",
    request("TESTER")[:76] + b"\xff\xff" + request("TESTER")[78:]: "item 10H overruns what holds it",
    struct.pack(">BxI", 1, 1 << 30): "an A-ASSOCIATE PDU is longer than 1048576 bytes",
}


def test_what_is_no_association_request_is_counted_and_remembered(tmp_path: Path) -> None:
    """By a peer that speaks something else, or DICOM wrongly; not by one that only looks whether the port is open."""
    telemetry = watched(tmp_path)

    async def scenario() -> None:
        async with receiver(MemoryLog(), telemetry=telemetry) as (port, server):
            telemetry.refusals.start()
            for first in UNREADABLE:
                scu = await Scu.connect(port)
                await scu.send(first)
                assert (await scu.pdu())[0] == 7
                await scu.close()
            await (await Scu.connect(port)).close()
            good = await Scu.associated(port)
            await good.send(b"\xff" * 6)
            assert (await good.pdu())[0] == 7
            await good.close()
            await until(lambda: not server.connections)
            await telemetry.refusals.close()

    events = told(scenario())
    assert words(read_refusals(tmp_path)) == [
        (RefusalOf.ASSOCIATION, "malformed", subject) for subject in UNREADABLE.values()
    ]
    assert counted(telemetry)[of("associations_total", source="(other)", result="malformed")] == 4
    refused = [event for event in events if event["event"] == "association refused"]
    assert [event["detail"] for event in refused] == list(UNREADABLE.values())
    assert {event["peer"] for event in refused} == {"127.0.0.1"}


# What is asked for, on a receiver with `SOURCES`, and the word for why it is refused.
SOURCES = {
    "ct-1": SourceSettings(ae_titles=("TESTER",)),
    "narrow": SourceSettings(
        ae_titles=("NARROW",),
        sop_classes=(SECONDARY_CAPTURE,),
        maximum_associations=1,
    ),
    "small": SourceSettings(ae_titles=("SMALL",), maximum_instance_size=1000),
    "elsewhere": SourceSettings(ae_titles=("ELSEWHERE",), addresses=("192.0.2.1",)),
}
ASSOCIATIONS = {
    "called-ae-title": request("TESTER", "WRONG"),
    "calling-ae-title": request("ELSEWHERE"),
    "too-many-associations": request("NARROW"),
    "application-context": request("TESTER").replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.9"),
    "protocol-version": request("TESTER")[:6] + b"\0\2" + request("TESTER")[8:],
    "malformed": associate(maximum_length=1),  # which leaves no room for a fragment
    "congested": request("TESTER"),
    "draining": request("TESTER"),
}
CONTEXTS = {
    "transfer-syntax": (CT, ("1.2.3.4",)), "service": (STUDY_ROOT_FIND, (IMPLICIT,)), "sop-class": ("1.2.3.5", (IMPLICIT,)),
    "commitment-off": (COMMITMENT, (IMPLICIT,)), "sop-class-of-source": (CT, (EXPLICIT,)),
}  # fmt: skip
SENDERS_FAULTS = {
    "other-uids": c_store("1.2.2", ct_data_set("1.2.3")), "unreadable": c_store("1.2.2", b"\xff" * 64),
    "invalid-uid": c_store("1.x", ct_data_set("1.2.2")),
    "other-context": c_store("1.2.2", ct_data_set("1.2.2"), sop_class=SECONDARY_CAPTURE),
}  # fmt: skip
INSTANCES: dict[str, Exception | None] = {
    "out-of-resources": OutOfResources("disk full"), "log-unavailable": LogUnavailable("the log has failed"),
    "error": ZeroDivisionError(), "instance-too-long": None, "unknown-quota": None,
    **dict.fromkeys(SENDERS_FAULTS),
}  # fmt: skip


async def refuse_associations(port: int, server: Server, log: MemoryLog) -> None:
    for word, pdu in ASSOCIATIONS.items():
        log.away, server.admission.draining = word == "congested", word == "draining"
        scu = await Scu.connect(port)
        await scu.send(pdu)
        assert (await scu.pdu())[0] == (7 if word == "malformed" else 3), word
        await scu.close()
    log.away, server.admission.draining = False, False


async def refuse_instances(port: int, log: MemoryLog) -> None:
    for word, failure in INSTANCES.items():
        log.failure = failure
        scu = await Scu.associated(
            port, {"unknown-quota": "STRANGER", "instance-too-long": "SMALL"}.get(word, "TESTER")
        )
        if word == "unknown-quota":
            assert (await scu.store("1.2.1")).status == 0
        await scu.send(SENDERS_FAULTS.get(word) or c_store("1.2.2", ct_data_set("1.2.2")))
        assert (await scu.response()).status != 0, word
        await scu.release()


def test_no_refusal_is_left_out(tmp_path: Path) -> None:
    """Each word that the receiver has for one is driven: counted, in a line of its own, remembered with its remedy."""
    telemetry = watched(tmp_path)

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(
            log, telemetry=telemetry, sources=SOURCES,
            unknown_sources="quarantine", unknown_instances=1, maximum_connections=2,
        ) as (port, server):  # fmt: skip
            telemetry.refusals.start()
            *contexts, of_source = CONTEXTS.values()
            scu = await Scu.connect(port)
            await scu.send(associate((*contexts, (CT, (EXPLICIT,)))))
            assert (await scu.pdu())[0] == 2
            await scu.release()
            await refuse_instances(port, log)
            narrow = await Scu.connect(port)
            await narrow.send(associate((of_source, (SECONDARY_CAPTURE, (EXPLICIT,))), calling="NARROW"))
            assert (await narrow.pdu())[0] == 2
            await refuse_associations(port, server, log)
            last, refused = await Scu.associated(port), await Scu.connect(port)
            with contextlib.suppress(ConnectionError):
                assert await refused.reader.read(1) == b""
            await last.release()
            await narrow.release()
            await telemetry.refusals.close()

    events = told(scenario())
    assert {
        event["reason"] for event in events if event["event"] == "association refused"
    } == ASSOCIATIONS.keys()
    not_taken = {event["reason"]: event for event in events if event["event"] == "instance not taken"}
    assert not_taken.keys() == INSTANCES.keys()
    ids = {event["association"] for event in events if event["event"] == "association ended"}
    assert {event["association"] for event in not_taken.values()} <= ids
    found = read_refusals(tmp_path)
    assert {one.reason for one in found} == WORDS
    assert all(one.remedy for one in found)
    counts = {
        name: {dict(labels)[label] for (metric, labels), number in counted(telemetry).items() if number and metric == name}
        for name, label in (
            ("dicom_ingest_associations_total", "result"),
            ("dicom_ingest_presentation_contexts_refused_total", "reason"),
            ("dicom_ingest_received_instances_total", "outcome"),
        )
    }  # fmt: skip
    assert list(counts.values()) == [
        {"accepted", *ASSOCIATIONS}, set(CONTEXTS), {"acknowledged", *INSTANCES},
    ]  # fmt: skip
    assert counted(telemetry)[of("connections_refused_total")] == 1


def test_a_folder_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    """Where refusals cannot be remembered the log says so once, and associations go on."""
    (tmp_path / "refusals").write_text("not a folder")
    telemetry = watched(tmp_path)

    async def scenario() -> None:
        async with receiver(MemoryLog(), telemetry=telemetry) as (port, _):
            telemetry.refusals.start()
            for _ in range(2):
                scu = await Scu.connect(port)
                await scu.send(request("TESTER", "WRONG"))
                await scu.pdu()
                await telemetry.refusals._write()
            scu = await Scu.associated(port)
            assert (await scu.store(UID)).status == 0
            await scu.release()
            await telemetry.refusals.close()

    events = told(scenario())
    assert [event["event"] for event in events].count("refusals cannot be remembered") == 1
