"""The admin ports of a pipeline's processes, seen from outside."""

import http.client
import json
from contextlib import closing
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.lines import whole_lines

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def admin_ports(log: Path, start: int = 0) -> dict[str, int]:
    """Process names and their admin ports, from the last events about them; ``start``: a byte of the log, none before counts."""
    ports = {}
    for line in whole_lines(log, start):
        if b'"admin port"' in line:
            event = json.loads(line)
            ports[event["process"]] = event["port"]
    return ports


def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    """Status and body."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def metrics_text(port: int) -> str:
    """The page of metrics."""
    status, text = get(port, "/metrics")
    assert status == 200
    return text


def parsed(text: str) -> Samples:
    """All samples of a page, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A sample's key."""
    return f"dicom_ingest_{name}", tuple(sorted(labels.items()))
