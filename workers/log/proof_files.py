"""Hands proofs over on one machine: ``DIR/proofs/<transaction id, hex>-<round>-<part>``, one COMMIT_PROVED record each.

The receiver copies each into its own log and removes it. A file has its name only when it is whole and durable.
One that is there already is the same proof, from before a crash. A fence is in one partition, which has one worker
at a time, so no two write the same name, and what a killed one left behind is written over by the next.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

from ingest.contract.folder_sync import sync_folder
from workers.errors import Unavailable
from workers.log.proof import Proof
from workers.threads import to_end

FOLDER: Final = "proofs"
_FILE_MODE: Final = 0o640
_FOLDER_MODE: Final = 0o750
_RETRY_AFTER: Final = 1.0  # seconds; space comes back as the log drains


class ProofFiles:
    """See `Proofs`."""

    def __init__(self, data: Path) -> None:
        """``data``: the data folder."""
        self._folder = data / FOLDER

    async def publish(self, proof: Proof) -> None:
        """See `Proofs.publish`."""
        try:
            await to_end(self._publish, proof)
        except OSError as error:
            raise Unavailable(f"proofs: {error.strerror}", _RETRY_AFTER) from error

    def _publish(self, proof: Proof) -> None:
        folder = self._open()
        try:
            _create(folder, file_name(proof), proof.encoded())
            os.fsync(folder)
        finally:
            os.close(folder)

    def _open(self) -> int:
        """The folder, made durably where it was missing."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        with contextlib.suppress(FileNotFoundError):
            return os.open(self._folder, flags)
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir(_FOLDER_MODE)
        sync_folder(self._folder.parent)
        return os.open(self._folder, flags)


def file_name(proof: Proof) -> str:
    """The same for each proof of one fence."""
    return f"{proof.transaction_id.hex()}-{proof.proved.round}-{proof.proved.part}"


def _create(folder: int, name: str, data: bytes) -> None:
    """Give ``data`` the name, whole and durable, unless it is taken."""
    temporary = f".{name}"  # whoever lists the folder passes over what begins with a dot
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _FILE_MODE, dir_fd=folder)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.fsync(file)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(file)
        os.unlink(temporary, dir_fd=folder)
