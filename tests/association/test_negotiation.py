"""Who and what is accepted (PS3.8 9.3.2 to 9.3.4, PS3.7 D.3.3, PS3.5 section 10)."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.association import (
    Accepted,
    AcceptedContext,
    AcceptorPolicy,
    AssociateReject,
    AssociateRequest,
    PresentationContext,
    Rejection,
    RoleSelection,
    UserInformation,
    negotiate,
)
from ingest.association.negotiation import confirm, send_limit
from ingest.association.pdu import AssociateAccept
from ingest.association.pdu_items import (
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    PresentationContextResult,
    UserIdentity,
)
from ingest.association.transfer_syntaxes import BUILT_IN_PREFERENCE, preference_order
from ingest.errors import AbortReason, AbortSource, RemoteProtocolError
from tests.association.strategies import ASSOCIATE_REQUESTS
from tests.vectors import pdus as vectors

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
JPIP = (
    "1.2.840.10008.1.2.4.94",
    "1.2.840.10008.1.2.4.95",
    "1.2.840.10008.1.2.4.204",
    "1.2.840.10008.1.2.4.205",
)
CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
COMMITMENT = "1.2.840.10008.1.20.1"
FIND = "1.2.840.10008.5.1.4.1.2.1.1"
PRIVATE = "1.3.12.2.1107.5.9.1"
STORAGE = "1.2.840.10008.4.2"
POLICY = AcceptorPolicy("SCP")


def request(*contexts: tuple[str, tuple[str, ...]], **user_information: object) -> AssociateRequest:
    return AssociateRequest(
        called_ae_title="SCP",
        calling_ae_title="SCU",
        contexts=tuple(PresentationContext(2 * n + 1, *context) for n, context in enumerate(contexts)),
        user_information=UserInformation(**{"maximum_length": 16384, **user_information}),  # type: ignore[arg-type]  # by name
    )


def accepted(asked: AssociateRequest, policy: AcceptorPolicy = POLICY) -> Accepted:
    answer = negotiate(asked, policy)
    assert isinstance(answer, Accepted)
    return answer


def results(answer: Accepted) -> list[tuple[int, str]]:
    return [(context.result, context.transfer_syntax) for context in answer.reply.contexts]


ECHO = request((VERIFICATION, (IMPLICIT,)))


def test_accepts() -> None:
    """The reply echoes titles and reserved bytes, names us, and announces our maximum length."""
    answer = accepted(replace(ECHO, reserved=b"\x07" * 32))
    assert answer.reply.called_ae_title == "SCP"
    assert answer.reply.calling_ae_title == "SCU"
    assert answer.reply.reserved == b"\x07" * 32
    assert answer.reply.protocol_version == 1
    user = answer.reply.user_information
    assert user.maximum_length == POLICY.maximum_length
    assert user.implementation_class_uid
    assert 1 <= len(user.implementation_version_name or "") <= 16
    assert answer.contexts == {1: AcceptedContext(1, VERIFICATION, IMPLICIT)}


@pytest.mark.parametrize(
    ("change", "rejection"),
    [
        ({"protocol_version": 0}, Rejection.PROTOCOL_VERSION_NOT_SUPPORTED),
        ({"protocol_version": 0xFFFE}, Rejection.PROTOCOL_VERSION_NOT_SUPPORTED),
        ({"application_context": "1.2.840.10008.3.1.1.2"}, Rejection.APPLICATION_CONTEXT_NAME_NOT_SUPPORTED),
        ({"application_context": ""}, Rejection.APPLICATION_CONTEXT_NAME_NOT_SUPPORTED),
        ({"called_ae_title": "OTHER"}, Rejection.CALLED_AE_TITLE_NOT_RECOGNIZED),
        ({"called_ae_title": "scp"}, Rejection.CALLED_AE_TITLE_NOT_RECOGNIZED),
        ({"called_ae_title": ""}, Rejection.CALLED_AE_TITLE_NOT_RECOGNIZED),
        ({"calling_ae_title": ""}, Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED),
        ({"calling_ae_title": "A\nB"}, Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED),
        ({"calling_ae_title": "A\\B"}, Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED),
        ({"calling_ae_title": "\xe4"}, Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED),
    ],
)
def test_rejects(change: dict[str, object], rejection: Rejection) -> None:
    """Each cause has the result, source and reason of PS3.8 Table 9-21."""
    assert negotiate(replace(ECHO, **change), POLICY) == AssociateReject.of(rejection)  # type: ignore[arg-type]  # by name


def test_protocol_version_is_bit_0_alone() -> None:
    """A peer that speaks further versions as well speaks version 1."""
    accepted(replace(ECHO, protocol_version=0xFFFF))


def test_called_ae_title_by_policy() -> None:
    """Another called AE title passes when the policy says so, an unusable one never."""
    policy = AcceptorPolicy("SCP", accept_any_called_ae=True)
    accepted(replace(ECHO, called_ae_title="OTHER"), policy)
    for title in ("", "A\0B", "\x1b[31m"):
        answer = negotiate(replace(ECHO, called_ae_title=title), policy)
        assert answer == AssociateReject.of(Rejection.CALLED_AE_TITLE_NOT_RECOGNIZED)


@pytest.mark.parametrize("title", ["", "A\0B", "\x1b[31m"])
def test_calling_ae_title_that_is_none(title: str) -> None:
    """An unusable one is not recognized; which of the others may call is no matter of negotiation."""
    answer = negotiate(replace(ECHO, calling_ae_title=title), AcceptorPolicy("SCP"))
    assert answer == AssociateReject.of(Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED)


@pytest.mark.parametrize(
    "ids",
    [(), (0,), (2,), (1, 1), (1, 3, 4), (254,)],
    ids=["none", "zero", "even", "twice", "one even", "254"],
)
def test_malformed_context_ids(ids: tuple[int, ...]) -> None:
    """No contexts, an even ID or one that comes twice: A-ABORT 2/6 (PS3.8 9.3.2.2), not a rejection."""
    contexts = tuple(PresentationContext(context_id, CT, (IMPLICIT,)) for context_id in ids)
    answer = negotiate(replace(ECHO, contexts=contexts), POLICY)
    assert isinstance(answer, RemoteProtocolError)
    assert (answer.source, answer.reason) == (
        AbortSource.SERVICE_PROVIDER,
        AbortReason.INVALID_PDU_PARAMETER_VALUE,
    )


def test_nothing_in_common_is_accepted() -> None:
    """PS3.8 has no rejection for it: the requestor sees every context refused, and releases."""
    answer = accepted(request((FIND, (IMPLICIT,)), (CT, ("1.2.3",)), ("not a uid", (EXPLICIT,))))
    assert [result for result, _ in results(answer)] == [3, 4, 3]
    assert answer.contexts == {}
    # what stands beside a refusal is ours, never the peer's string
    assert {syntax for _, syntax in results(answer)} == {IMPLICIT}


def test_same_class_in_many_contexts() -> None:
    """Contexts are told apart by ID, and each is answered on its own."""
    answer = accepted(request((CT, (JPEG_BASELINE,)), (CT, (JPEG_LS,)), (CT, (EXPLICIT, IMPLICIT))))
    assert results(answer) == [(0, JPEG_BASELINE), (0, JPEG_LS), (0, EXPLICIT)]
    assert [context.context_id for context in answer.reply.contexts] == [1, 3, 5]


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ((IMPLICIT, EXPLICIT), EXPLICIT),
        ((BIG_ENDIAN, DEFLATED, JPEG_BASELINE, JPEG_2000, JPEG_LOSSLESS, JPEG_LS), JPEG_LS),
        ((BIG_ENDIAN, DEFLATED, JPEG_BASELINE, JPEG_2000), JPEG_2000),
        ((JPEG_BASELINE, "1.2.840.10008.1.2.4.51"), "1.2.840.10008.1.2.4.51"),
        ((BIG_ENDIAN, DEFLATED), DEFLATED),
        (("1.2.3.4", *JPIP, BIG_ENDIAN), BIG_ENDIAN),
    ],
)
def test_transfer_syntax_preference(offered: tuple[str, ...], chosen: str) -> None:
    """Native first, then lossless, then what may be lossy, then what is odd; the offered order says nothing."""
    for order in (offered, offered[::-1]):
        assert results(accepted(request((CT, order)))) == [(0, chosen)]


def test_configured_preference() -> None:
    """Configured transfer syntaxes come first, in their order; the built-in order follows."""
    policy = AcceptorPolicy("SCP", transfer_syntax_preference=(JPEG_BASELINE, JPEG_LS))
    assert results(accepted(request((CT, (EXPLICIT, JPEG_LS, JPEG_BASELINE))), policy)) == [
        (0, JPEG_BASELINE)
    ]
    assert results(accepted(request((CT, (EXPLICIT, IMPLICIT))), policy)) == [(0, EXPLICIT)]
    assert set(policy.ranks) == set(BUILT_IN_PREFERENCE)
    assert list(preference_order(())) == list(BUILT_IN_PREFERENCE)


@pytest.mark.parametrize("uid", [*JPIP, "1.2.840.10008.1.2.7.1", "1.2.840.10008.1.2.6.1", "1.2.3"])
def test_syntaxes_never_taken(uid: str) -> None:
    """Neither offered nor configured: pixels elsewhere, or an encoding that could not be read."""
    assert results(accepted(request((CT, (uid,)))))[0][0] == 4
    with pytest.raises(ValueError, match="cannot be received"):
        AcceptorPolicy("SCP", transfer_syntax_preference=(uid,))


def test_private_classes() -> None:
    """A private class is storage by configuration, or because the requestor says that it is (PS3.7 D.3.3.6)."""
    asked = request((PRIVATE, (EXPLICIT,)))
    assert results(accepted(asked))[0][0] == 3
    policy = AcceptorPolicy("SCP", private_storage_classes=frozenset({PRIVATE}))
    assert results(accepted(asked, policy)) == [(0, EXPLICIT)]
    said = request(
        (PRIVATE, (EXPLICIT,)), common_extended_negotiations=(CommonExtendedNegotiation(PRIVATE, STORAGE),)
    )
    assert results(accepted(said)) == [(0, EXPLICIT)]


@pytest.mark.parametrize(
    ("uid", "service", "result"),
    [
        ("1.2.840.10008.5.1.4.1.1.999.1", STORAGE, 0),  # a standard class newer than the list
        (FIND, STORAGE, 3),  # a query is no storage, whatever the requestor says
        ("1.2.840.10008.1.20.1", STORAGE, 3),
        (PRIVATE, "1.2.840.10008.4.1", 3),
        ("../../etc", STORAGE, 3),
        ("1" * 65, STORAGE, 3),
        ("", STORAGE, 3),
    ],
)
def test_what_common_extended_negotiation_can_say(uid: str, service: str, result: int) -> None:
    """Only usable UIDs, private or of the standard's storage branch, and only service class Storage."""
    asked = request(
        (uid, (EXPLICIT,)), common_extended_negotiations=(CommonExtendedNegotiation(uid, service),)
    )
    assert results(accepted(asked))[0][0] == result


