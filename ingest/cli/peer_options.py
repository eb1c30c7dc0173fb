"""The options of the commands that speak to a DICOM peer."""

import functools
from collections.abc import Callable
from typing import Final, TypeVar

import click

from ingest.contract.command_options import listen_address
from ingest.contract.identifiers import InvalidIdentifier, check_ae_title
from ingest.sender import Peer

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
    """Give a command ``--to --called --calling --timeout``, and the `Peer` as ``peer``."""

    @click.option(
        "--to",
        type=listen_address,
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
    @functools.wraps(command)
    def with_peer(to: tuple[str, int], called: str, calling: str, timeout: float, **parameters: object) -> R:
        return command(peer=Peer(*to, called, calling, timeout), **parameters)

    return with_peer
