"""The options and the output of `send --commit`: storage commitment asked for and waited for."""

import functools
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeVar

import click
from rich.console import Console
from rich.table import Table

from ingest.contract.command_options import host_port
from ingest.contract.commitments import Reference
from ingest.dimse.status import (
    CLASS_INSTANCE_CONFLICT,
    DUPLICATE_TRANSACTION_UID,
    NO_SUCH_SOP_INSTANCE,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    SOP_CLASS_NOT_SUPPORTED,
)
from ingest.sender.commitment import CommitResult
from ingest.sender.files import DicomFile

R = TypeVar("R")

_SHOWN: Final = 20  # failed instances, one by one
# PS3.3 C.14.1.1
_REASONS: Final = {
    PROCESSING_FAILURE: "processing failure",
    NO_SUCH_SOP_INSTANCE: "no such object instance",
    RESOURCE_LIMITATION: "resource limitation",
    SOP_CLASS_NOT_SUPPORTED: "referenced SOP class not supported",
    CLASS_INSTANCE_CONFLICT: "class / instance conflict",
    DUPLICATE_TRANSACTION_UID: "duplicate transaction UID",
}


class Commit(NamedTuple):
    """What is asked for with the options."""

    seconds: float
    listen: tuple[str, int] | None


def commit_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command ``--commit --listen --commit-timeout``, and the `Commit` as ``commit``, None without."""

    @click.option(
        "--commit", is_flag=True, help="Then ask for storage commitment of all that was stored, and wait."
    )
    @click.option(
        "--listen",
        type=host_port,
        default=None,
        metavar="HOST:PORT",
        help="Where the peer reports on an association of its own; without it, on that of the request.",
    )
    @click.option(
        "--commit-timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=300.0,
        show_default=True,
        help="Seconds to wait for the report.",
    )
    @functools.wraps(command)
    def with_commit(
        *, commit: bool, listen: tuple[str, int] | None, commit_timeout: float, **parameters: object
    ) -> R:
        if listen is not None and not commit:
            raise click.UsageError("--listen goes with --commit")
        return command(commit=Commit(commit_timeout, listen) if commit else None, **parameters)

    return with_commit


def references_of(files: Iterable[DicomFile]) -> dict[Reference, DicomFile]:
    """What commitment is asked for, each instance once, with a file that it is in."""
    return {Reference(file.sop_class_uid, file.sop_instance_uid): file for file in files}


def reason_word(reason: int) -> str:
    """A Failure Reason (0008,1197) as PS3.3 C.14.1.1 names it."""
    return f"{reason:04X}H {_REASONS.get(reason, '')}".rstrip() if reason else "no reason given"


def result_as_json(result: CommitResult, files: dict[Reference, DicomFile]) -> dict[str, object]:
    """All of it."""
    return {
        "transaction_uid": result.transaction_uid,
        "committed": len(result.committed),
        "failed": [
            {
                "path": str(files[reference].path),
                "sop_instance_uid": reference.sop_instance_uid,
                "reason": reason_word(reason),
            }
            for reference, reason in result.failed
        ],
        "unreported": len(result.unreported),
        "retrieve_ae_title": result.retrieve_ae_title,
        "problem": result.problem,
    }


def print_result(result: CommitResult, files: dict[Reference, DicomFile]) -> None:
    """A table of how many are committed and have failed for which reason; the first failed ones by name."""
    table = Table("storage commitment", "instances")
    table.add_row("committed", str(len(result.committed)))
    counts: dict[int, int] = {}
    for _, reason in result.failed:
        counts[reason] = counts.get(reason, 0) + 1
    for reason, count in sorted(counts.items()):
        table.add_row(f"failed: {reason_word(reason)}", str(count))
    if result.unreported:
        table.add_row("not reported", str(len(result.unreported)))
    Console().print(table)
    for reference, reason in result.failed[:_SHOWN]:
        click.echo(f"not committed: {files[reference].path}: {reason_word(reason)}", err=True)
    if len(result.failed) > _SHOWN:
        click.echo(f"not committed: {len(result.failed) - _SHOWN} more; --json lists them", err=True)
    if result.problem:
        click.echo(f"commitment: {result.problem}", err=True)
