"""What a command says where the data folder that it asks about is not there."""

import click

from ingest.contract.settings import Settings


def warn_of_no_data(settings: Settings) -> bool:
    """Say on standard error, if so, that nothing was ever here, as in another directory than `serve` runs in."""
    if settings.log.kind != "spool" or settings.data.is_dir():
        return False
    where = settings.data.absolute()
    click.echo(f"warning: there is no data folder at {where}; name that of `serve` by --data", err=True)
    return True
