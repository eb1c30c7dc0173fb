"""Association negotiation (PS3.8 9.3.2 to 9.3.4, PS3.7 Annex D.3): a request and a policy make the answer.

A function without state: whatever it returns holds the PDU to send.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ingest.association.pdu import AssociateAccept, AssociateReject, AssociateRequest, Rejection
from ingest.association.pdu_items import (
    DICOM_APPLICATION_CONTEXT,
    PresentationContext,
    PresentationContextResult,
    RoleSelection,
    UserInformation,
    invalid,
)
from ingest.association.storage_classes import (
    STORAGE_CLASSES,
    STORAGE_COMMITMENT,
    STORAGE_SERVICE_CLASS,
    VERIFICATION,
)
from ingest.association.transfer_syntaxes import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    PLAIN,
    preference_order,
)
from ingest.contract.identifiers import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    InvalidIdentifier,
    check_ae_title,
    check_uid,
)
from ingest.errors import RemoteProtocolError

# PS3.8 Table 9-18, result of a presentation context; 1 user-rejection and 2 no-reason are not used.
ACCEPTANCE = 0
ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
TRANSFER_SYNTAXES_NOT_SUPPORTED = 4

# What we send at most when the peer sets no limit: the largest that DCMTK handles.
UNLIMITED_SEND_LENGTH = 131_072
# What a peer bears that announces nothing, against PS3.8 D.1: DCMTK's default.
UNANNOUNCED_SEND_LENGTH = 16_384
# PS3.8 D.1 with E.2: below it not even an even fragment fits.
MINIMUM_SEND_LENGTH = 8
_DICOM_ROOT = "1.2.840.10008."
_STORAGE_BRANCH = "1.2.840.10008.5.1.4.1.1."


class AcceptedContext(NamedTuple):
    """A presentation context in use."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str

    @property
    def is_explicit(self) -> bool:
        """Whether its data sets are in Explicit VR Little Endian; those of storage commitment else are in Implicit VR."""
        return self.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN


