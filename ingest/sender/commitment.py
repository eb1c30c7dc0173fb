"""Storage commitment (PS3.4 Annex J): as SCU asked for and waited for, as SCP reported on a new association."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ingest.association import (
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    AcceptedContext,
    PresentationContext,
    RoleSelection,
)
from ingest.association.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from ingest.contract.commitments import Found, Reference
from ingest.dimse.commitment_report import Report, encode_report, report_of
from ingest.dimse.commitment_request import REQUEST_STORAGE_COMMITMENT, encode_request
from ingest.dimse.normalized import NActionResponse
from ingest.dimse.status import INVALID_ARGUMENT_VALUE, SUCCESS
from ingest.sender.listener import listening
from ingest.sender.requestor import AssociationFailed, NoAnswer, Peer, Requestor

CONTEXTS: Final = (
    PresentationContext(1, STORAGE_COMMITMENT, (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)),
)
# PS3.7 D.3.3.4: who opens an association is its SCU unless said otherwise.
AS_SCP: Final = (RoleSelection(STORAGE_COMMITMENT, scu_role=False, scp_role=True),)
_RELEASE: Final = 5.0  # s for a peer to release once it has answered a report


async def report(
    peer: Peer,
    transaction_uid: str,
    committed: Sequence[Found],
    failed: Sequence[Found],
    retrieve_ae_title: str,
    *,
    propose_role: bool,
    within: float | None = None,
) -> int:
    """Send one N-EVENT-REPORT on an association of its own; the status that the peer answers with.

    With ``propose_role`` the SCP role is proposed. A peer that answers nothing to that is reported to all the
    same: old ones accept the context and know no roles. Its answer counts, however slowly it releases.

    Raises:
        NoAnswer: it ended, or there was no answer in time, which is ``within`` seconds for all of it.
        AssociationFailed: no association, or commitment or the role not accepted.
        TimeoutError: no association in that time.
    """
    made = report_of(transaction_uid, committed, failed, retrieve_ae_title)
    status: int | None = None
    associated = False
    try:
        async with (
            asyncio.timeout(within) as limit,
            Requestor(peer, CONTEXTS, roles=AS_SCP if propose_role else ()) as requestor,
        ):
            associated = True
            status = await _answer_to(requestor, made, propose_role=propose_role)
            limit.reschedule(asyncio.get_running_loop().time() + _RELEASE)
    except TimeoutError:
        if not associated:
            raise
    if status is None:
        raise NoAnswer(f"no answer of {peer} within {within:g} s")
    return status


async def _answer_to(requestor: Requestor, made: Report, *, propose_role: bool) -> int:
    context = _commitment_context(requestor)
    if propose_role and requestor.scp_role_refused(STORAGE_COMMITMENT):
        raise AssociationFailed(f"{requestor.peer} does not accept that we report: it refused the SCP role")
    data_set = await asyncio.to_thread(encode_report, made, explicit=context.is_explicit)
    try:
        response = await requestor.event_report(
            context.context_id,
            STORAGE_COMMITMENT,
            STORAGE_COMMITMENT_INSTANCE,
            made.event_type_id,
            data_set,
        )
    except AssociationFailed as error:
        raise NoAnswer(str(error)) from None
    return response.status


@dataclass
class CommitResult:
    """What became of a request for commitment; an instance is in one of the three."""

    transaction_uid: str
    unreported: dict[Reference, None]
    committed: list[Reference] = field(default_factory=list)
    failed: list[tuple[Reference, int]] = field(default_factory=list)
    problem: str = ""  # why there is no report, or not of all
    retrieve_ae_title: str = ""
    complete: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, received: Report) -> int:
        """A report has come: of all instances or, where the peer splits them, of some."""
        if received.transaction_uid != self.transaction_uid:
            return INVALID_ARGUMENT_VALUE
        self.retrieve_ae_title = received.retrieve_ae_title or self.retrieve_ae_title
        for failure in received.failed:
            reference = Reference(failure.sop_class_uid, failure.sop_instance_uid)
            if self._settles(reference):
                self.failed.append((reference, failure.reason))
        for kept in received.committed:
            reference = Reference(kept.sop_class_uid, kept.sop_instance_uid)
            if self._settles(reference):
                self.committed.append(reference)
        if not self.unreported:
            self.complete.set()
        return SUCCESS

    def _settles(self, reference: Reference) -> bool:
        """Whether it was asked for and not reported yet: what a peer adds or repeats does not count."""
        asked = reference in self.unreported
        self.unreported.pop(reference, None)
        return asked


async def commit(
    peer: Peer, references: Iterable[Reference], *, seconds: float, listen: tuple[str, int] | None = None
) -> CommitResult:
    """Ask for commitment of all instances in one transaction, and wait for what the peer reports.

    Args:
        peer: whom to ask.
        references: what it should keep.
        seconds: how long to wait for its report.
        listen: host and port where it reports on an association of its own, as the AE title that calls;
            without it, the association of the request is kept open for the report.

    Raises:
        OSError: ``listen`` cannot be bound.
    """
    result = CommitResult(f"2.25.{uuid.uuid4().int}", dict.fromkeys(references))
    async with _listening(peer, result, listen):
        try:
            await _ask(peer, result, seconds=0 if listen else seconds)
            if listen:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await result.complete.wait()
            if not result.complete.is_set():
                result.problem = f"no report of all within {seconds:g} s"
        except AssociationFailed as error:
            result.problem = str(error)
    return result


@contextlib.asynccontextmanager
async def _listening(peer: Peer, result: CommitResult, listen: tuple[str, int] | None) -> AsyncIterator[None]:
    if listen is None:
        yield
    else:
        async with listening(listen, peer.calling_ae_title, result.take, silence=peer.timeout):
            yield


async def _ask(peer: Peer, result: CommitResult, *, seconds: float) -> None:
    """N-ACTION; then wait on the same association, if at all.

    Raises:
        AssociationFailed: it ended, the peer refused, or no answer in time.
    """
    async with Requestor(peer, CONTEXTS, took=result.take) as requestor:
        context = _commitment_context(requestor)
        data_set = encode_request(result.transaction_uid, result.unreported, explicit=context.is_explicit)
        response = await requestor.action(
            context.context_id,
            STORAGE_COMMITMENT,
            STORAGE_COMMITMENT_INSTANCE,
            REQUEST_STORAGE_COMMITMENT,
            data_set,
        )
        if response.status != SUCCESS:
            raise AssociationFailed(f"{peer} refused the request for commitment: {_words(response)}")
        if seconds:
            with contextlib.suppress(TimeoutError):  # an orderly end: the report may still come elsewhere
                await requestor.attend(result.complete, seconds)


def _words(response: NActionResponse) -> str:
    comment = response.error_comment
    return f"{response.status:04X}H" + (f", {comment!a}" if comment else "")


def _commitment_context(requestor: Requestor) -> AcceptedContext:
    context = requestor.accepted(STORAGE_COMMITMENT)
    if context is None:
        raise AssociationFailed(f"{requestor.peer} accepted the association but not Storage Commitment")
    return context
