"""Print the DICOM conformance statement of this installation, in Markdown."""

import click

from ingest.cli.conformance_statement import statement
from ingest.contract.command_options import data_settings
from ingest.contract.settings import Settings


@click.command()
@data_settings
def conformance(settings: Settings) -> None:
    """Print the DICOM conformance statement of this installation, in Markdown.

    After the order of PS3.2, from the code and the settings: SOP classes, transfer syntaxes, limits and timers, what
    each status means, and what a storage commitment promises.
    """
    click.echo("\n".join(statement(settings)))
