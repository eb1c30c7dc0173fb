"""What the commands share that ask the ledger: open it, bring it up to date, and end clearly."""

import contextlib
from collections.abc import Iterator

import click

from ingest.contract.command_failures import clear_failures
from ingest.contract.pseudonyms import NoKey
from ingest.contract.settings import Settings
from workers.errors import Unavailable
from workers.ledger.consumer import catch_up, logs_of, move_rows
from workers.ledger.database import LedgerUnavailable, open_database
from workers.ledger.ledger import Ledger
from workers.log.commit_metadata import ForeignCommit
from workers.storage.shard_map import WrongStores


@contextlib.contextmanager
def clear_ledger_failures(settings: Settings) -> Iterator[None]:
    """Turn what an administrator can mend into one line.

    Raises:
        click.ClickException: exit code 1.
    """
    with clear_failures(settings):
        try:
            yield
        except (LedgerUnavailable, NoKey, ForeignCommit, Unavailable, WrongStores) as error:
            raise click.ClickException(str(error)) from None


@contextlib.contextmanager
def opened_ledger(settings: Settings) -> Iterator[Ledger]:
    """The ledger, all entered that the logs and stores have now, whether or not its own process runs.

    Raises:
        LedgerUnavailable: the database.
        KafkaUnreachable, SpoolMismatch, OSError: the logs'.
        WrongStores, Unavailable: the stores'.
    """
    ledger = Ledger(open_database(settings))
    with contextlib.closing(ledger), contextlib.closing(logs_of(settings)) as logs:
        catch_up(ledger, logs)
        ledger.note_moves(move_rows(settings))
        _, lost = ledger.counts()
        if lost:
            click.echo(
                f"warning: {lost} stretches of the logs were gone before the ledger read them; "
                "`dicom-ingest ledger rebuild` fills in what the stores still tell",
                err=True,
            )
        yield ledger
