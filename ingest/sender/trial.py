"""A source's return address tried out, step by step, as a commitment report would use it (PS3.4 J.3.3)."""

import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final, Literal, NamedTuple

from ingest.association import STORAGE_COMMITMENT, VERIFICATION
from ingest.association.transfer_syntaxes import IMPLICIT_VR_LITTLE_ENDIAN
from ingest.contract.settings import SourceSettings
from ingest.contract.tls import WrongCertificate, certificate_of
from ingest.dimse.status import SUCCESS
from ingest.sender.commitment import AS_SCP, CONTEXTS
from ingest.sender.contexts import contexts_of
from ingest.sender.requestor import AssociationFailed, Peer, Requestor, connect
from ingest.sender.tls import tls_of

Result = Literal["ok", "failed", "skipped"]

_DAY: Final = 86400.0  # s


class Step(NamedTuple):
    """One step and what became of it."""

    name: str
    result: Result
    detail: str


async def try_out(source: SourceSettings, own_ae_title: str, timeout: float) -> AsyncIterator[Step]:  # noqa: ASYNC109 - of each answer of the peer, as `Peer` has it
    """Each step as it ends; none is tried when one that it needs has failed."""
    if not source.host:
        yield Step("address", "failed", "no return address is set")
        return
    yield Step("address", "ok", f"{source.host}:{source.port}")
    called = source.called_ae_title or source.ae_titles[0]
    peer = Peer(source.host, source.port, called, source.calling_ae_title or own_ae_title, timeout)
    connection = await _connection(peer)
    yield connection
    if connection.result == "failed":
        return
    if source.tls:
        try:
            peer = replace(peer, tls=tls_of(source))
        except WrongCertificate as error:
            yield Step("TLS", "failed", str(error))
            return
        handshake = await _handshake(peer)
        yield handshake
        if handshake.result == "failed":
            return
    else:
        yield Step("TLS", "skipped", "sources.NAME.tls is false")
    yield await _echo(peer)
    yield await _commitment(peer, propose_role=source.propose_role)


async def _connection(peer: Peer) -> Step:
    begun = time.perf_counter()
    try:
        _, writer = await connect(peer)
    except AssociationFailed as error:
        return Step("connection", "failed", str(error))
    writer.transport.abort()
    return Step("connection", "ok", f"{(time.perf_counter() - begun) * 1000:.0f} ms")


async def _handshake(peer: Peer) -> Step:
    try:
        _, writer = await connect(peer)
    except AssociationFailed as error:
        return Step("TLS", "failed", str(error))
    session: ssl.SSLObject = writer.get_extra_info("ssl_object")
    detail = _session(session)
    writer.transport.abort()
    return Step("TLS", "ok", detail)


def _session(session: ssl.SSLObject) -> str:
    cipher, certificate = session.cipher(), certificate_of(session)
    decoded = session.getpeercert()
    if certificate is None or not decoded:
        return str(session.version())
    days = (ssl.cert_time_to_seconds(str(decoded["notAfter"])) - time.time()) / _DAY
    return (
        f"{session.version()}, {cipher[0] if cipher else ''}; subject:{certificate.subject}, "
        f"sha256:{certificate.sha256}, expires in {days:.0f} days"
    )


async def _echo(peer: Peer) -> Step:
    try:
        async with Requestor(peer, contexts_of([(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)])) as requestor:
            context = requestor.accepted(VERIFICATION)
            if context is None:
                return Step("C-ECHO", "failed", "Verification is not accepted")
            status = await requestor.echo(context.context_id)
    except AssociationFailed as error:
        return Step("C-ECHO", "failed", str(error))
    return Step("C-ECHO", "ok" if status == SUCCESS else "failed", f"status {status:04X}H")


async def _commitment(peer: Peer, *, propose_role: bool) -> Step:
    """What a report negotiates; nothing is reported."""
    try:
        async with Requestor(peer, CONTEXTS, roles=AS_SCP if propose_role else ()) as requestor:
            context = requestor.accepted(STORAGE_COMMITMENT)
            refused = requestor.scp_role_refused(STORAGE_COMMITMENT)
    except AssociationFailed as error:
        return Step("commitment", "failed", str(error))
    if context is None:
        return Step("commitment", "failed", "Storage Commitment is not accepted")
    if propose_role and refused:
        return Step("commitment", "failed", "the SCP role is refused")
    return Step(
        "commitment",
        "ok",
        "accepted with the SCP role proposed" if propose_role else "accepted without a role",
    )
