"""What the commands that work on the stores share: check UIDs, open stores, end clearly, print for scripts, warn."""

import contextlib
import datetime as dt
from collections.abc import Iterator

import click
import msgspec

from ingest.contract.identifiers import InvalidIdentifier, check_uid
from ingest.contract.settings import Settings
from workers.errors import Unavailable
from workers.storage.entries import NoSuchEntry
from workers.storage.manifest import Manifest
from workers.storage.roots import roots_of
from workers.storage.shard_map import MAP_FILE, WrongStores
from workers.storage.stores import Stores, open_stores


def checked_uid(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """A UID of the command line, checked.

    Raises:
        click.BadParameter: it is none.
    """
    try:
        return None if value is None else check_uid(value)
    except InvalidIdentifier as error:
        raise click.BadParameter(str(error)) from None


def checked_text(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """A text of the command line that can be written down.

    Raises:
        click.BadParameter: the terminal's encoding is not ours.
    """
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise click.BadParameter("not UTF-8") from None
    return value


@contextlib.contextmanager
def clear_store_failures() -> Iterator[None]:
    """Turn what an administrator can mend into one line; anything else is a defect and keeps its traceback.

    Raises:
        click.ClickException: exit code 1.
    """
    try:
        yield
    except (WrongStores, Unavailable, NoSuchEntry) as error:
        raise click.ClickException(str(error)) from None
    except BrokenPipeError:  # whoever reads what is printed has seen enough, which click knows
        raise
    except OSError as error:
        # Without a name it may be of the file that the command prints to.
        raise click.ClickException(f"{error.filename or 'store or output'}: {error.strerror}") from None


def has_stores(settings: Settings) -> bool:
    """Whether any worker has ever worked here.

    Raises:
        click.ClickException: it cannot be found out.
    """
    with clear_store_failures():
        roots = roots_of(settings.store_locations, settings.store)
        return any(root.read(MAP_FILE) is not None for root in roots)


@contextlib.contextmanager
def opened_stores(settings: Settings, *, replaying: bool = False) -> Iterator[Stores]:
    """The configured stores, for a command that may run beside the workers.

    Raises:
        click.ClickException: they cannot be used.
    """
    with clear_store_failures():
        if not has_stores(settings):
            raise click.ClickException(f"there is no store at {settings.store_locations[0]}")
        with open_stores(settings.store_locations, settings.store, replaying=replaying) as stores:
            yield stores


def print_json(value: object) -> None:
    """Print for scripts."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def time_text(nanoseconds: int) -> str:
    """A time since 1970-01-01 UTC, to the second."""
    moment = dt.datetime.fromtimestamp(nanoseconds // 1_000_000_000, dt.UTC)
    return moment.isoformat().replace("+00:00", "Z")


def warn_acknowledged(manifest: Manifest | None, sop_instance_uid: str) -> None:
    """Say on standard error that the source believes the instance to be in safe hands."""
    if manifest is None or not manifest.received_at:
        return
    click.echo(
        f"warning: {sop_instance_uid or 'an instance without UID'} was acknowledged to "
        f"{manifest.calling_ae_title or 'its source'} ({manifest.peer_address}) as received at "
        f"{time_text(manifest.received_at)}; the source may have deleted its copy",
        err=True,
    )
