"""The DICOM Upper Layer (PS3.8), pure: a peer's bytes in, events and effects out; no socket, no clock.

::

    association = Association()            # acceptor; Association(request) is a requestor
    association.transport_opened()
    association.receive_data(view)         # then, before the memory behind view is used again:
    while (event := association.next_event()) is not None:
        if type(event) is Fragment:        # by far the most frequent: a view of command or data set
            ...
        elif type(event) is AssociateRequested:
            association.answer(negotiate(event.request, policy))
        elif type(event) is SendPdu:
            transport.write(event.pdu)
        ...                                # StartArtim, StopArtim, CloseTransport, ReleaseRequested, Aborted

``transitions``  Table 9-10 as data              ``buffer``       the one owner of unparsed bytes
``pdu``          the seven PDUs                   ``pdu_items``    the items inside A-ASSOCIATE
``negotiation``  request + policy -> answer       ``events``       what happened, what is asked
``p_data``       commands and data sets cut       ``association``  puts them together
``storage_classes``, ``transfer_syntaxes``        what may be negotiated
"""

from ingest.association.association import Association
from ingest.association.events import (
    Aborted,
    AbortedBy,
    AssociateAccepted,
    AssociateRequested,
    CloseTransport,
    Connect,
    Event,
    Fragment,
    FragmentRun,
    Rejected,
    Released,
    ReleaseRequested,
    SendData,
    SendPdu,
    StartArtim,
    StopArtim,
)
from ingest.association.negotiation import Accepted, AcceptedContext, AcceptorPolicy, Answer, negotiate
from ingest.association.pdu import AssociateAccept, AssociateReject, AssociateRequest, Rejection
from ingest.association.pdu_items import PresentationContext, RoleSelection, UserInformation
from ingest.association.storage_classes import (
    STORAGE_CLASSES,
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    VERIFICATION,
)
from ingest.association.transitions import State

__all__ = [
    "STORAGE_CLASSES",
    "STORAGE_COMMITMENT",
    "STORAGE_COMMITMENT_INSTANCE",
    "VERIFICATION",
    "Aborted",
    "AbortedBy",
    "Accepted",
    "AcceptedContext",
    "AcceptorPolicy",
    "Answer",
    "AssociateAccept",
    "AssociateAccepted",
    "AssociateReject",
    "AssociateRequest",
    "AssociateRequested",
    "Association",
    "CloseTransport",
    "Connect",
    "Event",
    "Fragment",
    "FragmentRun",
    "PresentationContext",
    "Rejected",
    "Rejection",
    "ReleaseRequested",
    "Released",
    "RoleSelection",
    "SendData",
    "SendPdu",
    "StartArtim",
    "State",
    "StopArtim",
    "UserInformation",
    "negotiate",
]
