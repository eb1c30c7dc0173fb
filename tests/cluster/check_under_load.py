"""The overlay `try` on two nodes, with eight senders at full rate, while pods come and go; `make k8s-e2e` runs it.

The scenarios are of one deployment, in this order. What they promise: whatever was acknowledged is stored once, as it was sent; and
where pods are told to end, no association ends but by its sender's own release.
"""

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.broker import POD
from tests.cluster.deployment import Deployment
from tests.cluster.images import NEW
from tests.cluster.modalities import Association

_REPORT: Final = Path("build/k8s-e2e")


@pytest.fixture(scope="session")
def deployment() -> Iterator[Deployment]:
    """Taken down whatever ends the run."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Deployment() as found:
        yield found
        found.timeline.draw(_REPORT.with_suffix(".svg"))
        figures = {
            "acknowledged": len(found.ledger.acknowledged),
            "refused": found.ledger.refused,
            "associations": Counter(one.end for one in found.ledger.associations),
            "events": [
                {"what": what, "seconds": round(ended - begun)}
                for begun, ended, what in found.timeline.events
            ],
        }
        _REPORT.with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n")


def ends(deployment: Deployment, since: float) -> Counter[str]:
    """How associations ended that did after a time."""
    return Counter(found.end for found in ended(deployment, since))


def ended(deployment: Deployment, since: float) -> list[Association]:
    """The associations that did after a time."""
    return [found for found in deployment.ledger.associations if found.ended >= since]


def test_images_are_stored(deployment: Deployment) -> None:
    """End to end, with nothing else happening."""
    with deployment.timeline.event("first images") as begun:
        deployment.modalities.begin()
        deployment.acknowledged(50)
        deployment.settle()
    assert set(ends(deployment, begun)) == {"released"}


def test_a_rollout_of_receivers_aborts_nobody(deployment: Deployment) -> None:
    """Scenario 1: to a new version, under load."""
    deployment.modalities.begin()
    deployment.acknowledged(50)
    with deployment.timeline.event("rollout of receivers") as begun:
        deployment.kubectl(
            "-n", "dicom-ingest", "set", "image", "deployment/dicom-ingest-receiver", f"receiver={NEW}"
        )
        deployment.kubectl(
            "-n", "dicom-ingest", "rollout", "status", "deployment/dicom-ingest-receiver", "--timeout=420s"
        )
        deployment.until(lambda: deployment.gone("receiver"), "the end of the old receivers")
        deployment.modalities.rest()
    assert set(ends(deployment, begun)) == {"released"}


def test_killed_pods_lose_nothing(deployment: Deployment) -> None:
    """Scenario 4: SIGKILL to a worker and to a receiver."""
    deployment.modalities.begin()
    deployment.acknowledged(50)
    deployment.until(lambda: deployment.ready("worker") > 0, "a worker")
    for component in ("worker", "receiver"):
        with deployment.timeline.event(f"SIGKILL to a {component}"):
            deployment.kill(component)
            deployment.acknowledged(100)
    deployment.until(lambda: deployment.ready("receiver") == 2, "both receivers")


def test_a_broker_that_is_restarted_loses_nothing(deployment: Deployment) -> None:
    """Scenario 5: the pod of the only broker."""
    deployment.modalities.begin()
    deployment.acknowledged(50)
    with deployment.timeline.event("restart of the broker"):
        deployment.kubectl("-n", "dicom-ingest", "delete", "pod", POD)
        deployment.kubectl(
            "-n", "dicom-ingest", "wait", "--for=condition=Ready", f"pod/{POD}", "--timeout=300s"
        )
        deployment.acknowledged(100)


def test_a_drained_node_aborts_nobody(deployment: Deployment) -> None:
    """Scenario 3: the node without the only broker and store, budgets respected."""
    deployment.modalities.begin()
    deployment.acknowledged(50)
    with deployment.timeline.event("drain of a node") as begun:
        deployment.kubectl(
            "drain", "node2", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=420s"
        )
        deployment.acknowledged(50)
        deployment.modalities.rest()
    assert set(ends(deployment, begun)) == {"released"}
    deployment.kubectl("uncordon", "node2")
    deployment.until(lambda: deployment.ready("receiver") == 2, "both receivers")


def test_workers_follow_the_backlog(deployment: Deployment) -> None:
    """Scenario 2: up to four while it grows, none once nothing is left, and up again; the account is that of all scenarios."""
    with deployment.timeline.event("backlog"):
        deployment.modalities.begin()
        deployment.until(lambda: len(deployment.pods("worker")) == 4, "four workers", 600)
    deployment.settle()
    deployment.check_account()
    with deployment.timeline.event("idle"):
        deployment.until(lambda: not deployment.pods("worker"), "the end of the last worker", 600)
    with deployment.timeline.event("images after the pause"):
        deployment.modalities.begin()
        deployment.until(lambda: deployment.ready("worker") > 0, "a worker")
        deployment.settle()
    deployment.check_account()
