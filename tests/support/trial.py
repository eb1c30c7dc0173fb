"""Everything of the distributed form on one machine, for trying: what `make serve-distributed` runs."""

import contextlib
import signal
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.support.distributed import Distributed
from tests.support.kafka_servers import KafkaServers
from tests.support.s3_servers import BUCKET, MINIO, S3Server


def main() -> None:
    """Kafka, MinIO, two receivers and two workers for trying, until Ctrl-C; then all of it goes."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job is born ignoring the first
        signal.signal(number, signal.default_int_handler)
    with (
        contextlib.suppress(KeyboardInterrupt),
        tempfile.TemporaryDirectory(prefix="dicom-ingest-") as folder,
        KafkaServers(Path(folder) / "kafka") as kafka,
        S3Server(MINIO) as minio,
        Distributed(
            Path(folder) / "pipeline", kafka.bootstrap_servers, [minio.url()], name="trial", partitions=8,
            environment=minio.environment, delivery=20, session=10, request=30, retry=30,
        ) as pipeline,
    ):  # fmt: skip
        receivers = [pipeline.start_receiver() for _ in range(2)]
        for _ in range(2):
            pipeline.start_worker()
        credentials = " ".join(f"{name}={value}" for name, value in minio.environment.items())
        click.echo(
            f"Kafka at {', '.join(kafka.bootstrap_servers)}, MinIO at {minio.endpoint}, bucket {BUCKET}"
        )
        for host in receivers:
            click.echo(f"  receiver   127.0.0.1:{host.port}, AE title DICOM-INGEST; log {host.log}")
        click.echo(f"  try        storescu -aec DICOM-INGEST 127.0.0.1 {receivers[0].port} FILE.dcm")
        click.echo(f"             {credentials} {sys.executable} -m ingest status --config {pipeline.config}")
        click.echo("  stop       Ctrl-C; what it has stored goes with it")
        try:
            while all(host.running for host in pipeline.hosts):
                time.sleep(0.5)
        finally:
            pipeline.stop()
        for host in pipeline.hosts:
            if host.process.returncode:
                click.echo(f"{host.name} ended with {host.process.returncode}:\n{host.tail()}")


if __name__ == "__main__":
    main()
