"""Make or check the Kafka topics that the settings promise."""

import json

import click

from ingest.contract.command_failures import clear_failures
from ingest.contract.command_options import EXIT_FAILURE, EXIT_USAGE, data_settings, json_option
from ingest.contract.kafka import is_single_copy
from ingest.contract.settings import Settings


@click.group()
def topics() -> None:
    """Make or check the Kafka topics that the settings promise."""


@topics.command()
@data_settings
def create(settings: Settings) -> None:
    """Make the topics that are not there, as recommended. One that is there is left as it is."""
    _needs_kafka(settings)
    # The client is an extra that one machine does not need.
    from ingest.contract.kafka_topics import create_topics, needed_topics  # noqa: PLC0415 - an extra

    with clear_failures(settings):
        made = create_topics(settings)
    for topic in needed_topics(settings):
        click.echo(f"{topic}: {'made' if topic in made else 'is there already; see `topics check`'}")


@topics.command()
@data_settings
@json_option
def check(settings: Settings, *, as_json: bool) -> None:
    """Compare the topics with the settings, as receiver and workers do at their start.

    Exits with 1 when one of them would not start.
    """
    _needs_kafka(settings)
    from ingest.contract.kafka_topics import describe_topics  # noqa: PLC0415 - an extra

    with clear_failures(settings):
        states = describe_topics(settings)
    problems = [problem for state in states for problem in state.problems]
    advice = [line for state in states for line in state.advice]
    single_copy = is_single_copy(settings)
    if as_json:
        found = {
            "topics": [state._asdict() for state in states],
            "single_copy": single_copy,
            "valid": not problems,
        }
        click.echo(json.dumps(found, indent=2))
    else:
        for line in (*problems, *advice):
            click.echo(line)
        if single_copy:
            click.echo("single copy: the loss of one broker may lose acknowledged instances")
        if not problems:
            click.echo("the topics are as the settings promise")
    if problems:
        raise SystemExit(EXIT_FAILURE)


def _needs_kafka(settings: Settings) -> None:
    if settings.log.kind != "kafka":
        click.echo("dicom-ingest: log.kind is spool, which has no topics; allowed: kafka", err=True)
        raise click.exceptions.Exit(EXIT_USAGE)
