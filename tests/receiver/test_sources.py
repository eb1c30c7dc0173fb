"""Who may send, and how much: the sources of the settings at the receiver's door (PS3.8 9.3.4)."""

import asyncio
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ingest.association import AssociateRequest, PresentationContext, UserInformation
from ingest.contract.peer_settings import ListenerSettings
from ingest.contract.settings import MiB, ReceiverSettings, SourceSettings
from ingest.receiver.connection import Held
from ingest.receiver.rate import RateMeter
from tests.support.asynchronous import until
from tests.support.certificates import Authority
from tests.support.memory_log import MemoryLog
from tests.support.receiving import operations, receiver, run
from tests.support.scu import CT, EXPLICIT, IMPLICIT, VERIFICATION, Scu, c_store, ct_data_set

UID = "1.2.826.8"
MR = "1.2.840.10008.5.1.4.1.1.4"
NOT_CALLING, NOT_CALLED, LIMIT = (1, 1, 3), (1, 1, 7), (2, 3, 2)


def source(**settings: object) -> SourceSettings:
    return SourceSettings.model_validate({"ae_titles": ("CT1",), **settings})


def request(calling: str, called: str = "DICOM-INGEST", classes: tuple[str, ...] = (CT,)) -> bytes:
    contexts = tuple(
        PresentationContext(2 * number + 1, abstract, (EXPLICIT, IMPLICIT))
        for number, abstract in enumerate((*classes, VERIFICATION))
    )
    user = UserInformation(maximum_length=16384, implementation_class_uid="1.2.3")
    return AssociateRequest(called, calling, contexts, user).encode()


async def asked(port: int, calling: str, called: str = "DICOM-INGEST", **connect: Any) -> tuple[Scu, object]:
    """Ask for an association: what answers, and how: accepted, or the reason of the rejection."""
    scu = Scu(*await asyncio.open_connection("127.0.0.1", port, **connect))
    await scu.send(request(calling, called))
    kind, body = await scu.pdu()
    return scu, "accepted" if kind == 2 else tuple(body[1:4])


async def answer(port: int, calling: str, called: str = "DICOM-INGEST", **connect: Any) -> object:
    return (await asked(port, calling, called, **connect))[1]


def test_unknown_sources_are_accepted_or_refused() -> None:
    """As the policy says; the default is as ever."""

    async def scenario() -> None:
        sources = {"ct1": source()}
        async with receiver(MemoryLog(), sources=sources) as (port, _):
            assert await answer(port, "ANYONE") == "accepted"
        async with receiver(MemoryLog(), sources=sources, unknown_sources="refuse") as (port, _):
            assert await answer(port, "CT1 ") == "accepted"
            with capture_logs() as logs:
                assert await answer(port, "ANYONE") == NOT_CALLING
            (line,) = (line for line in logs if line["event"] == "source refused")
            assert (line["why"], line["calling_ae_title"]) == ("unknown", "ANYONE")

    run(scenario())


def test_a_source_comes_from_its_addresses_and_calls_its_titles() -> None:
    """An AE title alone proves nothing: from elsewhere it is not recognised."""

    async def scenario() -> None:
        sources = {
            "here": source(ae_titles=("HERE",), addresses=("10.0.0.0/8", "127.0.0.1", "::1")),
            "there": source(ae_titles=("THERE",), addresses=("10.0.0.0/8",)),
            "calls": source(ae_titles=("CALLS",), called_ae_titles=("ARCHIVE",)),
        }
        async with receiver(MemoryLog(), sources=sources) as (port, _):
            assert await answer(port, "HERE") == "accepted"
            assert await answer(port, "THERE") == NOT_CALLING
            assert await answer(port, "CALLS", "ARCHIVE") == "accepted"
            assert await answer(port, "CALLS") == NOT_CALLED
            assert await answer(port, "HERE", "ARCHIVE") == NOT_CALLED

    run(scenario())


