"""What a command says where the data folder that it asks about is not there, or is another user's."""

import os
import pwd
import tempfile

import click

from ingest.contract.running import run_folder
from ingest.contract.settings import Settings


def warn_of_no_data(settings: Settings) -> bool:
    """Say on standard error, if so, that nothing was ever here, as in another directory than `serve` runs in."""
    if settings.log.kind != "spool" or settings.data.is_dir():
        return False
    where = settings.data.absolute()
    click.echo(f"warning: there is no data folder at {where}; name that of `serve` by --data", err=True)
    return True


def refuse_other_user(settings: Settings) -> None:
    """End where what is made here would be another user's than the service's, as root's: the service could not use it.

    Raises:
        click.ClickException: so it is.
    """
    folder = run_folder(settings.data)
    try:
        theirs = folder.stat().st_uid
        # A file tells, where the id of this process does not: a network's file system may give root's to somebody else.
        with tempfile.TemporaryFile(dir=folder) as file:
            ours = os.fstat(file.fileno()).st_uid
    except OSError:
        return  # nobody has worked here, or we may not: that is told by what follows
    if ours != theirs:
        user = _name(theirs)
        raise click.ClickException(
            f"the processes on {settings.data} run as {user} and could not use what {_name(ours)} makes there: "
            f"run this as {user} (sudo -u '{user}')"
        )


def _name(user: int) -> str:
    """As sudo(8) takes it."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"#{user}"
