"""What happened when: instances, pods and nodes every few seconds, and what the scenarios did; drawn at the end."""

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.cluster.server import Refused

if TYPE_CHECKING:
    from tests.cluster.deployment import Deployment

_LOOK: Final = 3.0  # s between two looks


class Look(NamedTuple):
    """What was so at a time of the monotonic clock."""

    at: float
    acknowledged: int
    stored: int
    receivers: int
    workers: int
    workers_asked: int


class Timeline:
    """Looks until it is ended."""

    def __init__(self, deployment: "Deployment") -> None:
        self.looks: list[Look] = []
        self.events: list[tuple[float, float, str]] = []  # begun, ended, what
        self._deployment = deployment
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """No further look."""
        self._ending.set()
        self._thread.join(60)

    @contextmanager
    def event(self, what: str) -> Iterator[float]:
        """Name what is done meanwhile; the time of its beginning."""
        begun = time.monotonic()
        try:
            yield begun
        finally:
            self.events.append((begun, time.monotonic(), what))

    def _run(self) -> None:
        while not self._ending.wait(_LOOK):
            with contextlib.suppress(Refused, OSError, StopIteration):  # what is looked at may be away
                self.looks.append(self._look())

    def _look(self) -> Look:
        whole = self._deployment
        acknowledged = len(whole.ledger.acknowledged)
        scale = whole.get("deployment", "dicom-ingest-worker")
        return Look(
            time.monotonic(),
            acknowledged,
            len(whole.stored()),
            whole.ready("receiver"),
            scale["status"].get("readyReplicas", 0),
            scale["spec"]["replicas"],
        )

    def draw(self, path: Path) -> None:
        """As SVG: rates, what waits, and pods, above one axis of time."""
        mpl.rcParams.update({"svg.hashsalt": "cluster", "svg.fonttype": "none", "font.size": 9})
        figure = Figure(figsize=(10.0, 7.5), layout="constrained")
        rate, waiting, pods = figure.subplots(3, 1, sharex=True)
        looks, start = self.looks, self.looks[0].at
        times = [look.at - start for look in looks]
        pairs = list(itertools.pairwise(looks))
        for name, count in (("acknowledged", 1), ("stored", 2)):
            values = [
                max(0, after[count] - before[count]) / (after.at - before.at) for before, after in pairs
            ]
            rate.plot(times[1:], values, label=name)
        rate.set(ylabel="instances/s", title="Eight senders at full rate, two nodes")
        waiting.plot(times, [look.acknowledged - look.stored for look in looks], color="tab:red")
        waiting.set(ylabel="acknowledged,\nnot stored yet")
        for name, column in (("receivers ready", 3), ("workers ready", 4), ("workers asked for", 5)):
            pods.step(times, [look[column] for look in looks], where="post", label=name)
        pods.set(ylabel="pods", xlabel="s")
        for axes in (rate, waiting, pods):
            axes.grid(visible=True, alpha=0.3)
            axes.set_ylim(bottom=0)
            for begun, ended, _ in self.events:
                axes.axvspan(begun - start, ended - start, alpha=0.12, color="tab:gray")
        for begun, _, what in self.events:
            waiting.text(begun - start, waiting.get_ylim()[1], f" {what}", rotation=90, va="top", fontsize=7)
        rate.legend(loc="upper right", fontsize=7)
        pods.legend(loc="upper right", fontsize=7)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
