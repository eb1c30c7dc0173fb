"""The alert rules speak of metrics, labels and values that exist, each has a runbook, and each fires when it should."""

import importlib.metadata
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingest.association import Rejection
from ingest.cli.group import ENTRY_POINTS
from ingest.commitment.transactions import State
from ingest.contract.monitoring.instruments import Histogram
from ingest.contract.monitoring.sources import OTHER
from ingest.contract.records import Place
from ingest.contract.settings_keys import any_name, settings_fields
from ingest.receiver import reasons
from tests.support.instruments import PREFIX, instruments, sample_names
from workers.errors import Reason
from workers.stages.passage import Passage

RULES = Path(__file__).resolve().parents[2] / "k8s" / "alerts.yaml"
PROMTOOL = shutil.which("promtool")
METRIC = re.compile(r"(dicom_ingest_[a-z0-9_]+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'([a-z_]+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\bby \(([^)]*)\)")
VALUES = {
    "place": {place.value for place in Place},
    "state": {state.value for state in State} | {"in-work", "put-by"},
    "outcome": {"acknowledged", "interrupted"},
    "source": {OTHER},
    "reason": {reason.value for reason in Reason},
    "result": {"accepted", "transcoded"} | {passage.value for passage in Passage},
}  # of those labels that rules choose by

# For each rule a series, as promtool writes it, that makes it fire two hours later (a week for the silent source).
FIRES = {
    "DicomIngestNotReady": {"ready": "0+0x150"},
    "DicomIngestNotAnswering": {"up": "1+0x20 0+0x130", 'build_info{version="1"}': "1+0x20"},
    "DicomIngestRefusing": {"log_refusing": "1+0x150"},
    "DicomIngestInstancesRefused": {'received_instances_total{source="ct-1",outcome="out-of-resources"}': "0+1x150"},
    "DicomIngestAssociationsRefused": {'associations_total{source="(other)",result="called-ae-title"}': "0+1x150"},
    "DicomIngestUnknownSources": {
        'placed_instances_total{source="(other)",place="quarantined",reason="unknown-source"}': "0+1x150"
    },
    "DicomIngestUnknownQuota": {"unknown_quota_used_ratio": "0.85+0x150"},
    "DicomIngestLogSlow": {
        'log_append_seconds_bucket{le="2.5"}': "0+0x150", 'log_append_seconds_bucket{le="10.0"}': "0+9x150",
        'log_append_seconds_bucket{le="+Inf"}': "0+9x150",
    },
    "DicomIngestLogFilling": {"log_backlog_bytes": "80+0x150", "log_maximum_bytes": "100+0x150"},
    "DicomIngestRetentionNear": {"log_retention_used_ratio": "0.6+0x150"},
    "DicomIngestBufferFull": {"buffer_used_bytes": "90+0x150", "buffer_budget_bytes": "100+0x150"},
    "DicomIngestEventLoopSlow": {
        'event_loop_lag_seconds_bucket{le="0.5"}': "0+0x150", 'event_loop_lag_seconds_bucket{le="1.0"}': "0+9x150",
        'event_loop_lag_seconds_bucket{le="+Inf"}': "0+9x150",
    },
    "DicomIngestSourceSilent": {
        'received_instances_total{source="ct-1",outcome="acknowledged"}': "0+9x300 2700+0x10000"
    },
    "DicomIngestOldestUpload": {"oldest_upload_seconds": "1000+60x150"},
    "DicomIngestLogNotRead": {"log_oldest_seconds": "1000+60x150", "oldest_upload_seconds": "0+0x150"},
    "DicomIngestUploadsPutOff": {"placements_put_off_total": "0+1x150"},
    "DicomIngestQuarantine": {
        'placed_instances_total{source="ct-1",place="quarantined",reason="truncated"}': "0+1x150"
    },
    "DicomIngestConflicts": {'placed_instances_total{source="ct-1",place="conflict",reason="pixels"}': "0+1x150"},
    "DicomIngestCodecRestarts": {"codec_restarts_total": "0+1x150"},
    "DicomIngestUnproved": {'transcodes_total{result="unproved"}': "0+1x150"},
    "DicomIngestCommitmentUndeliverable": {'commitments_open{state="undeliverable"}': "1+0x150"},
    "DicomIngestAuditLost": {'audit_dropped_total{reason="size"}': "0+5x150"},
    "DicomIngestAuditWaiting": {"audit_waiting_bytes": "1000+100x150"},
    "DicomIngestLedgerAlarm": {'ledger_alarms_total{reason="study-of-two-patients"}': "0+1x150"},
    "DicomIngestLedgerBehind": {"ledger_behind_seconds": "0+60x150"},
    "DicomIngestLedgerLost": {"ledger_lost_total": "0+1x150"},
    "DicomIngestCommitmentOld": {"commitment_oldest_seconds": "8000+60x150"},
}  # fmt: skip
STAYS = {"process_start_time_seconds": "9+0x150"}
# What happens once and for the first time begins its series at 1, after a process has shown none of it for an hour and more, or as
# soon as a process is there. What a ledger finds at its start is in its number before anybody has seen another.
FIRST = {
    "DicomIngestUnknownSources": {
        'placed_instances_total{source="(other)",place="quarantined",reason="unknown-source"}': "_x100 1+0x50",
        **STAYS,
    },
    "DicomIngestQuarantine": {
        'placed_instances_total{source="ct-1",place="quarantined",reason="truncated"}': "_x100 1+0x50",
        **STAYS,
    },
    "DicomIngestConflicts": {
        'placed_instances_total{source="ct-1",place="conflict",reason="pixels"}': "_x100 1+0x50",
        **STAYS,
    },
    "DicomIngestUnproved": {'transcodes_total{result="unproved"}': "_x100 1+0x50", **STAYS},
}
BORN = {
    "DicomIngestQuarantine": {
        'placed_instances_total{source="ct-1",place="quarantined",reason="truncated"}': "_x100 1+0x50",
        "process_start_time_seconds": "_x99 5940+0x50",
    },
    "DicomIngestLedgerAlarm": {'ledger_alarms_total{reason="study-of-two-patients"}': "3+0x20 _x80 4+0x50"},
    "DicomIngestLedgerLost": {"ledger_lost_total": "0+0x20 _x80 1+0x50"},
}
CALM = {
    "process_start_time_seconds": "9+0x150",
    "up": "1+0x70 0+0x3 1+0x77",
    'build_info{version="1"}': "1+0x150",
    "ready": "1+0x150",
    "log_refusing": "0+0x150",
    'received_instances_total{source="ct-1",outcome="acknowledged"}': "0+9x11000",
    'received_instances_total{source="ct-1",outcome="interrupted"}': "0+1x150",
    'associations_total{source="ct-1",result="accepted"}': "0+1x150",
    'log_append_seconds_bucket{le="0.01"}': "0+9x150",
    'log_append_seconds_bucket{le="+Inf"}': "0+9x150",
    "unknown_quota_used_ratio": "0.1+0x150",
    'placed_instances_total{source="(other)",place="quarantined",reason="unknown-source"}': "7+0x150",
    "log_backlog_bytes": "10+0x150",
    "log_maximum_bytes": "100+0x150",
    "log_retention_used_ratio": "0.1+0x150",
    "buffer_used_bytes": "10+0x150",
    "buffer_budget_bytes": "100+0x150",
    "oldest_upload_seconds": "3+0x150",
    "log_oldest_seconds": "3+0x150",
    "placements_put_off_total": "4+0x150",
    'placed_instances_total{source="ct-1",place="stored",reason=""}': "0+9x150",
    'placed_instances_total{source="ct-1",place="quarantined",reason="seal"}': "7+0x150",
    "codec_restarts_total": "2+0x150",
    'transcodes_total{result="transcoded"}': "0+9x150",
    'commitments_open{state="waiting"}': "5+0x150",
    "commitment_oldest_seconds": "60+0x150",
    'audit_dropped_total{reason="size"}': "7+0x150",
    "audit_waiting_bytes": "900-9x100 0+0x50",
    'ledger_alarms_total{reason="series-in-two-studies"}': "3+0x150",
    "ledger_behind_seconds": "1+0x150",
    "ledger_lost_total": "2+0x150",
}

