"""PDUs that hypothesis makes up."""

from hypothesis import strategies as st

from ingest.association.pdu import (
    Abort,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    DataTransfer,
    Pdu,
    PresentationDataValue,
    ReleaseRequest,
    ReleaseResponse,
)
from ingest.association.pdu_items import (
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    PresentationContext,
    PresentationContextResult,
    RoleSelection,
    UserIdentity,
    UserInformation,
)

UIDS = st.from_regex(r"[0-9.]{1,64}", fullmatch=True)
AE_TITLES = st.from_regex(r"[!-~]([ -~]{0,14}[!-~])?", fullmatch=True)
CONTEXT_IDS = st.integers(0, 255)


def user_informations(size: int) -> st.SearchStrategy[UserInformation]:
    """With no more negotiation items than contexts."""
    return st.builds(
        UserInformation,
        maximum_length=st.none() | st.integers(0, 2**32 - 1),
        implementation_class_uid=st.none() | UIDS,
        asynchronous_operations_window=st.none() | st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
        role_selections=st.lists(
            st.builds(RoleSelection, UIDS, st.booleans(), st.booleans()), max_size=size
        ).map(tuple),
        implementation_version_name=st.none() | AE_TITLES,
        extended_negotiations=st.lists(
            st.builds(ExtendedNegotiation, UIDS, st.binary(max_size=9)), max_size=size
        ).map(tuple),
        common_extended_negotiations=st.lists(
            st.builds(CommonExtendedNegotiation, UIDS, UIDS, st.lists(UIDS, max_size=3).map(tuple)),
            max_size=size,
        ).map(tuple),
        user_identity=st.none()
        | st.builds(
            UserIdentity, st.integers(0, 255), st.booleans(), st.binary(max_size=99), st.binary(max_size=99)
        ),
        user_identity_response=st.none() | st.binary(max_size=99),
    )


PROPOSED = st.builds(
    PresentationContext, CONTEXT_IDS, UIDS, st.lists(UIDS, min_size=1, max_size=5).map(tuple)
)
ANSWERED = st.builds(PresentationContextResult, CONTEXT_IDS, st.just(0), UIDS) | st.builds(
    PresentationContextResult, CONTEXT_IDS, st.integers(1, 255), st.just("")
)


@st.composite
def associates(draw: st.DrawFn, pdu_type: type, contexts: st.SearchStrategy[object]) -> Pdu:
    proposed = draw(st.lists(contexts, max_size=5))
    pdu: Pdu = pdu_type(
        draw(AE_TITLES),
        draw(AE_TITLES),
        tuple(proposed),
        draw(user_informations(len(proposed))),
        draw(UIDS),
        draw(st.integers(0, 65535)),
        draw(st.binary(min_size=32, max_size=32)),
    )
    return pdu


ASSOCIATE_REQUESTS: st.SearchStrategy[AssociateRequest] = associates(AssociateRequest, PROPOSED)  # type: ignore[assignment]  # of that type

BYTE = st.integers(0, 255)
VALUES = st.builds(
    PresentationDataValue,
    CONTEXT_IDS,
    st.booleans(),
    st.booleans(),
    st.binary(max_size=40).map(lambda data: data + data),
)
PDUS: st.SearchStrategy[Pdu] = st.one_of(
    associates(AssociateRequest, PROPOSED),
    associates(AssociateAccept, ANSWERED),
    st.builds(AssociateReject, BYTE, BYTE, BYTE),
    st.builds(DataTransfer, st.lists(VALUES, min_size=1, max_size=5).map(tuple)),
    st.just(ReleaseRequest()),
    st.just(ReleaseResponse()),
    st.builds(Abort, BYTE, BYTE),
)
