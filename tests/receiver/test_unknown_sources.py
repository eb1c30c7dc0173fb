"""What unknown sources send: acknowledged, marked for quarantine, and no more of it than their quota."""

from pathlib import Path

import pytest

from ingest.contract.records import Instance, Kind
from ingest.contract.refusals import read_refusals
from ingest.contract.settings import KiB, MiB, ReceiverSettings, Settings, SourceSettings
from ingest.contract.unknown_sources import read_taken, unknown_sources_file
from ingest.dimse.status import OUT_OF_RESOURCES
from ingest.errors import QuotaUsedUp
from ingest.receiver.telemetry import Telemetry
from ingest.receiver.unknown_sources import UnknownQuota
from tests.support.asynchronous import until
from tests.support.memory_log import MemoryLog
from tests.support.receiving import receiver, run
from tests.support.scu import Scu, associate, c_store, ct_data_set

KNOWN = {"known": SourceSettings.model_validate({"ae_titles": ("KNOWN",)})}
UID = "1.2.826.9"


def limits(**settings: object) -> ReceiverSettings:
    return ReceiverSettings.model_validate({"unknown_sources": "quarantine", **settings})


async def store(scu: Scu, number: int, size: int = 2_000) -> int:
    """Store one; the status of its answer."""
    uid = f"{UID}.{number}"
    return (await scu.store(uid, ct_data_set(uid, size))).status


def received(log: MemoryLog) -> dict[str, Instance]:
    return {uid: instance for uid, (instance, _) in log.instances().items()}


def test_only_what_unknown_sources_send_is_marked() -> None:
    """In one record and in parts; the mark is in the record that makes the instance received."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log, sources=KNOWN, unknown_sources="quarantine") as (port, _):
            for number, (title, size) in enumerate(
                [("KNOWN", 2_000), ("STRANGER", 2_000), ("STRANGER", 2 * MiB), ("KNOWN", 2 * MiB)]
            ):
                scu = await Scu.associated(port, calling=title)
                assert await store(scu, number, size) == 0
        marks = {uid[-1]: instance.unknown_source for uid, instance in received(log).items()}
        assert marks == {"0": False, "1": True, "2": True, "3": False}
        assert Kind.END in log.kinds()

    run(scenario())


def test_the_policy_accept_marks_nothing() -> None:
    """As it was."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log, sources=KNOWN) as (port, _):
            assert await store(await Scu.associated(port, calling="STRANGER"), 1) == 0
        assert [instance.unknown_source for instance in received(log).values()] == [False]

    run(scenario())


def test_beyond_the_quota_is_a700_and_others_go_on(tmp_path: Path) -> None:
    """By instances; the association stays, known sources notice nothing, and the reason has a remedy."""

    async def scenario() -> None:
        log = MemoryLog()
        telemetry = Telemetry(Settings(data=tmp_path))
        telemetry.refusals.start()
        async with receiver(
            log, telemetry=telemetry, sources=KNOWN, unknown_sources="quarantine", unknown_instances=2
        ) as (port, server):
            stranger = await Scu.associated(port, calling="STRANGER")
            other = await Scu.associated(port, calling="ANOTHER")
            known = await Scu.associated(port, calling="KNOWN")
            assert await store(stranger, 1) == 0
            assert await store(other, 2) == 0
            response = await stranger.store(f"{UID}.3")
            assert response.status == OUT_OF_RESOURCES
            assert response.error_comment == "quota of unknown sources is used up"
            assert await store(known, 4) == 0
            assert await store(other, 5) == OUT_OF_RESOURCES
            assert server.admission.sources.quota.used == 1.0
        await telemetry.refusals.close()
        assert len(received(log)) == 3
        refusals = read_refusals(tmp_path)
        assert {refusal.reason for refusal in refusals} == {"unknown-quota"}
        assert "receiver.unknown_bytes" in refusals[0].remedy

    run(scenario())


