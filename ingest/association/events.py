"""What an association reports (events) and what it asks its driver to do (effects).

The driver takes both, in order, from `Association.next_event`.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ingest.association.pdu import AssociateAccept, AssociateReject, AssociateRequest

Rows = npt.NDArray[np.uint8]


class Fragment(NamedTuple):
    """A piece of a command or data set (PS3.8 9.3.5.1), as a view into what was received.

    It may be less than a PDV: ``is_last`` is set only on the piece that ends the command or data set.
    ``data`` is valid until the buffer that was given to `Association.receive_data` is used again.
    """

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview


class FragmentRun(NamedTuple):
    """Several fragments of one data set that arrived together, none of them the last.

    Peers cut a data set into P-DATA-TF PDUs of one size, so the fragments lie at one distance in what was
    received: ``rows`` is a view of them, an array of bytes with a row a fragment. Copying it is one operation
    where handling each fragment would be one a PDU. Valid as long as `Fragment.data`.
    """

    context_id: int
    rows: Rows


@dataclass(frozen=True, slots=True)
class AssociateRequested:
    """A-ASSOCIATE indication: answer with `Association.answer`."""

    request: AssociateRequest


@dataclass(frozen=True, slots=True)
class AssociateAccepted:
    """A-ASSOCIATE confirmation, accepted: `Association.contexts` says which contexts."""

    reply: AssociateAccept


@dataclass(frozen=True, slots=True)
class Rejected:
    """A-ASSOCIATE confirmation, rejected."""

    reply: AssociateReject


@dataclass(frozen=True, slots=True)
class ReleaseRequested:
    """A-RELEASE indication: answer with `Association.release_response` when no more is to be sent."""


@dataclass(frozen=True, slots=True)
class Released:
    """A-RELEASE confirmation."""


class AbortedBy(Enum):
    """Who ended the association."""

    PEER = "the peer sent A-ABORT"
    LOCAL = "the peer broke the protocol, and we sent A-ABORT"
    TRANSPORT = "the transport connection closed"


@dataclass(frozen=True, slots=True)
class Aborted:
    """A-ABORT or A-P-ABORT indication: the association is gone, and with it every message in progress."""

    source: int
    reason: int
    by: AbortedBy


@dataclass(frozen=True, slots=True)
class Connect:
    """Effect: open the transport connection, then call `Association.transport_opened`."""


@dataclass(frozen=True, slots=True)
class SendPdu:
    """Effect: write these bytes, in one segment where they fit."""

    pdu: bytes


@dataclass(frozen=True, slots=True)
class SendData:
    """Effect: write these buffers one after the other, without joining them."""

    buffers: list[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class StartArtim:
    """Effect: start the ARTIM timer, or restart it (PS3.8 9.1.4); expired: `Association.artim_expired`."""


@dataclass(frozen=True, slots=True)
class StopArtim:
    """Effect: stop the ARTIM timer."""


@dataclass(frozen=True, slots=True)
class CloseTransport:
    """Effect: close the transport connection, after what was to be sent is sent."""


Indication = AssociateRequested | AssociateAccepted | Rejected | ReleaseRequested | Released | Aborted
Request = Connect | SendPdu | SendData | StartArtim | StopArtim | CloseTransport
Event = Fragment | FragmentRun | Indication | Request
