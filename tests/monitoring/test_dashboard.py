"""The Grafana dashboard speaks of metrics, labels and values that there are, shows all of them, and is laid out well."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.test_alerts import GROUPING, MATCHER, METRIC, VALUES
from tests.support.instruments import PREFIX, instruments, sample_names

FILE = Path(__file__).resolve().parents[2] / "k8s" / "components" / "monitoring" / "dashboard.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
ROWS = [panel for panel in PANELS if panel["type"] == "row"]
SHOWN = [panel for panel in PANELS if panel["type"] != "row"]
VARIABLES = {"instance", "source", "datasource", "__rate_interval"}
PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"}
UNITS = {"short", "s", "ops", "Bps", "bytes", "percentunit"}
WIDTH = 24
# Panels of a day, a series of each, and what they say of one that was at 3 until it was gone a day ago, and came back at 7.
DAYS = {
    "In quarantine, 24 h": ("dicom_ingest_placed_instances_total", ',place="quarantined"', 7),
    "Conflicts, 24 h": ("dicom_ingest_placed_instances_total", ',place="conflict"', 7),
    "Ledger alarms, 24 hours": ("dicom_ingest_ledger_alarms_total", ',reason="study-of-two-patients"', 4),
    "The last 24 hours by source": ("dicom_ingest_received_instances_total", ',outcome="acknowledged"', 7),
    "Not taken or kept apart, 24 hours": ("dicom_ingest_placed_instances_total", ',place="conflict"', 7),
}
PROMTOOL = shutil.which("promtool")


def expressions() -> Iterator[str]:
    for panel in SHOWN:
        yield from (target["expr"] for target in panel["targets"])
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]
    yield from (note["expr"] for note in DASHBOARD["annotations"]["list"])


@pytest.mark.parametrize("panel", SHOWN, ids=lambda panel: panel["title"])
def test_each_panel_is_whole(panel: dict[str, Any]) -> None:
    """A title, a sentence, a unit of Grafana's, the data source that is chosen above, and no two targets of one name."""
    assert panel["description"].endswith(".") or panel["description"].endswith("`.")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    if panel["type"] == "timeseries":
        legends = [target["legendFormat"] for target in panel["targets"]]
        assert all(legends)
        assert len(set(legends)) == len(legends)
    for target in panel["targets"]:
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert re.search(rf"\bby \([^)]*\b{label}\b", target["expr"]) or label == "instance"


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_metrics_labels_and_values_exist(expression: str) -> None:
    """As the code names them; chosen by variables that there are; counters as rates, histograms as quantiles."""
    names, known = sample_names(), {"instance", "le"}
    used = METRIC.findall(expression)
    assert used or any(name in expression for name in PROCESS)
    for name, matchers in used:
        assert name in names, name
        known |= set(names[name].labels)
        for label, value in MATCHER.findall(matchers):
            assert label in known, (name, label)
            if not value.startswith("$"):
                assert set(value.split("|")) <= VALUES[label], (label, value)
        if name.endswith("_total") and "label_values" not in expression:
            assert re.search(rf"(rate|increase|_over_time)\({name}", expression), name
        if name.endswith("_bucket"):
            assert "histogram_quantile" in expression
    for labels in GROUPING.findall(expression):
        assert {label.strip() for label in labels.split(",")} <= known
    assert set(re.findall(r"\$(\w+)", expression)) <= VARIABLES


def test_every_metric_is_shown() -> None:
    """Whoever adds one decides where it is seen."""
    text = " ".join(expressions())
    missing = [one.description.name for one in instruments() if f"{PREFIX}{one.description.name}" not in text]
    assert missing == []


def test_layout() -> None:
    """Rows in order, panels within the width and none over another; each id once."""
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= WIDTH
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert [panel["gridPos"]["w"] for panel in ROWS] == [WIDTH] * len(ROWS)
    assert [panel["gridPos"]["y"] for panel in PANELS] == sorted(panel["gridPos"]["y"] for panel in PANELS)


def test_the_component_makes_it_a_config_map() -> None:
    """With the label that Grafana's sidecar looks for."""
    component = yaml.safe_load((FILE.parent / "kustomization.yaml").read_text())
    (made,) = component["configMapGenerator"]
    assert made["files"] == [f"dicom-ingest.json={FILE.name}"]
    assert made["options"]["labels"] == {"grafana_dashboard": "1"}
    assert (
        FILE.stat().st_size < 256 * 1024
    )  # of 1 MiB that a ConfigMap may have, with kubectl's copy in an annotation


def chosen(expression: str) -> str:
    """With all variables set to all."""
    for variable, value in {"$__rate_interval": "5m", "$instance": ".*", "$source": ".*"}.items():
        expression = expression.replace(variable, value)
    return expression


def promtool(tmp_path: Path, command: str, document: dict[str, Any]) -> None:
    assert PROMTOOL is not None, "install Debian's package prometheus"
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps(document))
    done = subprocess.run(
        [PROMTOOL, command, "rules", str(file)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.servers
def test_expressions_are_promql(tmp_path: Path) -> None:
    """By Prometheus's own parser."""
    found = [chosen(one) for one in expressions() if "label_values" not in one]
    rules = [{"record": f"panel:{number}", "expr": one} for number, one in enumerate(found)]
    promtool(tmp_path, "check", {"groups": [{"name": "dashboard", "rules": rules}]})


@pytest.mark.servers
@pytest.mark.parametrize("title", DAYS)
def test_a_day_has_the_first_of_each_series(tmp_path: Path, title: str) -> None:
    """Also of a process that began and ended within it; and not what is older, where Prometheus was away a day ago."""
    (panel,) = [panel for panel in SHOWN if panel["title"] == title]
    (target,) = panel["targets"]
    expression = f"sum({chosen(target['expr'])})"
    name, labels, counted = DAYS[title]

    def case(values: dict[str, str], expected: int) -> dict[str, Any]:
        series = [
            {
                "series": f'{metric}{{instance="a",job="dicom"{"" if metric.startswith("process") else labels}}}',
                "values": numbers,
            }
            for metric, numbers in values.items()
        ]
        asked = {"expr": expression, "eval_time": "50h", "exp_samples": [{"labels": "{}", "value": expected}]}
        return {"interval": "1m", "input_series": series, "promql_expr_test": [asked]}

    stays = {"process_start_time_seconds": "9+0x3000"}
    cases = [
        case({name: "3+0x1000 _x1500 7+0x600", **stays}, counted),
        case({name: "7+0x1540 _x40 7+0x1500", "process_start_time_seconds": "9+0x1540 _x40 9+0x1500"}, 0),
    ]
    if "ledger" not in name:
        begun = {name: "_x2500 7+0x100", "process_start_time_seconds": "_x2490 149400+0x110"}
        cases += [case({name: "_x2500 7+0x600", **stays}, 7), case(begun, 7)]
    if "> 0" in expression:
        del cases[1]
    promtool(tmp_path, "test", {"rule_files": [], "evaluation_interval": "1m", "tests": cases})
