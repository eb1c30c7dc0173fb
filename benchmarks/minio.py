"""MinIO for a scenario: one server, and a prefix of its one bucket for each arm, gone with it."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ingest.contract.store_urls import StoreUrl, parse_store_url
from tests.support.s3_servers import BUCKET, MINIO, S3Server


@dataclass(frozen=True)
class Minio:
    """A started server; this process has its credentials in the environment, which those that it starts inherit."""

    server: S3Server

    def url(self) -> StoreUrl:
        """A store of its own."""
        url = parse_store_url(self.server.url(secrets.token_hex(4)))
        assert isinstance(url, StoreUrl)
        return url

    @contextmanager
    def prefix(self) -> Iterator[tuple[dict[str, str], Path]]:
        """The environment of workers that store below a prefix, and the folder where MinIO keeps what they store."""
        prefix = secrets.token_hex(4)
        folder = self.server.folder / "data" / BUCKET / prefix
        try:
            yield {"DICOM_INGEST_STORE__URLS": self.server.url(prefix)}, folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def minio() -> Iterator[Minio]:
    """Start it, and end it."""
    before = {name: os.environ.get(name) for name in S3Server.environment}
    with ExitStack() as stack:
        os.environ.update(S3Server.environment)
        stack.callback(_restore, before)
        yield Minio(stack.enter_context(S3Server(MINIO)))


def _restore(environment: dict[str, str | None]) -> None:
    for name, value in environment.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