# The same where Prometheus itself was away for a quarter of an hour, an hour ago.
UNWATCHED = dict.fromkeys(
    (
        'placed_instances_total{source="(other)",place="quarantined",reason="unknown-source"}',
        'placed_instances_total{source="ct-1",place="quarantined",reason="seal"}',
        'placed_instances_total{source="ct-1",place="conflict",reason="pixels"}',
        'transcodes_total{result="unproved"}',
        'ledger_alarms_total{reason="series-in-two-studies"}',
        "ledger_lost_total",
        "process_start_time_seconds",
    ),
    "7+0x50 _x16 7+0x90",
)
# A source that has sent all of its day between two looks of Prometheus, the first after a restart of the receiver.
RESTARTED = {
    'received_instances_total{source="ct-1",outcome="acknowledged"}': "0+9x300 2700+0x9380 _x400 300+0x500"
}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_names_are_conventional() -> None:
    """Base units, `_total` for counters alone, no name twice; labels are few and fixed."""
    descriptions = [instrument.description for instrument in instruments()]
    names = [description.name for description in descriptions]
    assert len(names) == len(set(names))
    for instrument in instruments():
        name, sentence, labels = instrument.description
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
        assert sentence.endswith(".")
        counts = not isinstance(instrument, Histogram) and type(instrument).__name__ != "Gauge"
        assert name.endswith("_total") == counts, name
        assert not isinstance(instrument, Histogram) or name.endswith("_seconds")
        assert set(labels) <= {
            "source",
            "result",
            "outcome",
            "reason",
            "place",
            "stage",
            "state",
            "end",
            "version",
        }


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_each_rule_is_whole(rule: dict[str, Any]) -> None:
    """What it means, what to do, how urgent it is; and only metrics, labels and values that there are."""
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"DicomIngest[A-Z][A-Za-z]+", rule["alert"])
    assert rule["labels"] in ({"severity": "page"}, {"severity": "ticket"})
    assert rule["annotations"].keys() == {"summary", "runbook"}
    assert re.match(r"Means: .+ Do: .+", rule["annotations"]["runbook"], re.DOTALL)
    names = sample_names()
    used = METRIC.findall(rule["expr"])
    assert used
    known = {"instance", "job", "le"}
    for name, matchers in used:
        assert name in names, name
        known |= set(names[name].labels)
        for label, value in MATCHER.findall(matchers):
            assert label in names[name].labels, (name, label)
            assert set(value.split("|")) <= VALUES[label], (label, value)
    for labels in GROUPING.findall(rule["expr"]):
        assert {label.strip() for label in labels.split(",")} <= known


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_runbooks_speak_of_what_is_there(rule: dict[str, Any]) -> None:
    """Commands and settings that they name exist."""
    text = " ".join(rule["annotations"]["runbook"].split())
    groups = importlib.metadata.entry_points(group=ENTRY_POINTS)
    for quoted in re.findall(r"`([a-z -]+)`", text):
        words = quoted.removeprefix("dicom-ingest ").split()
        command = groups[words[0]].load()
        if len(words) > 1 and not words[1].startswith("-"):
            assert words[1] in command.commands, quoted
        for flag in (word for word in words if word.startswith("-")):
            assert any(flag in parameter.opts for parameter in command.params), quoted
    for name in metrics_named(text):
        assert name in sample_names() or f"{name}_count" in sample_names(), name
    assert_settings_exist(text)