@pytest.mark.parametrize(
    "bad",
    [
        {"private_storage_classes": frozenset({FIND})},
        {"private_storage_classes": frozenset({"../../etc"})},
        {"maximum_length": 0},
        {"maximum_length": 7},
    ],
)
def test_wrong_policy(bad: dict[str, object]) -> None:
    """A policy that would take a query for storage, or announce no limit, cannot be made."""
    with pytest.raises(ValueError, match=r"."):
        AcceptorPolicy("SCP", **bad)  # type: ignore[arg-type]  # wrong on purpose


COMMITMENT_SCP = AcceptorPolicy("SCP", commitment_scp=True)
REPORTED_TO = AcceptorPolicy("SCP", storage=False, commitment_scu=True)


def test_storage_commitment_by_policy() -> None:
    """Storage commitment is there when it is switched on, in the two syntaxes that its data sets are read in."""
    asked = request(
        (COMMITMENT, (BIG_ENDIAN, IMPLICIT)),
        (COMMITMENT, (EXPLICIT, IMPLICIT)),
        (COMMITMENT, (DEFLATED, BIG_ENDIAN, JPEG_2000)),
        (CT, (DEFLATED,)),
    )
    assert [result for result, _ in results(accepted(asked))] == [3, 3, 3, 0]
    assert results(accepted(asked, COMMITMENT_SCP)) == [
        (0, IMPLICIT),
        (0, EXPLICIT),
        (4, IMPLICIT),
        (0, DEFLATED),
    ]
    assert [result for result, _ in results(accepted(asked, REPORTED_TO))] == [0, 0, 4, 3]


