"""Orthanc, an open-source PACS, as a child process that stores to us and asks us for storage commitment."""

import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from benchmarks.processes import free_port

_START: Final = 60.0  # seconds; it takes one on a quiet machine
_STOP: Final = 30.0
_ANSWER: Final = 60.0
_ARCHIVE: Final = "archive"  # our name in its REST paths


class Orthanc:
    """One server in a temporary folder; ended by its own process id."""

    ae_title: Final = "ORTHANC"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="orthanc-"))
        self.http_port = free_port()
        self.dicom_port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, archive_port: int) -> Self:
        """Start with the archive at that port of loopback as a modality, and return once it answers."""
        configuration = self.folder / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration(archive_port)))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [_program(), "--verbose", str(configuration)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder,
            )  # fmt: skip
        deadline = time.monotonic() + _START
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Orthanc did not start: {self.tail()}")
            time.sleep(0.1)
        return self

    def upload(self, file: Path) -> str:
        """Give it a PS3.10 file; returns its own identifier of the instance."""
        return str(self._request("/instances", file.read_bytes())["ID"])

    def store(self, identifiers: Sequence[str]) -> dict[str, Any]:
        """Have it send instances to us (C-STORE); what it says of that."""
        return self._post(f"/modalities/{_ARCHIVE}/store", list(identifiers))

    def ask(self, references: Sequence[tuple[str, str]]) -> str:
        """Have it ask us for commitment (N-ACTION); returns the Transaction UID, once we have accepted.

        Raises:
            RuntimeError: it holds that we have not.
        """
        body = {"DicomInstances": [list(reference) for reference in references]}
        return str(self._post(f"/modalities/{_ARCHIVE}/storage-commitment", body)["ID"])

    def report(self, transaction_uid: str) -> dict[str, Any]:
        """What it has been told of a transaction (N-EVENT-REPORT), once it has been told."""
        deadline = time.monotonic() + _ANSWER
        while True:
            known = self._request(f"/storage-commitment/{transaction_uid}")
            if known["Status"] != "Pending":
                return known
            if time.monotonic() > deadline:
                raise TimeoutError(f"Orthanc has no report of {transaction_uid}: {self.tail()}")
            time.sleep(0.2)

    def tail(self) -> str:
        """The end of its log."""
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def close(self) -> None:
        """End it and remove its folder."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(_STOP)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _configuration(self, archive_port: int) -> dict[str, Any]:
        return {
            "Name": "tests", "StorageDirectory": str(self.folder / "data"), "Plugins": [],
            "HttpPort": self.http_port, "DicomPort": self.dicom_port, "DicomAet": self.ae_title,
            # It has no setting for the address to listen on, so it is told to serve nobody but us and this machine.
            "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "DicomCheckCalledAet": True,
            "DicomAlwaysAllowEcho": False, "DicomAlwaysAllowStore": False, "DicomCheckModalityHost": True,
            "DicomModalities": {
                _ARCHIVE: {
                    "AET": "DICOM-INGEST", "Host": "127.0.0.1", "Port": archive_port, "AllowEcho": False,
                    "AllowFind": False, "AllowGet": False, "AllowMove": False, "AllowStore": False,
                    "AllowStorageCommitment": True,
                }
            },
        }  # fmt: skip

    def _answers(self) -> bool:
        try:
            self._request("/system")
        except (OSError, RuntimeError):
            return False
        return True

    def _post(self, path: str, body: object) -> dict[str, Any]:
        return self._request(path, json.dumps(body).encode())

    def _request(self, path: str, body: bytes | None = None) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.http_port}{path}"
        try:
            with urllib.request.urlopen(url, body, timeout=_ANSWER) as answer:
                document: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode(errors="replace")
            raise RuntimeError(f"Orthanc refused {path}: {said}\n{self.tail()}") from error
        return document


def _program() -> str:
    # Debian has it where only root's PATH leads.
    path = shutil.which("Orthanc", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if path is None:
        raise RuntimeError("Orthanc is missing: install the system package orthanc")
    return path