def metrics_named(text: str) -> list[str]:
    return re.findall(r"dicom_ingest_[a-z_]+", text)


def assert_settings_exist(text: str) -> None:
    known = settings_fields({"sources": ["NAME"]})
    for key in re.findall(
        r"\b(?:receiver|log|kafka|worker|commitment|admin|audit|ledger|sources\.NAME)\.[a-z_]+", text
    ):
        assert key in known, key
    for table in re.findall(r"\b([a-z]+)\.NAME\b", text):
        assert table in any_name(), table


def test_remedies_name_settings_that_exist() -> None:
    """What `status --rejected` tells to change can be changed."""
    remedies = [one.remedy for one in vars(reasons).values() if isinstance(one, reasons.Reason)]
    for table in (reasons.REJECTIONS, reasons.REFUSED, reasons.COMMITMENT):
        remedies += [one.remedy for one in table.values()]
    assert len(remedies) >= 15
    for remedy in remedies:
        assert_settings_exist(remedy)
    assert reasons.REJECTIONS.keys() == set(Rejection)


def test_each_rule_has_a_case_that_fires() -> None:
    """A rule that nobody has seen fire is a hope."""
    assert FIRES.keys() == {rule["alert"] for rule in rules()}


def series(values: dict[str, str]) -> Iterator[dict[str, str]]:
    for name, numbers in values.items():
        bare, brace, labels = name.partition("{")
        prefix = "" if bare == "up" or bare.startswith("process_") else PREFIX
        yield {
            "series": f'{prefix}{bare}{{job="dicom",instance="host:11120"{"," if brace else "}"}{labels}',
            "values": numbers,
        }


@pytest.mark.servers
def test_rules_fire_and_are_calm(tmp_path: Path) -> None:
    """By Prometheus's own judgement: each fires in its case, and none on a calm day."""
    assert PROMTOOL is not None, "install Debian's package prometheus"
    cases = []
    for name, values in [*FIRES.items(), *FIRST.items(), *BORN.items()]:
        minute = 7 * 24 * 60 + 180 if name == "DicomIngestSourceSilent" else 120
        query = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) > bool 0'
        cases.append(
            {
                "interval": "1m",
                "input_series": list(series(values)),
                "promql_expr_test": [
                    {"expr": query, "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": 1}]}
                ],
            }
        )
    calm = [
        {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []}
        for name in FIRES
        for minute in (120, 149)
    ]
    cases.append({"interval": "1m", "input_series": list(series(CALM)), "alert_rule_test": calm})
    cases.append({"interval": "1m", "input_series": list(series(UNWATCHED)), "alert_rule_test": calm[:-1:2]})
    quiet = {"eval_time": f"{7 * 24 * 60 + 240}m", "alertname": "DicomIngestSourceSilent", "exp_alerts": []}
    cases.append({"interval": "1m", "input_series": list(series(RESTARTED)), "alert_rule_test": [quiet]})
    file = tmp_path / "alerts_test.yaml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": cases}))
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(file)]):
        done = subprocess.run([PROMTOOL, *command], capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