def test_a_certificate_is_bound_to_its_ae_titles(tmp_path: Path) -> None:
    """Another certificate of the same authority, or none, does not speak for it, whichever way it is named."""
    authority = Authority(tmp_path)
    own, key = authority.certificate("receiver")
    ct1 = authority.certificate("ct1", subject="/C=DE/O=St. Mary, North/CN=ct1")
    other = authority.certificate("other")
    fingerprint = authority.fingerprint(ct1[0])

    def client(files: tuple[Path, Path]) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(authority.ca))
        context.load_cert_chain(*files)
        return context

    async def scenario() -> None:
        sources = {
            name.lower(): source(ae_titles=(name,), certificates=certificates)
            for name, certificates in {
                "PRINT": (f"sha256:{fingerprint.upper()}",),
                "SUBJECT": (r"subject:CN=ct1,O=St. Mary\, North,C=DE",),
                "SAN": ("san:localhost", "sha256:" + "0" * 64),
                "OTHER": ("subject:CN=another",),
            }.items()
        }
        listener = ListenerSettings(
            port=0, certificate_file=str(own), key_file=str(key), client_ca_file=str(authority.ca)
        )
        async with receiver(MemoryLog(), sources=sources, listeners={"tls": listener}) as (port, server):
            tls = server.bound[1].port
            for name in ("PRINT", "SUBJECT", "SAN"):
                assert await answer(tls, name, ssl=client(ct1)) == "accepted", name
                assert await answer(port, name) == NOT_CALLING, name  # without TLS
            for name in ("PRINT", "SUBJECT", "OTHER"):
                with capture_logs() as logs:
                    assert await answer(tls, name, ssl=client(other)) == NOT_CALLING, name
                (line,) = (line for line in logs if line["event"] == "source refused")
                assert (line["why"], line["subject"]) == ("certificate", "CN=other")
            assert await answer(tls, "UNBOUND", ssl=client(other)) == "accepted"

    run(scenario())


def test_sop_classes_of_a_source_are_refused_one_by_one() -> None:
    """In their presentation contexts; the association stands, and C-ECHO always works."""

    async def scenario() -> None:
        sources = {"ct1": source(sop_classes=(CT,))}
        async with receiver(MemoryLog(), sources=sources) as (port, server):
            scu = await Scu.connect(port)
            await scu.send(request("CT1", classes=(CT, MR)))
            kind, _ = await scu.pdu()
            assert kind == 2
            (connection,) = server.connections
            accepted = {context.abstract_syntax for context in connection.association.contexts.values()}
            assert accepted == {CT, VERIFICATION}

    run(scenario())


def test_associations_of_a_source_are_bounded() -> None:
    """More are a transient rejection; others are not touched, and one that ends makes room."""

    async def scenario() -> None:
        sources = {"ct1": source(maximum_associations=1)}
        async with receiver(MemoryLog(), sources=sources) as (port, server):
            scu, accepted = await asked(port, "CT1")
            assert accepted == "accepted"
            assert await answer(port, "CT1") == LIMIT
            assert await answer(port, "OTHER") == "accepted"
            await scu.release()
            await until(lambda: server.admission.associations == 1)
            assert await answer(port, "CT1") == "accepted"

    run(scenario())


