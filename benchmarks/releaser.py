"""Stands in for the workers where only the receiver is measured: says of every record that it is settled.

So the spool recycles its segments as it does in service, and no worker takes part of the machine.
"""

import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ingest.contract.checkpoint import Checkpoint, checkpoint_path, encode_checkpoint
from ingest.contract.settings import LogSettings
from ingest.contract.spool.disk import OsDisk
from ingest.contract.spool.layout import Layout

_INTERVAL: Final = 0.1  # s; at 2 GB/s the spool holds 200 MB


class Releaser:
    """A thread that moves every partition's low-water mark to the durable end of the spool in ``data``."""

    def __init__(self, data: Path) -> None:
        self._checkpoints = data / "checkpoints"
        self._checkpoints.mkdir(exist_ok=True)
        self._durable_end = OsDisk().counter(Layout(data / "spool").durable_end)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.release()
        self._durable_end.close()

    def release(self) -> None:
        """Move the marks now; no sync, since nothing here must survive a crash."""
        end = self._durable_end.load()
        for partition in range(LogSettings().partitions):
            path = checkpoint_path(self._checkpoints, partition)
            temporary = path.with_name(path.name + ".new")
            temporary.write_bytes(encode_checkpoint(Checkpoint(partition=partition, low_water_mark=end)))
            temporary.rename(path)

    def _run(self) -> None:
        while not self._stop.wait(_INTERVAL):
            self.release()
