"""Send files and folders to a DICOM peer (C-STORE), for trying and loading."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from ingest.cli.commit_options import (
    Commit,
    commit_options,
    print_result,
    references_of,
    result_as_json,
)
from ingest.cli.peer_options import peer_options
from ingest.contract.command_options import EXIT_FAILURE, json_option
from ingest.contract.commitments import Reference
from ingest.sender import Peer, Summary, send_files
from ingest.sender.commitment import CommitResult
from ingest.sender.commitment import commit as ask_for_commitment
from ingest.sender.files import DicomFile, NotSendable, find_files, read_head
from ingest.sender.transfer import Progress as Told

_SHOWN_FAILURES = 20


@click.command()
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="PATH..."
)
@peer_options
@click.option(
    "--associations",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Associations at the same time.",
)
@commit_options
@json_option
def send(
    paths: tuple[Path, ...], peer: Peer, *, associations: int, commit: Commit | None, as_json: bool
) -> None:
    """Send files and folders to a DICOM peer (C-STORE), for trying and loading.

    Each file goes out in its own transfer syntax. In folders, what is no DICOM instance is passed over. With
    --commit the peer is asked to commit itself to the storage of what it took, and its report is waited for.
    Exits with 1 when any file was not stored, or not committed.
    """
    summary = Summary()
    files, skipped = gather(paths, summary)
    begun = time.perf_counter()
    with _progress(files, quiet=as_json) as told:
        asyncio.run(send_files(peer, files, summary, associations=associations, progress=told))
    seconds = time.perf_counter() - begun
    references = references_of(summary.stored)
    if not as_json:
        _print(summary, skipped, seconds)
    result = _commit(peer, commit, list(references)) if commit and references else None
    if as_json:
        document = _as_json(summary, skipped, seconds)
        if result is not None:
            document["commitment"] = result_as_json(result, references)
        click.echo(json.dumps(document, indent=2))
    elif result is not None:
        print_result(result, references)
    if summary.failed or (result is not None and (result.failed or result.unreported)):
        raise SystemExit(EXIT_FAILURE)


def _commit(peer: Peer, options: Commit, references: list[Reference]) -> CommitResult:
    try:
        return asyncio.run(
            ask_for_commitment(peer, references, seconds=options.seconds, listen=options.listen)
        )
    except OSError as error:
        raise click.ClickException(f"cannot listen for the report: {error.strerror}") from None


def gather(paths: tuple[Path, ...], summary: Summary) -> tuple[list[DicomFile], int]:
    """The files to send, and how many were passed over; what cannot be sent goes into ``summary``."""
    files: list[DicomFile] = []
    skipped = 0

    def refuse(path: Path, error: NotSendable | OSError) -> None:
        summary.not_sent(path, f"not sent: {error.strerror if isinstance(error, OSError) else error}")

    for path, named in find_files(paths, lambda error: refuse(Path(error.filename), error)):
        try:
            file = read_head(path)
        except (NotSendable, OSError) as error:
            refuse(path, error)
            continue
        if file is not None:
            files.append(file)
        elif named:
            summary.not_sent(path, "not sent: no DICOM instance in a PS3.10 file")
        else:
            skipped += 1
    return files, skipped


@contextmanager
def _progress(files: list[DicomFile], *, quiet: bool) -> Iterator[Told]:
    columns = (
        TextColumn("sending"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task("send", total=sum(file.size for file in files))
        yield lambda size: progress.advance(task, size)


def _as_json(summary: Summary, skipped: int, seconds: float) -> dict[str, object]:
    return {
        "sent": summary.sent,
        "failed": summary.failed,
        "skipped": skipped,
        "bytes": summary.bytes_sent,
        "seconds": round(seconds, 3),
        "statuses": dict(summary.statuses),
        "failures": [{"path": str(path), "reason": reason} for path, reason in summary.failures],
    }


def _print(summary: Summary, skipped: int, seconds: float) -> None:
    for status, count in sorted(summary.statuses.items()):
        click.echo(f"{count:>8}  {status}")
    if skipped:
        click.echo(f"{skipped:>8}  passed over: no DICOM instance")
    megabytes = summary.bytes_sent / 1e6
    click.echo(
        f"sent {summary.sent} instances, {megabytes:.1f} MB in {seconds:.2f} s ({megabytes / seconds:.0f} MB/s)"
    )
    for path, reason in summary.failures[:_SHOWN_FAILURES]:
        click.echo(f"failed: {path}: {reason}", err=True)
    if summary.failed > _SHOWN_FAILURES:
        click.echo(f"failed: {summary.failed - _SHOWN_FAILURES} more; --json lists them", err=True)
