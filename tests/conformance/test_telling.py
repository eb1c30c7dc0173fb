"""Every path of an instance, an association and a commitment through one pipeline, and what is told of each.

Each has its count in the metrics, its line in the log and its row in the ledger, and there is nothing else in any of the
three; what was never received has no row. Faults that no sender can bring about (a damaged log, a codec that dies, a store
that is away) are driven where they are made: tests/workers, tests/log, tests/commitment.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ingest.contract.identifiers import TransactionId
from ingest.contract.refusals import read_refusals
from ingest.contract.settings import Settings
from ingest.dimse import CStoreRequest
from tests.support.acceptance import QUICK, Sent, run, settle
from tests.support.admin import Samples, admin_ports, metrics_text, of, parsed
from tests.support.console import Console, ask
from tests.support.element_trees import El
from tests.support.instances import SECONDARY_CAPTURE, SYNTAXES, ui
from tests.support.ledger_runs import live
from tests.support.ledgers import rows
from tests.support.pipeline import Pipeline
from tests.support.pixel_objects import encapsulated, fragments, native, noise
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
    n_action,
    p_data,
    pdv,
)
from workers.pixels.form import FrameForm

pytestmark = [pytest.mark.real, pytest.mark.timeout(300), pytest.mark.xdist_group("telling")]

ROOT = "1.2.826.0.1.3680043.9.11"
GRAY = FrameForm(40, 48, 1, 16, 12, False)
FIRST, COMMITTED, TWICE = f"{ROOT}.1", f"{ROOT}.2", f"{ROOT}.3"
SETTINGS = """
[receiver]
unknown_sources = "quarantine"
unknown_instances = 1
[commitment]
enabled = true
absent_grace = 0
[ledger]
interval = 0.1
[sources.ct-1]
ae_titles = ["TESTER"]
[sources.narrow]
ae_titles = ["NARROW"]
sop_classes = ["1.2.840.10008.5.1.4.1.1.7"]
maximum_instance_size = 1000
maximum_associations = 1
[sources.console]
ae_titles = ["CONSOLE"]
host = "127.0.0.1"
port = {port}
"""


@dataclass(frozen=True)
class Way:
    """An instance, and what is to be told of it."""

    sent: Sent
    outcome: str = "acknowledged"  # or why the receiver does not take it
    place: str = ""  # nowhere, if it is not taken
    reason: str = ""
    transcode: str = ""  # what became of its pixels, where it came that far
    calling: str = "TESTER"
    status: int = 0

    @property
    def source(self) -> str:
        return {"TESTER": "ct-1", "NARROW": "narrow"}.get(self.calling, "(other)")


def kept(sent: Sent, passage: str) -> Way:
    """Stored with the bytes it came in, for this reason."""
    return Way(sent, place="stored", reason=passage, transcode=passage)


def apart(sent: Sent, place: str, reason: str) -> Way:
    return Way(sent, place=place, reason=reason)


def secondary(number: int, data: bytes, syntax: str = EXPLICIT) -> Sent:
    return Sent(SECONDARY_CAPTURE, f"{ROOT}.{number}", data, syntax)


def gray(number: int, mode: str = "explicit", **changes: Any) -> Sent:
    uid = El(0x0008_0018, "UI", ui(f"{ROOT}.{number}"))
    data, _ = native(GRAY, [noise(GRAY)], mode, x00080018=uid, **changes)
    return secondary(number, data, SYNTAXES[mode])


def compressed(number: int, syntax: str) -> Sent:
    uid = El(0x0008_0018, "UI", ui(f"{ROOT}.{number}"))
    data, _ = encapsulated(GRAY, fragments([b"\xff\xd8\xff\xd9"]), syntax, x00080018=uid)
    return secondary(number, data, syntax)


def bad(number: int, change: Callable[[bytes], bytes], syntax: str = EXPLICIT) -> Sent:
    return Sent(CT, f"{ROOT}.{number}", change(ct_data_set(f"{ROOT}.{number}")), syntax)


def paths() -> list[Way]:
    """In the order in which they are sent."""
    first = Sent(CT, FIRST, ct_data_set(FIRST))
    pixels = first.data[:-1] + bytes([first.data[-1] ^ 1])
    study = b"1.2.3.4\0"
    found = [
        kept(first, "small"),
        kept(Sent(CT, COMMITTED, ct_data_set(COMMITTED)), "small"),
        kept(Sent(CT, TWICE, ct_data_set(TWICE)), "small"),
        Way(Sent(CT, TWICE, ct_data_set(TWICE)), place="duplicate"),
        Way(gray(10), place="stored", transcode="transcoded"),
        Way(gray(10), place="duplicate"),
        Way(first, place="duplicate"),
        apart(first._replace(data=pixels), "conflict", "pixels"),
        apart(first._replace(data=first.data.replace(b"Doe^Jane", b"Doe^John")), "conflict", "identity"),
        apart(first._replace(data=first.data.replace(b"CS\2\0CT", b"CS\2\0MR")), "conflict", "elements"),
        # Each reason for quarantine that bytes on the wire can bring about.
        apart(bad(20, lambda data: data[:-100]), "quarantined", "truncated"),
        apart(bad(21, lambda data: data.replace(study, b"../../x\0")), "quarantined", "identity"),
        apart(bad(22, lambda data: data + b"\2\0\x10\0UI\4\x001.2\0"), "quarantined", "group-0002"),
        apart(bad(23, lambda data: data + b"\0\0\2\0UI\4\x001.2\0"), "quarantined", "group-0000"),
        apart(bad(24, lambda data: data + b"\xfc\xff\xfc\xff??\0\0"), "quarantined", "structure"),
        # What keeps its bytes, and why.
        kept(gray(30, x7FE00010=None), "no-pixels"),
        kept(gray(31, x00280102=El(0x0028_0102, "US", b"\x0f\0")), "high-bit"),
        kept(gray(32, x00280010=None), "description"),
        kept(gray(33, x60000102=El(0x6000_0102, "US", b"\x0c\0")), "overlay"),
        kept(gray(34, mode="big"), "big-endian"),
        kept(gray(35, xFFFAFFFA=El(0xFFFA_FFFA, "SQ", [[]])), "signature"),
        kept(gray(36, x00280008=El(0x0028_0008, "IS", b"2 ")), "length"),
        kept(gray(37, x00280004=El(0x0028_0004, "CS", b"YBR_FULL_422")), "ybr-422"),
        kept(compressed(40, "1.2.840.10008.1.2.4.50"), "lossy"),
        kept(compressed(41, "1.2.840.10008.1.2.4.70"), "jpeg-lossless"),
        kept(compressed(42, "1.2.840.10008.1.2.4.80"), "jpeg-ls"),
        kept(compressed(43, "1.2.840.10008.1.2.4.90"), "already-jpeg2000"),
        kept(compressed(44, "1.2.840.10008.1.2.4.201"), "htj2k"),
        kept(compressed(45, "1.2.840.10008.1.2.5"), "rle"),
        # What the receiver does not take.
        Way(bad(50, lambda data: data.replace(b".50", b".99")), "refused", status=0xA900),
        Way(Sent(CT, "1.x", ct_data_set("1.x")), "refused", status=0x0117),
        Way(gray(51), "instance-too-long", calling="NARROW", status=0xA700),
    ]
    stranger = Way(first, place="quarantined", reason="unknown-source", calling="STRANGER")
    return [*found, stranger, Way(first, "unknown-quota", calling="STRANGER", status=0xA700)]


PATHS = paths()
# Requests for associations that are refused, and why.
REFUSED = [
    (associate(called="WRONG"), "called-ae-title", "ct-1"),
    (associate().replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.9"), "application-context", "ct-1"),
    (associate()[:6] + b"\0\2" + associate()[8:], "protocol-version", "ct-1"),
    (associate(((SECONDARY_CAPTURE, (EXPLICIT,)),), calling="NARROW"), "too-many-associations", "narrow"),
]
# Of one association that is accepted, with its first context.
CONTEXTS = {"transfer-syntax": (CT, ("1.2.3",)), "service": ("1.2.840.10008.5.1.4.1.2.2.1", (IMPLICIT,)),
            "sop-class": ("1.2.3.5", (IMPLICIT,))}  # fmt: skip


async def send(port: int) -> None:
    for path in PATHS:
        scu = await Scu.connect(port)
        await scu.send(associate(((path.sent.sop_class, (path.sent.syntax,)),), calling=path.calling))
        assert (await scu.pdu(120))[0] == 2
        await scu.send(c_store(path.sent.uid, path.sent.data, sop_class=path.sent.sop_class))
        assert (await scu.response(120)).status == path.status, path
        await scu.release()
    only = await Scu.connect(port)  # of NARROW, which may have one
    await only.send(associate(((CT, (EXPLICIT,)),), calling="NARROW"))
    assert (await only.pdu(120))[0] == 2
    for request, _, _ in REFUSED:
        scu = await Scu.connect(port)
        await scu.send(request)
        assert (await scu.pdu(120))[0] == 3
        await scu.close()
    await only.release()
    scu = await Scu.connect(port)
    await scu.send(associate(((CT, (EXPLICIT,)), *CONTEXTS.values())))
    assert (await scu.pdu(120))[0] == 2
    begun = p_data(CStoreRequest(1, CT, f"{ROOT}.60").encode(), command=True)
    await scu.send(begun + pdv(ct_data_set(f"{ROOT}.60")[:1000], command=False, last=False))
    await scu.send(ABORT)
    await scu.close()
    await Scu.close_all()


async def ask_and_go(port: int) -> None:
    """A console that asks for commitment and cannot be reached when the report is ready."""
    scu = await Scu.connect(port)
    await scu.send(
        associate(((CT, (EXPLICIT,)), (CT, (IMPLICIT,)), (COMMITMENT, (EXPLICIT,))), calling="CONSOLE")
    )
    assert (await scu.pdu(120))[0] == 2
    await scu.send(n_action([COMMITTED, f"{ROOT}.98"], transaction_uid="2.25.2"))
    await scu.message(120)
    await scu.send(ABORT)
    await scu.close()
    await Scu.close_all()


def until(condition: Callable[[], object], pipeline: Pipeline) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, pipeline.log.read_text()[-4000:]
        time.sleep(0.1)


class Told(NamedTuple):
    """All that was said."""

    metrics: Samples
    retrying: Samples  # while a report could not be delivered
    lines: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    transactions: list[dict[str, Any]]
    proofs: list[dict[str, Any]]
    data: Path


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("telling")
    data, console = folder / "data", Console()
    config = folder / "settings.toml"
    config.write_text(SETTINGS.format(port=console.port))
    environment = QUICK | {
        "DICOM_INGEST_CONFIG": str(config),
        "DICOM_INGEST_TELEMETRY__FORMAT": "json",
        "DICOM_INGEST_ADMIN__LISTEN": "127.0.0.1:0",
        "DICOM_INGEST_LEDGER__ENABLED": "true",
    }
    with Pipeline(data, workers=1, environment=environment) as pipeline:
        asyncio.run(send(pipeline.port))
        settle(pipeline)
        until(lambda: {"receiver", "worker-0", "ledger"} <= admin_ports(pipeline.log).keys(), pipeline)
        ports = admin_ports(pipeline.log)
        with console.listening(), console.association(pipeline.port) as association:
            ask(association, [TWICE, COMMITTED], "2.25.1")  # FIRST has a conflict
            assert console.report() == ({TWICE, COMMITTED}, {})
        asyncio.run(ask_and_go(pipeline.port))
        key = of("commitments_open", state="retrying")
        until(lambda: parsed(metrics_text(ports["receiver"])).get(key), pipeline)
        retrying = parsed(metrics_text(ports["receiver"]))
        with console.listening():
            assert (
                run(pipeline, "commitments", "retry", TransactionId.of("CONSOLE", "2.25.2").hex()).code == 0
            )
            assert console.report() == ({COMMITTED}, {f"{ROOT}.98": 0x0112})
            until(lambda: pipeline.log.read_text().count('"commitment reported"') == 2, pipeline)
        read = of("ledger_records_total")
        entered = len([path for path in PATHS if path.place])
        until(lambda: parsed(metrics_text(ports["ledger"]))[read] >= entered, pipeline)
        metrics: Samples = {}
        for name in ("receiver", "worker-0", "ledger"):
            page = parsed(metrics_text(ports[name]))
            metrics |= {key: value for key, value in page.items() if key[0].startswith("dicom_ingest_")}
    lines = [json.loads(line) for line in pipeline.log.read_text().splitlines() if line.startswith("{")]
    ledger = live(Settings.model_validate({"data": data}))
    fates, transactions, proofs = (
        rows(ledger, f"SELECT * FROM {table}") for table in ("fates", "transactions", "proofs")
    )
    ledger.close()
    return Told(metrics, retrying, lines, fates, transactions, proofs, data)


def counts(told: Told, metric: str) -> dict[tuple[str, ...], float]:
    """All samples of a counter that is not 0, by the values of its labels in the order of their names."""
    return {
        tuple(value for _, value in labels): number
        for (name, labels), number in told.metrics.items()
        if name == f"dicom_ingest_{metric}" and number
    }


def events(told: Told, name: str) -> list[dict[str, Any]]:
    return [line for line in told.lines if line["event"] == name]


def test_instances_are_counted_once_each_and_nothing_else(told: Told) -> None:
    """Received or not, and why; placed, where and why; transcoded, or why not."""
    received = Counter((path.outcome, path.source) for path in PATHS) + Counter({("interrupted", "ct-1"): 1})
    assert counts(told, "received_instances_total") == received
    placed = [path for path in PATHS if path.place]
    assert counts(told, "placed_instances_total") == Counter((p.place, p.reason, p.source) for p in placed)
    assert counts(told, "transcodes_total") == Counter((p.transcode,) for p in PATHS if p.transcode)
    acknowledged = Counter[tuple[str, ...]]()
    for path in placed:
        acknowledged[path.source,] += 1
    assert counts(told, "cstore_seconds_count") == acknowledged
    assert counts(told, "placed_after_seconds_count") == acknowledged
    assert counts(told, "log_append_seconds_count") == {(): len(placed)}
    # `ct_data_set` and `native` have one study, and two patients.
    assert counts(told, "ledger_alarms_total") == {("study-of-two-patients",): 1}


def test_associations_are_counted_once_each_and_nothing_else(told: Told) -> None:
    """Accepted, refused and why; their contexts; how they ended."""
    accepted = Counter(("accepted", path.source) for path in PATHS)
    accepted += Counter({("accepted", "narrow"): 1, ("accepted", "ct-1"): 1, ("accepted", "console"): 2})
    refused = Counter((reason, source) for _, reason, source in REFUSED)
    reports = counts(told, "associations_total")
    assert reports == accepted + refused
    assert counts(told, "presentation_contexts_refused_total") == {
        **{(reason, "ct-1"): 1 for reason in CONTEXTS},
        ("sop-class-of-source", "narrow"): 1,
    }
    ends = counts(told, "associations_ended_total")
    assert ends["aborted-by-peer", "ct-1"] == 1
    assert ends["released", "ct-1"] == accepted["accepted", "ct-1"] - 1
    assert sum(ends.values()) == accepted.total()


def test_each_association_has_one_line_and_each_exception_one(told: Told) -> None:
    """Correlated by the association's id, an instance that is set apart also by its digest."""
    ended = events(told, "association ended")
    by_id = {line["association"]: line for line in ended}
    assert len(by_id) == len(ended) == len(PATHS) + 4
    contexts = Counter(line["contexts_refused"] for line in ended)
    assert (contexts[1], contexts[len(CONTEXTS)]) == (1, 1)
    refused = [path for path in PATHS if not path.place]
    not_taken = events(told, "instance not taken")
    assert [line["reason"] for line in not_taken] == [path.outcome for path in refused]
    for line in not_taken:
        assert by_id[line["association"]]["refused"] == 1
    assert [line["reason"] for line in events(told, "association refused")] == [
        word for _, word, _ in REFUSED
    ]

    set_apart = Counter(
        (p.place, p.reason, p.sent.digest) for p in PATHS if p.place in {"conflict", "quarantined"}
    )
    lines = events(told, "upload set apart")
    assert Counter((line["place"], line["reason"], line["source_digest"]) for line in lines) == set_apart
    for line in lines:
        assert by_id[line["association"]]["calling_ae_title"] == line["calling_ae_title"]
    warnings = {line["event"] for line in told.lines if line["level"] in {"warning", "error", "critical"}}
    assert warnings == {
        "association refused",
        "source refused",
        "instance not taken",
        "upload set apart",
        "the ledger raises an alarm",
        "a commitment report was not delivered",
    }


