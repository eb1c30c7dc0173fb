"""Ask a DICOM peer whether it is there (C-ECHO)."""

import asyncio
import json
import time

import click

from ingest.association import VERIFICATION
from ingest.association.transfer_syntaxes import IMPLICIT_VR_LITTLE_ENDIAN
from ingest.cli.peer_options import peer_options
from ingest.contract.command_options import EXIT_FAILURE, json_option
from ingest.dimse.status import SUCCESS
from ingest.sender import AssociationFailed, Peer, Requestor
from ingest.sender.contexts import contexts_of


@click.command()
@peer_options
@json_option
def echo(peer: Peer, *, as_json: bool) -> None:
    """Ask a DICOM peer whether it is there (C-ECHO).

    Exits with 0 when it answers with success.
    """
    begun = time.perf_counter()
    try:
        status = asyncio.run(_echo(peer))
    except AssociationFailed as error:
        raise click.ClickException(str(error)) from None
    milliseconds = round((time.perf_counter() - begun) * 1000, 1)
    if as_json:
        click.echo(json.dumps({"status": status, "milliseconds": milliseconds}))
    else:
        click.echo(f"{peer} answered with status {status:04X}H in {milliseconds} ms, association included")
    if status != SUCCESS:
        raise SystemExit(EXIT_FAILURE)


async def _echo(peer: Peer) -> int:
    async with Requestor(peer, contexts_of([(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)])) as requestor:
        context = requestor.context_for(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)
        if context is None:
            raise AssociationFailed(f"{peer} accepted the association but not Verification")
        return await requestor.echo(context)