@pytest.mark.parametrize("where", ["source", "receiver", "association"])
@pytest.mark.parametrize("size", [20_000, 3_000_000])
def test_what_is_too_long_is_refused_and_the_association_goes_on(where: str, size: int) -> None:
    """With A700H, whole or in parts; nothing of it appears, and what fits is stored."""

    async def scenario() -> None:
        log = MemoryLog()
        limit = size * 3 // 4
        sources = {"ct1": source(maximum_instance_size=limit if where == "source" else 0)}
        key = {"receiver": "maximum_instance_size", "association": "maximum_association_size"}.get(where)
        settings: dict[str, Any] = {key: limit} if key else {}
        async with receiver(log, sources=sources, **settings) as (port, _):
            scu, _ = await asked(port, "CT1")
            for uid, length in ((f"{UID}.1", size), (f"{UID}.2", size // 2), (f"{UID}.3", size // 2)):
                await scu.send(c_store(uid, ct_data_set(uid, length)))
                status = (await scu.response()).status
                fits = uid.endswith(".2") or (uid.endswith(".3") and where != "association")
                assert status == (0 if fits else 0xA700), uid
            stored = {f"{UID}.2"} if where == "association" else {f"{UID}.2", f"{UID}.3"}
            assert set(log.instances()) == stored

    run(scenario())


def test_a_source_is_read_no_faster_than_it_may_be_sent() -> None:
    """All its associations together; another source is not held up meanwhile."""

    async def scenario() -> None:
        rate = 2 * MiB
        sources = {"ct1": source(maximum_rate=rate)}
        log = MemoryLog()
        async with receiver(log, sources=sources) as (port, _):
            scus = [(await asked(port, "CT1"))[0] for _ in range(2)]
            begun = time.monotonic()
            for number, scu in enumerate(scus):
                uid = f"{UID}.{number}"
                scu.writer.write(c_store(uid, ct_data_set(uid, 4 * MiB)))
            other, _ = await asked(port, "OTHER")
            assert (await other.store(UID)).status == 0
            assert set(log.instances()) == {UID}  # before the others
            assert [(await scu.response(60)).status for scu in scus] == [0, 0]
            seconds = time.monotonic() - begun
            # 8 MiB less a second's burst and the last read of each, which is waited off after it was answered.
            assert seconds > 8 * MiB / rate - 1 - 2 * 512 * 1024 / rate - 0.1

    run(scenario())


def test_many_associations_of_a_slow_source_are_read_little_by_little() -> None:
    """None waits long for the others: a log may give an instance up that pauses, and its sender keep on trying in vain."""

    async def scenario() -> None:
        rate, bite = 256 * 1024, 4 * 1024
        async with receiver(MemoryLog(), sources={"ct1": source(maximum_rate=rate)}) as (port, server):
            first, *scus = [(await asked(port, "CT1"))[0] for _ in range(9)]
            first.writer.write(c_store(UID, ct_data_set(UID, MiB // 2)))
            await until(lambda: any(one._held & Held.RATE for one in server.connections))  # the burst is over
            for number, scu in enumerate(scus):
                scu.writer.write(c_store(f"{UID}.{number}", ct_data_set(f"{UID}.{number}", MiB // 8)))

            def read() -> list[int]:
                receiving = [operations(one).receiving for one in server.connections]
                return [each.size if each else 0 for each in receiving]

            await until(lambda: min(read()) >= 2 * bite)
            assert sorted(read())[-2] <= 6 * bite  # but for the first, which had the burst
            assert [(await scu.response()).status for scu in (first, *scus)] == [0] * 9

    run(scenario())


def test_what_comes_while_an_answer_is_due_counts_for_the_rate() -> None:
    """A peer that sends the next data set before the last one is answered is read no faster for it."""

    async def scenario() -> None:
        rate, count = 32 * 1024, 30
        log = MemoryLog()
        log.hold = True
        async with receiver(log, sources={"ct1": source(maximum_rate=rate)}) as (port, server):
            scu, _ = await asked(port, "CT1")
            (connection,) = server.connections
            message = c_store(UID, ct_data_set(UID, 3000))
            rest = message[-8:]
            begun = time.monotonic()
            await scu.send(message[:-8])
            for _ in range(count):
                await scu.send(rest)
                await until(lambda: connection._held & Held.ANSWERING)
                await scu.send(message[:-8])
                await until(lambda: connection._spared or connection._held & Held.RATE)
                log.acknowledge()
                assert (await scu.response()).status == 0
            assert time.monotonic() - begun > (count - 2) * len(message) / rate - 1 - 0.1

    run(scenario())


def test_a_rate_is_kept_over_time_and_allows_a_burst() -> None:
    """The sum of waits is what the rate asks for; silence is made up for by no more than a second."""
    meter = RateMeter(1000)
    now = 100.0
    assert meter.take(1000, now) == 0
    for _ in range(50):
        now += meter.take(500, now)
    assert now - 100.0 == pytest.approx(25.0)
    now += 3600
    assert meter.take(1000, now) == 0
    assert meter.take(1000, now) == pytest.approx(1.0)


def test_reloaded_sources_are_for_new_associations() -> None:
    """Open ones keep what they were granted, and count against the new limit."""

    async def scenario() -> None:
        async with receiver(MemoryLog(), sources={"ct1": source()}) as (port, server):
            scu, accepted = await asked(port, "CT1")
            assert accepted == "accepted"
            settings = ReceiverSettings(unknown_sources="refuse")
            await server.reload(settings, {"ct1": source(maximum_associations=1)})
            assert await answer(port, "CT1") == LIMIT
            assert await answer(port, "OTHER") == NOT_CALLING
            assert (await scu.store(UID)).status == 0
            await server.reload(settings, {})
            await scu.release()
            await until(lambda: not server.admission.associations)
            assert await answer(port, "CT1") == NOT_CALLING

    run(scenario())
