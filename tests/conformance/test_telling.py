"""Every path of an instance, an association and a commitment through one pipeline, and what is told of each.

Each has its count in the metrics, its line in the log and its row in the ledger, and there is nothing else in any of the
three; what was never received has no row. Faults that no sender can bring about (a damaged log, a codec that dies) are driven in
`test_telling_faults`, which also sees to it that no reason is left out; other ends of associations in `test_telling_endings`, of
commitments in `test_telling_commitments`; all refusals in tests/receiver.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ingest.contract.commitments import Finding
from ingest.contract.identifiers import TransactionId
from ingest.contract.refusals import read_refusals
from ingest.contract.settings import Settings
from ingest.dimse import CStoreRequest
from tests.support.acceptance import QUICK, run, settle
from tests.support.admin import Samples, admin_ports, metrics_text, of, parsed
from tests.support.console import Console, ask
from tests.support.instances import SECONDARY_CAPTURE
from tests.support.ledger_runs import live
from tests.support.ledgers import rows
from tests.support.pipeline import Pipeline
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
    run_closing,
)
from tests.support.telling import (
    COMMITTED,
    FIRST,
    OF_ANOTHER_CLASS,
    ROOT,
    ROTTEN,
    TWICE,
    counts,
    events,
    paths,
)
from workers.ledger.inserts import ALARMS

pytestmark = [pytest.mark.real, pytest.mark.timeout(300), pytest.mark.xdist_group("telling")]

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
    begun = p_data(CStoreRequest(1, CT, f"{ROOT}.97").encode(), command=True)
    await scu.send(begun + pdv(ct_data_set(f"{ROOT}.97")[:1000], command=False, last=False))
    await scu.send(ABORT)
    await scu.close()


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


def spoil(path: Path) -> None:
    """Flip a bit of the last byte."""
    path.chmod(0o640)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


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
        run_closing(send(pipeline.port))
        settle(pipeline)
        until(lambda: {"receiver", "worker-0", "ledger"} <= admin_ports(pipeline.log).keys(), pipeline)
        ports = admin_ports(pipeline.log)
        with console.listening(), console.association(pipeline.port) as association:
            ask(association, [TWICE, COMMITTED], "2.25.1")  # FIRST has a conflict
            assert console.report() == ({TWICE, COMMITTED}, {})
        run_closing(ask_and_go(pipeline.port))
        key = of("commitments_open", state="retrying")
        until(lambda: parsed(metrics_text(ports["receiver"])).get(key), pipeline)
        retrying = parsed(metrics_text(ports["receiver"]))
        with console.listening():
            assert (
                run(pipeline, "commitments", "retry", TransactionId.of("CONSOLE", "2.25.2").hex()).code == 0
            )
            assert console.report() == ({COMMITTED}, {f"{ROOT}.98": 0x0112})
        spoil(pipeline.objects()[ROTTEN])
        with console.listening(), console.association(pipeline.port) as association:
            ask(association, [FIRST, OF_ANOTHER_CLASS, ROTTEN], "2.25.3")
            assert console.report() == (set(), {FIRST: 0x0110, OF_ANOTHER_CLASS: 0x0119, ROTTEN: 0x0110})
            until(lambda: pipeline.log.read_text().count('"commitment reported"') == 3, pipeline)
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


def test_instances_are_counted_once_each_and_nothing_else(told: Told) -> None:
    """Received or not, and why; placed, where and why; transcoded, or why not."""
    received = Counter((path.outcome, path.source) for path in PATHS) + Counter({("interrupted", "ct-1"): 1})
    assert counts(told.metrics, "received_instances_total") == received
    placed = [path for path in PATHS if path.place]
    assert counts(told.metrics, "placed_instances_total") == Counter(
        (p.place, p.reason, p.source) for p in placed
    )
    assert counts(told.metrics, "transcodes_total") == Counter((p.transcode,) for p in PATHS if p.transcode)
    acknowledged = Counter[tuple[str, ...]]()
    for path in placed:
        acknowledged[path.source,] += 1
    assert counts(told.metrics, "cstore_seconds_count") == acknowledged
    assert counts(told.metrics, "placed_after_seconds_count") == acknowledged
    assert counts(told.metrics, "log_append_seconds_count") == {(): len(placed)}
    assert told.metrics[of("log_backlog_instances")] == told.metrics[of("log_oldest_seconds")] == 0
    # `ct_data_set` and `native` have one study, and two patients.
    assert counts(told.metrics, "ledger_alarms_total") == {(kind,): 1 for kind in ALARMS}
    alarms = Counter(line["alarm"] for line in events(told.lines, "the ledger raises an alarm"))
    assert alarms == dict.fromkeys(ALARMS, 1)


def test_associations_are_counted_once_each_and_nothing_else(told: Told) -> None:
    """Accepted, refused and why; their contexts; how they ended."""
    accepted = Counter(("accepted", path.source) for path in PATHS)
    accepted += Counter({("accepted", "narrow"): 1, ("accepted", "ct-1"): 1, ("accepted", "console"): 3})
    refused = Counter((reason, source) for _, reason, source in REFUSED)
    reports = counts(told.metrics, "associations_total")
    assert reports == accepted + refused
    assert counts(told.metrics, "presentation_contexts_refused_total") == {
        **{(reason, "ct-1"): 1 for reason in CONTEXTS},
        ("sop-class-of-source", "narrow"): 1,
    }
    ends = counts(told.metrics, "associations_ended_total")
    assert ends["aborted-by-peer", "ct-1"] == 1
    assert ends["released", "ct-1"] == accepted["accepted", "ct-1"] - 1
    assert sum(ends.values()) == accepted.total()


def test_each_association_has_one_line_and_each_exception_one(told: Told) -> None:
    """Correlated by the association's id, an instance that is set apart also by its digest."""
    ended = events(told.lines, "association ended")
    by_id = {line["association"]: line for line in ended}
    assert len(by_id) == len(ended) == len(PATHS) + 5
    contexts = Counter(line["contexts_refused"] for line in ended)
    assert (contexts[1], contexts[len(CONTEXTS)]) == (1, 1)
    refused = [path for path in PATHS if not path.place]
    not_taken = events(told.lines, "instance not taken")
    assert [line["reason"] for line in not_taken] == [path.outcome for path in refused]
    for line in not_taken:
        assert by_id[line["association"]]["refused"] == 1
    assert [line["reason"] for line in events(told.lines, "association refused")] == [
        word for _, word, _ in REFUSED
    ]

    set_apart = Counter(
        (p.place, p.reason, p.sent.digest) for p in PATHS if p.place in {"conflict", "quarantined"}
    )
    lines = events(told.lines, "upload set apart")
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
        "commitment refused: set apart",
        "damaged object set aside",
        "stored instances are damaged or set apart and were not committed; see `dicom-ingest commitments show`",
    }


