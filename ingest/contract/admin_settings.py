"""Settings of the admin port: where it is, and what whoever reaches it may cost."""

from pydantic import Field

from ingest.contract.settings_base import HostPort, Section, host_and_port


class AdminSettings(Section):
    """Where each process shows its metrics and whether it is well: ``/metrics``, ``/livez``, ``/readyz``."""

    listen: HostPort = Field(
        "127.0.0.1:11120",
        description="Of the receiver; worker N has this port + 1 + N. Port 0: any free one. Empty: no admin port.",
    )
    liveness_limit: float = Field(
        60.0,
        ge=5,
        json_schema_extra={"unit": "s"},
        description="Without an answer of the event loop, after which `/livez` fails and `serve` starts the process anew; a slow disk alone must not do it.",
    )

    connections: int = Field(
        8,
        ge=2,
        le=256,
        description="At a time; Prometheus and two probes need one each. The oldest gives way.",
    )
    deadline: float = Field(
        5.0,
        ge=1,
        json_schema_extra={"unit": "s"},
        description="For a request and its answer, whatever the peer does.",
    )
    rate: float = Field(
        50.0,
        ge=1,
        json_schema_extra={"unit": "connections/s"},
        description="More wait in the kernel: whoever reaches the port shall not cost the images their processor.",
    )

    def address(self, number: int) -> tuple[str, int] | None:
        """Host and port of a process on this machine: 0 is the receiver, N + 1 worker N; None: no admin port."""
        if not self.listen:
            return None
        host, port = host_and_port(self.listen)
        return host, port and port + number