def test_nobody_makes_storage_commitment_a_storage_class() -> None:
    """Common extended negotiation (57H) that claims so changes nothing; nor may the settings say it."""
    claim = CommonExtendedNegotiation(COMMITMENT, STORAGE)
    asked = request((COMMITMENT, (EXPLICIT,)), common_extended_negotiations=(claim,))
    assert results(accepted(asked)) == [(3, IMPLICIT)]
    with pytest.raises(ValueError, match="not of the Storage Service Class"):
        AcceptorPolicy("SCP", private_storage_classes=frozenset({COMMITMENT}))


@pytest.mark.parametrize("scu", [True, False])
@pytest.mark.parametrize("scp", [True, False])
def test_roles_of_storage_commitment(scu: bool, scp: bool) -> None:
    """PS3.7 D.3.3.4: of the roles proposed those are granted that we have a counterpart for."""
    asked = request((COMMITMENT, (EXPLICIT,)), role_selections=(RoleSelection(COMMITMENT, scu, scp),))
    for policy, granted in (
        (COMMITMENT_SCP, RoleSelection(COMMITMENT, scu, scp_role=False)),
        (REPORTED_TO, RoleSelection(COMMITMENT, scu_role=False, scp_role=scp)),
    ):
        assert accepted(asked, policy).reply.user_information.role_selections == (granted,)
    assert accepted(asked).reply.user_information.role_selections == ()


