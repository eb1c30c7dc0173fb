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
            assert re.search(rf"(rate|increase)\({name}", expression), name
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


@pytest.mark.servers
def test_expressions_are_promql(tmp_path: Path) -> None:
    """By Prometheus's own parser."""
    assert PROMTOOL is not None, "install Debian's package prometheus"
    values = {"$__rate_interval": "5m", "$instance": ".*", "$source": ".*"}
    rules = []
    for number, expression in enumerate(one for one in expressions() if "label_values" not in one):
        text = expression
        for variable, value in values.items():
            text = text.replace(variable, value)
        rules.append({"record": f"panel:{number}", "expr": text})
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        [PROMTOOL, "check", "rules", str(file)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
