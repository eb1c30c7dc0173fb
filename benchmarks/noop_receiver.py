"""Our receiver with a log that keeps nothing: `python -m benchmarks.noop_receiver PORT FOLDER`.

Everything else is the product: association, DIMSE, chunks. Seal and CRC are made by the log. So the difference to
the durable receiver is the log, and the difference to a discarding peer is the protocol.
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from ingest.contract.settings import LogSettings, ReceiverSettings, Settings, TelemetrySettings
from ingest.contract.telemetry import configure_telemetry
from ingest.instance import Header
from ingest.receiver import serve


class NoopLog:
    """Acknowledges every record at once."""

    partitions = LogSettings().partitions
    receiver_id = 1
    epoch = 1
    publishers = 0

    def publish(
        self,
        partition: int,  # noqa: ARG002 - the log's interface
        header: Header,  # noqa: ARG002
        payload: Sequence[memoryview],  # noqa: ARG002
    ) -> asyncio.Future[None]:
        """As the log's, done already."""
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    def congested(self, *, full: bool) -> bool:  # noqa: ARG002 - the log's interface
        """Never away."""
        return False

    def refusal(self) -> str | None:
        """Nothing is ever refused."""
        return None


def main(port: int, folder: Path) -> None:
    """Serve until SIGTERM."""
    settings = Settings(data=folder, receiver=ReceiverSettings(port=port))
    configure_telemetry(TelemetrySettings(level="warning"), "receiver")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, NoopLog()))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