def test_each_received_instance_has_one_row(told: Told) -> None:
    """At its place with the reason, of its source, by its digest; of a stranger, too; none of what was not taken."""
    expected = Counter(
        (p.sent.uid, p.place, p.reason, p.sent.digest, "" if p.source == "(other)" else p.source, p.calling)
        for p in PATHS
        if p.place and p.sent.uid != ROTTEN
    )
    (rotten,) = (path.sent for path in PATHS if path.sent.uid == ROTTEN)
    expected[ROTTEN, "quarantined", "", rotten.digest, "ct-1", "TESTER"] += 1  # set aside since
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
    """One that succeeds, one that fails in part and waits for its console, one that fails: state and age, lines, rows, marks."""
    assert {
        key: value for key, value in told.retrying.items() if key[0] == "dicom_ingest_commitments_open"
    } == {of("commitments_open", state="retrying"): 1}
    assert told.retrying[of("commitment_oldest_seconds")] > 0
    assert counts(told.metrics, "commitments_open") == {}
    assert told.metrics[of("commitment_oldest_seconds")] == 0
    for event in ("commitment request accepted", "commitment decided", "commitment reported"):
        assert len(events(told.lines, event)) == 3, event
    reported = [(line["committed"], line["failed"]) for line in events(told.lines, "commitment reported")]
    assert reported == [(2, 0), (1, 1), (0, 3)]
    found = {
        row["transaction_uid"]: (row["source"], row["closed_how"], row["committed"], row["failed"])
        for row in told.transactions
    }
    assert found == {
        "2.25.1": ("console", "reported", 2, 0),
        "2.25.2": ("console", "reported", 1, 1),
        "2.25.3": ("console", "reported", 0, 3),
    }
    findings = Counter((row["sop_instance_uid"], Finding(row["finding"])) for row in told.proofs)
    assert findings == {
        (TWICE, Finding.PROVED): 1,
        (COMMITTED, Finding.PROVED): 2,
        (f"{ROOT}.98", Finding.ABSENT): 1,
        (FIRST, Finding.SET_APART): 1,
        (OF_ANOTHER_CLASS, Finding.CLASS_MISMATCH): 1,
        (ROTTEN, Finding.DAMAGED): 1,
    }
    # A store that is away, and what is not found out in time: `test_telling_commitments`.
    assert {finding for _, finding in findings} == {*Finding} - {Finding.UNAVAILABLE, Finding.UNDECIDED}
    committed = Counter((row["sop_instance_uid"], row["place"]) for row in told.rows if row["committed"])
    assert committed == {(TWICE, "stored"): 1, (TWICE, "duplicate"): 1, (COMMITTED, "stored"): 1}
