"""What the receiver counts, and what can be read off it."""

from collections import Counter as Count
from typing import TYPE_CHECKING

from ingest.contract.monitoring.instruments import Counter, Gauge, Histogram, Instrument, Labels

if TYPE_CHECKING:
    from ingest.commitment.engine import Engine
    from ingest.receiver.server import Server


class ReceiverMetrics:
    """Counters and histograms of one receiver; a source is one of the settings, or ``(other)``."""

    def __init__(self) -> None:
        self.associations = Counter(
            "associations_total",
            "Association requests: accepted, or the reason against it.",
            ("source", "result"),
        )
        self.ended = Counter(
            "associations_ended_total", "Associations that are over, and how.", ("source", "end")
        )
        self.connections_refused = Counter(
            "connections_refused_total",
            "Connections closed before an association, at a limit of connections, handshakes or memory.",
        )
        self.contexts_refused = Counter(
            "presentation_contexts_refused_total", "Presentation contexts not accepted.", ("source", "reason")
        )
        self.instances = Counter(
            "received_instances_total",
            "C-STORE requests: acknowledged, interrupted, or why not taken.",
            ("source", "outcome"),
        )
        self.bytes = Counter("received_bytes_total", "Of their data sets.", ("source", "outcome"))
        self.store = Histogram(
            "cstore_seconds", "From the C-STORE request to its response, success only.", ("source",)
        )
        self.acknowledge = Histogram(
            "log_append_seconds", "From an instance's last byte to its being durable in the log."
        )

    def acknowledged(self) -> float:
        """Instances so far."""
        ((_, counts, _),) = self.acknowledge.spreads()
        return sum(counts)

    @property
    def instruments(self) -> list[Instrument]:
        """All of them."""
        return [
            self.associations, self.ended, self.connections_refused, self.contexts_refused, self.instances,
            self.bytes, self.store, self.acknowledge,
        ]  # fmt: skip


def server_gauges(server: "Server") -> list[Instrument]:
    """What can be read off a running server."""
    pool, admission, log = server.pool, server.admission, server.log
    return [
        Gauge("associations_open", "Associations established now.", lambda: admission.associations),
        Gauge("connections_open", "TCP connections open now.", lambda: len(server.connections)),
        Gauge(
            "draining", "Whether the receiver was told to stop: 1 or 0.", lambda: float(admission.draining)
        ),
        Gauge("buffer_budget_bytes", "receiver.buffer_budget.", lambda: server.settings.buffer_budget),
        Gauge(
            "buffer_used_bytes",
            "Of it, in use by instances on their way to the log.",
            lambda: pool.used_bytes,
        ),
        Gauge(
            "unknown_quota_used_ratio",
            "Of what unknown sources may put into quarantine within receiver.unknown_period, the part they have.",
            lambda: admission.sources.quota.used,
        ),
        Gauge(
            "log_refusing",
            "Whether instances are refused with A700H: 1 or 0.",
            lambda: log.refusal() is not None,
        ),
    ]


def commitment_gauges(engine: "Engine") -> list[Instrument]:
    """Transactions of storage commitment that are not closed."""

    def states() -> dict[Labels, float]:
        machine = engine.transactions
        return {(state,): number for state, number in Count(map(machine.state_of, list(machine))).items()}

    return [
        Gauge("commitments_open", "Transactions not yet reported, by state.", states, ("state",)),
        Gauge("commitment_oldest_seconds", "Age of the oldest of them; 0 without any.", engine.oldest_age),
    ]