def test_each_received_instance_has_one_row(told: Told) -> None:
    """At its place with the reason, of its source, by its digest; of a stranger, too; none of what was not taken."""
    expected = Counter(
        (p.sent.uid, p.place, p.reason, p.sent.digest, "" if p.source == "(other)" else p.source, p.calling)
        for p in PATHS
        if p.place
    )
    assert expected == Counter(
        (row["sop_instance_uid"], row["place"], row["reason"], row["source_digest"], row["source"],
         row["calling_ae_title"])
        for row in told.rows
    )  # fmt: skip
    assert all(row["size"] and row["received_at"] for row in told.rows)


def test_what_is_refused_is_told_with_the_setting_to_change(told: Told) -> None:
    """All of it, by `status --rejected`."""
    found = Counter(
        (str(one.refused), one.reason) for one in read_refusals(told.data) for _ in range(one.times)
    )
    expected: Sequence[tuple[str, str]] = [
        *(("instance", path.outcome) for path in PATHS if not path.place),
        *(("association", reason) for _, reason, _ in REFUSED),
        *(("context", reason) for reason in (*CONTEXTS, "sop-class-of-source")),
    ]
    assert found == Counter(expected)
    assert all(one.remedy for one in read_refusals(told.data))


def test_a_commitment_is_told_from_request_to_report(told: Told) -> None:
    """One that succeeds; one that fails in part and waits for its console: state and age, lines, rows, marks."""
    assert {
        key: value for key, value in told.retrying.items() if key[0] == "dicom_ingest_commitments_open"
    } == {of("commitments_open", state="retrying"): 1}
    assert told.retrying[of("commitment_oldest_seconds")] > 0
    assert counts(told, "commitments_open") == {}
    assert told.metrics[of("commitment_oldest_seconds")] == 0
    for event in ("commitment request accepted", "commitment decided", "commitment reported"):
        assert len(events(told, event)) == 2, event
    reported = [(line["committed"], line["failed"]) for line in events(told, "commitment reported")]
    assert reported == [(2, 0), (1, 1)]
    found = {
        row["transaction_uid"]: (row["source"], row["closed_how"], row["committed"], row["failed"])
        for row in told.transactions
    }
    assert found == {"2.25.1": ("console", "reported", 2, 0), "2.25.2": ("console", "reported", 1, 1)}
    findings = Counter((row["sop_instance_uid"], row["finding"] == 0) for row in told.proofs)
    assert findings == {(TWICE, True): 1, (COMMITTED, True): 2, (f"{ROOT}.98", False): 1}
    committed = Counter((row["sop_instance_uid"], row["place"]) for row in told.rows if row["committed"])
    assert committed == {(TWICE, "stored"): 1, (TWICE, "duplicate"): 1, (COMMITTED, "stored"): 1}
