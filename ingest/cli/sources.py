"""List the sources of the settings, or try out the return address of one."""

import asyncio
import json

import click

from ingest.contract.command_columns import aligned
from ingest.contract.command_options import EXIT_FAILURE, data_settings, json_option
from ingest.contract.settings import Settings, SourceSettings
from ingest.sender.trial import Step, try_out

_HEADINGS = ("name", "AE titles", "addresses", "certificates", "limits", "reports to")


@click.group()
def sources() -> None:
    """List the sources of the settings, or try out the return address of one."""


@sources.command("list")
@data_settings
@json_option
def list_sources(settings: Settings, *, as_json: bool) -> None:
    """Print who may send, from where, with how much, and where reports go."""
    if as_json:
        found = [
            {"name": name, **source.model_dump(mode="json")} for name, source in settings.sources.items()
        ]
        click.echo(
            json.dumps({"unknown_sources": settings.receiver.unknown_sources, "sources": found}, indent=2)
        )
        return
    rows = [_HEADINGS, *(_row(name, source) for name, source in settings.sources.items())]
    click.echo("\n".join(aligned(rows)))
    click.echo(f"all other AE titles: {settings.receiver.unknown_sources}")


@sources.command("test")
@click.argument("name")
@data_settings
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds to wait for each answer.",
)
@json_option
def try_source(settings: Settings, *, name: str, timeout: float, as_json: bool) -> None:
    """Try the return address of source NAME: connection, TLS, C-ECHO, and the roles of a commitment report.

    Nothing is sent that changes anything. Exits with 1 when a step fails.
    """
    source = settings.sources.get(name)
    if source is None:
        names = ", ".join(settings.sources) or "none"
        raise click.UsageError(f"there is no source {name!r}; there are: {names}")
    steps = asyncio.run(_steps(source, settings.receiver.ae_title, timeout, quiet=as_json))
    if as_json:
        click.echo(json.dumps([step._asdict() for step in steps], indent=2))
    if any(step.result == "failed" for step in steps):
        raise SystemExit(EXIT_FAILURE)


async def _steps(source: SourceSettings, ae_title: str, seconds: float, *, quiet: bool) -> list[Step]:
    steps = []
    async for step in try_out(source, ae_title, seconds):
        steps.append(step)
        if not quiet:
            click.echo(f"{step.name:<10}  {step.result:<7}  {step.detail}")
    return steps


def _row(name: str, source: SourceSettings) -> tuple[str, ...]:
    where = f"{source.host}:{source.port}" + (" with TLS" if source.tls else "") if source.host else "-"
    return (
        name,
        ", ".join(source.ae_titles),
        ", ".join(source.addresses) or "any",
        ", ".join(_shortened(certificate) for certificate in source.certificates) or "-",
        ", ".join(_limits(source)) or "-",
        where,
    )


def _limits(source: SourceSettings) -> list[str]:
    limits = {
        "associations": source.maximum_associations,
        "bytes": source.maximum_instance_size,
        "bytes/s": source.maximum_rate,
        "SOP classes": len(source.sop_classes),
    }
    return [f"{limit} {unit}" for unit, limit in limits.items() if limit]


def _shortened(certificate: str) -> str:
    return certificate[:15] + "…" if certificate.startswith("sha256:") else certificate