def test_role_selection() -> None:
    """Answered only where proposed, for accepted classes, once each; SCP is never granted (PS3.7 D.3.3.4)."""
    asked = request(
        (CT, (EXPLICIT,)),
        (FIND, (EXPLICIT,)),
        (VERIFICATION, (IMPLICIT,)),
        role_selections=(
            RoleSelection(CT, scu_role=True, scp_role=True),
            RoleSelection(FIND, scu_role=True, scp_role=True),
            RoleSelection(CT, scu_role=False, scp_role=True),
        ),
    )
    assert accepted(asked).reply.user_information.role_selections == (
        RoleSelection(CT, scu_role=False, scp_role=False),
    )
    assert accepted(ECHO).reply.user_information.role_selections == ()


def test_what_is_not_answered() -> None:
    """No window, no extended negotiation, no user identity in the reply, whatever was offered."""
    user = accepted(
        request(
            (CT, (EXPLICIT,)),
            asynchronous_operations_window=(0, 0),
            extended_negotiations=(ExtendedNegotiation(CT, b"\2\0\0\0\0\0"),),
            user_identity=UserIdentity(
                2, positive_response_requested=True, primary_field=b"u", secondary_field=b"p"
            ),
        )
    ).reply.user_information
    assert user.asynchronous_operations_window is None
    assert user.extended_negotiations == ()
    assert user.common_extended_negotiations == ()
    assert user.user_identity_response is None


@pytest.mark.parametrize(
    ("announced", "limit"), [(None, 16384), (0, 131072), (8, 8), (16382, 16382), (2**32 - 1,) * 2]
)
def test_send_limit(announced: int | None, limit: int) -> None:
    """Each side obeys the other's maximum: nothing announced is 16 KiB, no limit is capped (PS3.8 D.1)."""
    assert send_limit(UserInformation(maximum_length=announced)) == limit
    asked = replace(ECHO, user_information=UserInformation(maximum_length=announced))
    assert accepted(asked).send_limit == limit
    assert accepted(asked).receive_limit == POLICY.maximum_length


@pytest.mark.parametrize("announced", [1, 6, 7])
def test_no_room_for_a_fragment(announced: int) -> None:
    """A peer that we could send nothing to is aborted at once."""
    answer = negotiate(replace(ECHO, user_information=UserInformation(maximum_length=announced)), POLICY)
    assert isinstance(answer, RemoteProtocolError)


@given(ASSOCIATE_REQUESTS, st.booleans())
def test_any_request(asked: AssociateRequest, any_called: bool) -> None:
    """Whatever is asked is answered; an acceptance answers each context once, and a requestor confirms it."""
    policy = AcceptorPolicy("SCP", accept_any_called_ae=any_called)
    answer = negotiate(replace(asked, application_context=ECHO.application_context), policy)
    if isinstance(answer, Accepted):
        assert [c.context_id for c in answer.reply.contexts] == [c.context_id for c in asked.contexts]
        assert AssociateAccept.decode(memoryview(answer.reply.encode())[6:]).user_information == (
            answer.reply.user_information
        )
        assert confirm(asked, answer.reply) == answer.contexts


def test_confirm_refuses() -> None:
    """A requestor takes no syntax that it did not propose."""
    with pytest.raises(RemoteProtocolError):
        confirm(ECHO, replace(accepted(ECHO).reply, contexts=(PresentationContextResult(1, 0, EXPLICIT),)))


def test_confirm_passes_over() -> None:
    """Nor a context that it did not propose, or that was answered before."""
    contexts = (
        PresentationContextResult(3, 0, IMPLICIT),
        PresentationContextResult(1, 0, IMPLICIT),
        PresentationContextResult(1, 3, ""),
        PresentationContextResult(1, 0, EXPLICIT),
    )
    reply = replace(accepted(ECHO).reply, contexts=contexts)
    assert confirm(ECHO, reply) == {1: AcceptedContext(1, VERIFICATION, IMPLICIT)}


def test_captured_requests_are_accepted() -> None:
    """DCMTK and pynetdicom get an association."""
    policy = AcceptorPolicy("SCP", accept_any_called_ae=True)
    for vector in (vectors.DCMTK_ECHO_RQ, vectors.PYNETDICOM_ECHO_RQ, vectors.PADDED_RQ):
        assert isinstance(vector.decoded, AssociateRequest)
        assert len(accepted(vector.decoded, policy).reply.contexts) == 1
