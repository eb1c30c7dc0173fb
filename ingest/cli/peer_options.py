"""The options of the commands that speak to a DICOM peer."""

import functools
from collections.abc import Callable
from typing import Final, TypeVar

import click

from ingest.contract.command_options import host_port
from ingest.contract.identifiers import InvalidIdentifier, check_ae_title
from ingest.contract.tls import WrongCertificate, client_context
from ingest.sender import Peer
from ingest.sender.tls import ClientTls

R = TypeVar("R")

CALLING_AE_TITLE: Final = "DICOM-INGEST-SCU"


def ae_title(value: str) -> str:
    """An AE title of a flag.

    Raises:
        click.BadParameter: it is none.
    """
    try:
        return check_ae_title(value.strip(" "))
    except InvalidIdentifier as error:
        raise click.BadParameter(str(error)) from None


def peer_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command ``--to --called --calling --timeout --tls``, and the `Peer` as ``peer``."""

    @click.option(
        "--to",
        type=host_port,
        default="127.0.0.1:11112",
        show_default=True,
        metavar="HOST:PORT",
        help="The peer.",
    )
    @click.option(
        "--called",
        type=ae_title,
        default="DICOM-INGEST",
        show_default=True,
        metavar="NAME",
        help="Its AE title.",
    )
    @click.option(
        "--calling",
        type=ae_title,
        default=CALLING_AE_TITLE,
        show_default=True,
        metavar="NAME",
        help="Our AE title.",
    )
    @click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=60.0,
        show_default=True,
        help="Seconds to wait for each answer.",
    )
    @_tls_options
    @functools.wraps(command)
    def with_peer(
        to: tuple[str, int],
        called: str,
        calling: str,
        timeout: float,
        tls: ClientTls | None,
        **parameters: object,
    ) -> R:
        return command(peer=Peer(*to, called, calling, timeout, tls), **parameters)

    return with_peer


def _tls_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command ``--tls`` and what belongs to it, and the `ClientTls` as ``tls``, None without."""
    file = click.Path(exists=True, dir_okay=False)

    @click.option("--tls", is_flag=True, help="Use TLS by the BCP 195 profile.")
    @click.option("--tls-ca", type=file, help="PEM file of the authorities that sign it; else the system's.")
    @click.option("--tls-cert", type=file, help="PEM file of our certificate, where it asks for one.")
    @click.option("--tls-key", type=file, help="PEM file of its private key.")
    @click.option(
        "--tls-name",
        metavar="NAME",
        help="Name that its certificate must be of, else the host of --to; empty: any of the authority.",
    )
    @functools.wraps(command)
    def with_tls(
        *,
        tls: bool,
        tls_ca: str | None,
        tls_cert: str | None,
        tls_key: str | None,
        tls_name: str | None,
        **parameters: object,
    ) -> R:
        if not tls:
            if any((tls_ca, tls_cert, tls_key, tls_name is not None)):
                raise click.UsageError("--tls-ca, --tls-cert, --tls-key and --tls-name are for --tls")
            return command(tls=None, **parameters)
        if bool(tls_cert) != bool(tls_key):
            raise click.UsageError("--tls-cert and --tls-key belong together")
        try:
            context = client_context(tls_ca or "", tls_cert or "", tls_key or "", check_name=tls_name != "")
        except WrongCertificate as error:
            raise click.UsageError(str(error)) from None
        return command(tls=ClientTls(context, tls_name or ""), **parameters)

    return with_tls