def test_bytes_count_as_they_come_whatever_is_under_way() -> None:
    """Two large ones at a time, each within the quota, are not both taken; nothing of the second is received."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log, sources=KNOWN, unknown_sources="quarantine", unknown_bytes=3 * MiB) as (
            port,
            server,
        ):
            quota = server.admission.sources.quota
            one = await Scu.associated(port, calling="STRANGER")
            two = await Scu.associated(port, calling="STRANGER")
            first = c_store(f"{UID}.1", ct_data_set(f"{UID}.1", 2 * MiB))
            half = 2 * len(first) // 3
            await one.send(first[:half])
            await until(lambda: quota.taken.bytes > MiB)
            assert await store(two, 2, 2 * MiB) == OUT_OF_RESOURCES
            await one.send(first[half:])
            assert (await one.response()).status == 0
            assert list(received(log)) == [f"{UID}.1"]
            assert (quota.taken.instances, quota.taken.bytes) == (1, received(log)[f"{UID}.1"].size)

    run(scenario())


def test_what_is_not_completed_is_given_back() -> None:
    """A peer that goes within a data set has put nothing into quarantine."""

    async def scenario() -> None:
        async with receiver(MemoryLog(), sources=KNOWN, unknown_sources="quarantine") as (port, server):
            quota = server.admission.sources.quota
            scu = await Scu.associated(port, calling="STRANGER")
            await scu.send(c_store(f"{UID}.1", ct_data_set(f"{UID}.1", 2 * MiB))[:MiB])
            await until(lambda: quota.taken.bytes > 0)
            scu.writer.close()
            await until(lambda: (quota.taken.instances, quota.taken.bytes) == (0, 0))

    run(scenario())


def test_what_is_refused_once_complete_is_given_back() -> None:
    """A data set that contradicts its command is not received: whoever sends such ones uses up nobody's quota."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log, sources=KNOWN, unknown_sources="quarantine") as (port, server):
            quota = server.admission.sources.quota
            scu = await Scu.associated(port, calling="STRANGER")
            for size in (2_000, 2 * MiB):
                assert (await scu.store(f"{UID}.1", ct_data_set(f"{UID}.2", size))).status == 0xA900
                assert (quota.taken.instances, quota.taken.bytes) == (0, 0)
            assert await store(scu, 3) == 0
            assert quota.taken.instances == 1

    run(scenario())


def test_strangers_may_not_ask_for_commitment() -> None:
    """Nothing is proved of what nobody has decided on, nor told of what others stored."""

    async def scenario() -> None:
        async with receiver(MemoryLog(), sources=KNOWN, unknown_sources="quarantine") as (_, server):
            sources = server.admission.sources
            assert not sources._strangers.commitment_scp

    run(scenario())


def test_strangers_have_so_many_associations() -> None:
    """Of all AE titles together; those of the settings are not counted."""

    async def scenario() -> None:
        async with receiver(MemoryLog(), sources=KNOWN, unknown_associations=2) as (port, _):
            kinds = []
            for title in ("ONE", "TWO", "THREE", "KNOWN"):
                scu = await Scu.connect(port)
                await scu.send(associate(calling=title))
                kinds.append((await scu.pdu())[0])
            assert kinds == [2, 2, 3, 2]

    run(scenario())


