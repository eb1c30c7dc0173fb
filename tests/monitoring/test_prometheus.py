"""The dashboard and the alert rules in a real Prometheus that scrapes a real receiver, worker and ledger."""

import asyncio
import json
import math
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.processes import free_port
from tests.monitoring.test_alerts import RULES, rules
from tests.monitoring.test_dashboard import SHOWN, expressions
from tests.support.acceptance import QUICK
from tests.support.admin import admin_ports
from tests.support.console import Console, ask
from tests.support.pipeline import Pipeline
from tests.support.scu import CT, Scu, associate, c_store, ct_data_set

pytestmark = [pytest.mark.servers, pytest.mark.real, pytest.mark.timeout(600)]

PROMETHEUS = shutil.which("prometheus")
ROOT = "1.2.826.0.1.3680043.9.12"
# Nothing of these on one machine that is well: Kafka's, and what only faults count.
EMPTY = {"Retention in use"}
SETTINGS = """
[commitment]
enabled = true
[ledger]
interval = 0.1
[audit]
destination = "file"
[sources.ct-1]
ae_titles = ["TESTER"]
[sources.console]
ae_titles = ["CONSOLE"]
host = "127.0.0.1"
port = 1
same_association = true
"""


class Prometheus:
    """One, by its HTTP interface."""

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}?{query}", timeout=60) as answer:
            return json.load(answer)["data"]

    def ask(self, expression: str) -> list[float]:
        """The values of an instant query; an error of its raises."""
        for variable, value in (("$__rate_interval", "20s"), ("$instance", ".*"), ("$source", ".*")):
            expression = expression.replace(variable, value)
        found = self.get("/api/v1/query", query=expression)
        assert found["resultType"] == "vector"
        return [float(one["value"][1]) for one in found["result"]]


def until(condition: Callable[[], object], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.5)


@contextmanager
def prometheus(folder: Path, ports: dict[str, int]) -> Iterator[Prometheus]:
    """Scrapes these ports each second."""
    assert PROMETHEUS is not None, "install Debian's package prometheus"
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for name, port in ports.items()
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                PROMETHEUS, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
    one = Prometheus(port)

    def scraped() -> bool:
        assert process.poll() is None, (folder / "prometheus.log").read_text()[-4000:]
        try:
            return one.ask("sum(up)") == [len(ports)]
        except OSError:
            return False

    try:
        until(scraped, lambda: one.get("/api/v1/targets"))
        yield one
    finally:
        process.terminate()
        process.wait(60)


async def load(port: int, turn: int) -> None:
    """A little of everything: stored, conflict, quarantined, refused instance, context and association, a stranger."""
    uid = f"{ROOT}.{turn}"
    data = ct_data_set(uid, 20_000)
    scu = await Scu.connect(port)
    await scu.send(associate(((CT, ("1.2.840.10008.1.2.1",)), ("1.2.3.5", ("1.2.840.10008.1.2",)))))
    assert (await scu.pdu(60))[0] == 2
    for name, sent in (
        (uid, data),
        (uid, data.replace(b"Doe^Jane", b"Doe^John")),
        (f"{uid}.1", ct_data_set(f"{uid}.1", 20_000)[:-100]),
        ("1.x", data),
    ):
        await scu.send(c_store(name, sent))
        await scu.response(60)
    await scu.release()
    for refused in (associate(called="WRONG"), associate(calling="STRANGER")):
        scu = await Scu.connect(port)
        await scu.send(refused)
        await scu.pdu(60)
        await scu.close()
    await Scu.close_all()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, Callable[[], None]]]:
    """Prometheus, and what brings a little more to be seen."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = folder / "settings.toml"
    config.write_text(SETTINGS)
    environment = QUICK | {
        "DICOM_INGEST_CONFIG": str(config),
        "DICOM_INGEST_TELEMETRY__FORMAT": "json",
        "DICOM_INGEST_ADMIN__LISTEN": "127.0.0.1:0",
        "DICOM_INGEST_LEDGER__ENABLED": "true",
    }
    console = Console()
    with Pipeline(folder / "data", workers=1, environment=environment) as pipeline:
        until(
            lambda: {"receiver", "worker-0", "ledger"} <= admin_ports(pipeline.log).keys(),
            pipeline.log.read_text,
        )
        turns = iter(range(1, 10_000))

        def more() -> None:
            turn = next(turns)
            asyncio.run(load(pipeline.port, turn))
            with console.association(pipeline.port) as association:
                ask(association, [f"{ROOT}.{turn}"], f"2.25.{turn}")

        more()
        ports = {name: admin_ports(pipeline.log)[name] for name in ("receiver", "worker-0", "ledger")}
        with prometheus(folder, ports) as one:
            yield one, more


def is_shown(values: list[float]) -> bool:
    return any(math.isfinite(value) for value in values)


def test_each_panel_shows_something(seen: tuple[Prometheus, Callable[[], None]]) -> None:
    """Every query is answered, and every panel that is meant to has a number under a small load."""
    one, more = seen
    missing: list[str] = []

    def all_shown() -> bool:
        more()
        missing[:] = [
            f"{panel['title']}: {target['expr']}"
            for panel in SHOWN
            if panel["title"] not in EMPTY
            for target in panel["targets"]
            if not is_shown(one.ask(target["expr"]))
        ]
        return not missing

    until(all_shown, lambda: "\n".join(missing))


def test_each_query_is_answered(seen: tuple[Prometheus, Callable[[], None]]) -> None:
    """Those of panels that are empty here, and of annotations, too; the variables find processes and sources."""
    one, _ = seen
    for expression in expressions():
        if "label_values" not in expression:
            one.ask(expression)
    assert len(one.get("/api/v1/label/instance/values")) == 3
    assert {"ct-1", "(other)"} <= set(one.get("/api/v1/label/source/values"))


def test_each_rule_is_evaluated(seen: tuple[Prometheus, Callable[[], None]]) -> None:
    """Without an error, by the real thing; and what the load is meant to raise is pending or fires."""
    one, more = seen

    def found() -> dict[str, dict[str, Any]]:
        groups = one.get("/api/v1/rules")["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}

    names = {rule["alert"] for rule in rules()}
    until(lambda: {rule["health"] for rule in found().values()} == {"ok"}, found)
    assert found().keys() == names

    def is_raised() -> bool:
        more()
        return bool(found()["DicomIngestAssociationsRefused"]["state"] != "inactive")

    until(is_raised, found)
