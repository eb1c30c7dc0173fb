"""How a command ends when the world does not let it run: one line, no traceback, and the exit code that fits."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

from ingest.contract.checkpoint import CorruptCheckpoint
from ingest.contract.command_options import EXIT_USAGE
from ingest.contract.kafka import KafkaUnreachable, TopicMismatch
from ingest.contract.records import NewerRecord
from ingest.contract.settings import Settings
from ingest.contract.spool.errors import SpoolError, SpoolMismatch
from ingest.contract.tls import WrongCertificate

# Without a file's name, these are of the address to listen on.
_OF_AN_ADDRESS: Final = frozenset(
    (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES, errno.EAFNOSUPPORT, errno.EINVAL)
)


@contextmanager
def clear_failures(settings: Settings) -> Iterator[None]:
    """Turn what an administrator can mend into a sentence; anything else is a defect and keeps its traceback.

    Raises:
        click.ClickException: exit code 1: the address, the disk or another process is in the way.
        click.exceptions.Exit: exit code 2: the settings do not fit the log that is there, or a certificate is wrong.
    """
    try:
        yield
    except (SpoolMismatch, WrongCertificate) as error:
        click.echo(f"dicom-ingest: {error}", err=True)
        raise click.exceptions.Exit(EXIT_USAGE) from None
    except TopicMismatch as error:
        for problem in error.problems:
            click.echo(f"dicom-ingest: {problem}", err=True)
        raise click.exceptions.Exit(EXIT_USAGE) from None
    except (SpoolError, CorruptCheckpoint, KafkaUnreachable, NewerRecord) as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(_sentence(error, settings)) from None


def _sentence(error: OSError, settings: Settings) -> str:
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    # A socket's error names no file, and the event loop wraps its text; a resolver's number is no errno.
    resolving = isinstance(error, socket.gaierror) or not error.errno
    reason = error.strerror if resolving else os.strerror(error.errno or 0)
    if not resolving and error.errno not in _OF_AN_ADDRESS:
        return str(reason)  # of a file that is open, or of none: who says it may listen nowhere
    return f"cannot listen on {settings.receiver.host}:{settings.receiver.port}: {reason}"