class Clock:
    """Seconds since 1970, as a test says."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def take(quota: UnknownQuota, *sizes: int) -> list[bool]:
    """Whether instances of these sizes are let in, one after the other."""
    found = []
    for size in sizes:
        try:
            quota.begin()
        except QuotaUsedUp:
            found.append(False)
            continue
        found.append(quota.take(size))
        if not found[-1]:
            quota.give_back(0, quota.period)
    return found


def test_a_kill_gives_nothing_twice(tmp_path: Path) -> None:
    """However often the receiver is killed, no more than the quota is taken within the period."""
    clock = Clock()
    settings = limits(unknown_instances=64, unknown_bytes=64 * KiB)
    total = 0
    for _ in range(200):
        quota = UnknownQuota(settings, tmp_path, clock)  # killed: never closed
        total += take(quota, 100, 700).count(True)
        assert read_taken(tmp_path).instances >= quota.taken.instances
        assert read_taken(tmp_path).bytes >= quota.taken.bytes
    assert 0 < total <= 64
    assert take(UnknownQuota(settings, tmp_path, clock), 1) == [False]
    clock.now += settings.unknown_period
    assert take(UnknownQuota(settings, tmp_path, clock), 1) == [True]


def test_a_stop_keeps_the_exact_count(tmp_path: Path) -> None:
    """What was written ahead is taken back."""
    clock = Clock()
    quota = UnknownQuota(limits(), tmp_path, clock)
    assert take(quota, 10, 20) == [True, True]
    assert read_taken(tmp_path).bytes > 30
    quota.close()
    taken = read_taken(tmp_path)
    assert (taken.instances, taken.bytes) == (2, 30)


def test_a_clock_set_back_neither_frees_nor_prolongs(tmp_path: Path) -> None:
    """The period counts from what the clock says then."""
    clock = Clock()
    quota = UnknownQuota(limits(unknown_instances=1, unknown_period=100), tmp_path, clock)
    assert take(quota, 10, 10) == [True, False]
    clock.now -= 50_000
    assert take(quota, 10) == [False]
    clock.now += 99
    assert take(quota, 10) == [False]
    clock.now += 1
    assert take(quota, 10) == [True]


def test_what_is_given_back_is_of_its_own_period() -> None:
    """A peer that keeps an upload open over the end of a period, and then goes, frees nothing of the next one."""

    async def scenario() -> None:
        clock = Clock()
        async with receiver(
            MemoryLog(), sources=KNOWN, unknown_sources="quarantine", unknown_bytes=3 * MiB
        ) as (port, server):
            quota = server.admission.sources.quota
            quota._now = clock
            one = await Scu.associated(port, calling="STRANGER")
            two = await Scu.associated(port, calling="STRANGER")
            await one.send(c_store(f"{UID}.1", ct_data_set(f"{UID}.1", 3 * MiB))[: 2 * MiB])
            await until(lambda: quota.taken.bytes > MiB)
            clock.now += server.settings.unknown_period
            assert await store(two, 2, 2 * MiB) == 0
            taken = quota.taken
            one.writer.close()
            await until(lambda: server.admission.associations == 1)
            assert quota.taken == taken
            assert await store(two, 3, 2 * MiB) == OUT_OF_RESOURCES

    run(scenario())


def test_what_cannot_be_counted_is_refused(tmp_path: Path) -> None:
    """A damaged count is a full one, and a folder that takes none lets nothing in."""
    clock = Clock()
    unknown_sources_file(tmp_path).write_text("no count")
    assert take(UnknownQuota(limits(), tmp_path, clock), 10) == [False]
    clock.now += limits().unknown_period
    assert take(UnknownQuota(limits(), tmp_path, clock), 10) == [True]
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    assert take(UnknownQuota(limits(), nowhere / "data", clock), 10) == [False]


@pytest.mark.parametrize("size", [0, 1])
def test_the_last_byte_of_the_quota_may_be_used(size: int) -> None:
    """And none beyond."""
    quota = UnknownQuota(limits(unknown_bytes=100), now=Clock())
    assert take(quota, 100 + size) == [not size]


def test_the_quota_changes_while_we_run() -> None:
    """SIGHUP: more lets more in, at once."""

    async def scenario() -> None:
        async with receiver(
            MemoryLog(), sources=KNOWN, unknown_sources="quarantine", unknown_instances=1
        ) as (port, server):
            scu = await Scu.associated(port, calling="STRANGER")
            assert [await store(scu, number) for number in range(2)] == [0, OUT_OF_RESOURCES]
            await server.reload(limits(unknown_instances=2), KNOWN)
            assert await store(scu, 2) == 0

    run(scenario())