@dataclass(frozen=True)
class AcceptorPolicy:
    """What an acceptor accepts; of whom is its caller's matter.

    ``ae_title`` is ours; ``accept_any_called_ae`` lets others through. ``maximum_length`` is the PDU-length
    that we announce, in bytes. ``transfer_syntax_preference`` are UIDs to prefer before the built-in order.
    ``private_storage_classes`` are SOP Class UIDs to take as storage beside the standard's.
    ``storage_classes``, when given, are all that is stored. ``storage`` is off for one that is not stored to.
    Of storage commitment, ``commitment_scp`` is to take requests, ``commitment_scu`` to be reported to.

    Raises:
        ValueError: a preferred transfer syntax cannot be received, a private class is a standard one of
            another service class or no UID at all, or the maximum length leaves no room for a fragment.
    """

    ae_title: str
    accept_any_called_ae: bool = False
    maximum_length: int = 256 * 1024
    transfer_syntax_preference: tuple[str, ...] = ()
    private_storage_classes: frozenset[str] = frozenset()
    storage_classes: frozenset[str] | None = None
    storage: bool = True
    commitment_scp: bool = False
    commitment_scu: bool = False
    ranks: Mapping[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranks", preference_order(self.transfer_syntax_preference))
        if self.maximum_length < MINIMUM_SEND_LENGTH:
            raise ValueError(f"a maximum length of {self.maximum_length} leaves no room for a fragment")
        for uid in self.private_storage_classes:
            check_uid(uid)
            if uid.startswith(_DICOM_ROOT) and uid not in STORAGE_CLASSES:
                raise ValueError(f"{uid} is a standard SOP Class, and not of the Storage Service Class")


@dataclass(frozen=True, slots=True)
class Accepted:
    """The association is accepted, perhaps with every context refused (PS3.8 has no rejection for that)."""

    reply: AssociateAccept
    contexts: Mapping[int, AcceptedContext]
    send_limit: int
    receive_limit: int


Answer = Accepted | AssociateReject | RemoteProtocolError


def negotiate(request: AssociateRequest, policy: AcceptorPolicy) -> Answer:
    """Answer an A-ASSOCIATE-RQ: the acceptance, the rejection, or, where it is malformed, the error to abort with.

    Give the result to `Association.answer`.
    """
    rejection = _rejection(request, policy)
    if rejection is not None:
        return AssociateReject.of(rejection)
    try:
        _check_contexts(request.contexts)
        limit = send_limit(request.user_information)
    except RemoteProtocolError as fault:
        return fault
    return _accept(request, policy, limit)


def confirm(request: AssociateRequest, reply: AssociateAccept) -> dict[int, AcceptedContext]:
    """Requestor: the contexts that the A-ASSOCIATE-AC accepts.

    An answer to a context that was not proposed is passed over, as is a second one to the same.

    Raises:
        RemoteProtocolError: it accepts a context with a syntax that was not offered.
    """
    proposed = {context.context_id: context for context in request.contexts}
    accepted = {}
    for result in reply.contexts:
        context = proposed.pop(result.context_id, None)
        if context is not None and result.result == ACCEPTANCE:
            if result.transfer_syntax not in context.transfer_syntaxes:
                raise invalid("a transfer syntax was accepted that was not offered")
            accepted[context.context_id] = AcceptedContext(
                context.context_id, context.abstract_syntax, result.transfer_syntax
            )
    return accepted


def send_limit(user_information: UserInformation) -> int:
    """The PDU-length that we may send to a peer of this user information (PS3.8 D.1).

    Raises:
        RemoteProtocolError: too small to send anything.
    """
    announced = user_information.maximum_length
    if announced is None:
        return UNANNOUNCED_SEND_LENGTH
    if announced == 0:
        return UNLIMITED_SEND_LENGTH
    if announced < MINIMUM_SEND_LENGTH:
        raise invalid("the announced maximum length leaves no room for a fragment")
    return announced


def _rejection(request: AssociateRequest, policy: AcceptorPolicy) -> Rejection | None:
    # PS3.8 9.3.2: "bit 0 set"; a peer that sets further bits speaks further versions too.
    if not request.protocol_version & 1:
        return Rejection.PROTOCOL_VERSION_NOT_SUPPORTED
    if request.application_context != DICOM_APPLICATION_CONTEXT:
        return Rejection.APPLICATION_CONTEXT_NAME_NOT_SUPPORTED
    called, calling = request.called_ae_title, request.calling_ae_title
    if not _is_ae_title(called) or (called != policy.ae_title and not policy.accept_any_called_ae):
        return Rejection.CALLED_AE_TITLE_NOT_RECOGNIZED
    if not _is_ae_title(calling):
        return Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED
    return None


def _is_ae_title(text: str) -> bool:
    try:
        check_ae_title(text)
    except InvalidIdentifier:
        return False
    return True


def _check_contexts(contexts: tuple[PresentationContext, ...]) -> None:
    """PS3.8 9.3.2.2: at least one context, IDs odd and each once."""
    if not contexts:
        raise invalid("the request proposes no presentation context")
    ids = {context.context_id for context in contexts}
    if len(ids) != len(contexts):
        raise invalid("a presentation context ID is proposed twice")
    if not all(context_id & 1 for context_id in ids):
        raise invalid("a presentation context ID is not odd")


def _accept(request: AssociateRequest, policy: AcceptorPolicy, limit: int) -> Accepted:
    supported = _supported_classes(request, policy)
    results = [_result(context, supported, policy.ranks) for context in request.contexts]
    accepted = {
        context.context_id: AcceptedContext(
            context.context_id, context.abstract_syntax, result.transfer_syntax
        )
        for context, result in zip(request.contexts, results, strict=True)
        if result.result == ACCEPTANCE
    }
    # No 53H in the answer: absent means one operation at a time (PS3.7 D.3.3.3). No 56H: the defaults of
    # PS3.4 B.3.1 apply. No 59H: a user identity is not verified.
    user_information = UserInformation(
        maximum_length=policy.maximum_length,
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version_name=IMPLEMENTATION_VERSION_NAME,
        role_selections=tuple(
            _roles(request, policy, {context.abstract_syntax for context in accepted.values()})
        ),
    )
    reply = AssociateAccept(
        called_ae_title=request.called_ae_title,
        calling_ae_title=request.calling_ae_title,
        contexts=tuple(results),
        user_information=user_information,
        reserved=request.reserved,
    )
    return Accepted(reply, accepted, limit, policy.maximum_length)


def _supported_classes(request: AssociateRequest, policy: AcceptorPolicy) -> set[str]:
    """Which abstract syntaxes we serve, of storage those that were proposed."""
    supported = {VERIFICATION}
    if policy.commitment_scp or policy.commitment_scu:
        supported.add(STORAGE_COMMITMENT)
    if policy.storage:
        supported |= policy.private_storage_classes
        supported.update(
            context.abstract_syntax
            for context in request.contexts
            if context.abstract_syntax in STORAGE_CLASSES
        )
        # PS3.7 D.3.3.6: the requestor says which service class a SOP Class is of.
        supported.update(
            item.sop_class_uid
            for item in request.user_information.common_extended_negotiations
            if item.service_class_uid == STORAGE_SERVICE_CLASS and _may_be_storage(item.sop_class_uid)
        )
    if policy.storage_classes is not None:
        supported &= policy.storage_classes | {VERIFICATION, STORAGE_COMMITMENT}
    return supported


def _may_be_storage(uid: str) -> bool:
    """Whether to believe it of a class that is not listed: private, or a standard one newer than the list."""
    try:
        check_uid(uid)
    except InvalidIdentifier:
        return False
    return not uid.startswith(_DICOM_ROOT) or uid.startswith(_STORAGE_BRANCH)


def _result(
    context: PresentationContext, supported: set[str], ranks: Mapping[str, int]
) -> PresentationContextResult:
    # The transfer syntax beside a refusal has no meaning but must be there (PS3.8 9.3.3.2).
    if context.abstract_syntax not in supported:
        return PresentationContextResult(
            context.context_id, ABSTRACT_SYNTAX_NOT_SUPPORTED, IMPLICIT_VR_LITTLE_ENDIAN
        )
    plain_only = context.abstract_syntax == STORAGE_COMMITMENT
    known = [uid for uid in context.transfer_syntaxes if uid in (PLAIN if plain_only else ranks)]
    if not known:
        return PresentationContextResult(
            context.context_id, TRANSFER_SYNTAXES_NOT_SUPPORTED, IMPLICIT_VR_LITTLE_ENDIAN
        )
    return PresentationContextResult(context.context_id, ACCEPTANCE, min(known, key=ranks.__getitem__))


def _roles(request: AssociateRequest, policy: AcceptorPolicy, accepted: set[str]) -> Iterator[RoleSelection]:
    """PS3.7 D.3.3.4: answer only what was proposed, and grant only a role that was proposed.

    The requestor stores, we are stored to: it may be SCU, and not SCP. With storage commitment, it asks as SCU,
    and reports as SCP on an association that it opens for that (PS3.4 J.3.3).
    """
    proposed = {item.sop_class_uid: item for item in request.user_information.role_selections}
    for item in proposed.values():
        if item.sop_class_uid not in accepted:
            continue
        if item.sop_class_uid == STORAGE_COMMITMENT:
            scu, scp = policy.commitment_scp, policy.commitment_scu
        else:
            scu, scp = True, False
        yield replace(item, scu_role=item.scu_role and scu, scp_role=item.scp_role and scp)
