"""The Action Information of storage commitment: a Transaction UID and references (PS3.4 J.3.2, Table J.3-1).

Here, below both that use it: the receiver reads what the sender writes.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from ingest.contract.commitments import Reference
from ingest.dimse.data_set import (
    Scanner,
    Values,
    Wanted,
    encode_element,
    encode_item,
    invalid_argument,
    uid_of,
)
from ingest.dimse.status import RESOURCE_LIMITATION
from ingest.errors import Refused

REQUEST_STORAGE_COMMITMENT: Final = 1  # Action Type ID

TRANSACTION_UID: Final = 0x0008_1195
REFERENCED_SOP_SEQUENCE: Final = 0x0008_1199
REFERENCED_SOP_CLASS_UID: Final = 0x0008_1150
REFERENCED_SOP_INSTANCE_UID: Final = 0x0008_1155

IN_ITEMS: Final = {REFERENCED_SOP_CLASS_UID: b"UI", REFERENCED_SOP_INSTANCE_UID: b"UI"}
_WANTED: Final = Wanted({TRANSACTION_UID: b"UI", REFERENCED_SOP_SEQUENCE: b"SQ"}, IN_ITEMS)
# An item takes its head, two elements and a delimiter; peers add storage media attributes and groups of their own.
_ELEMENTS_EACH: Final = 12
_ELEMENTS_ASIDE: Final = 1000


class ActionInformation(NamedTuple):
    """What a requester asks to be kept (PS3.4 Table J.3-1): UIDs checked, each reference once and at least one."""

    transaction_uid: str
    references: Sequence[Reference]


def parse_request(data: bytes | bytearray, *, explicit: bool, maximum: int) -> ActionInformation:
    """Read a request of at most ``maximum`` items; repeated references are one.

    Raises:
        Refused: 0115H for a data set that cannot be read or lacks what it must have, 0213H for too many items.
    """
    references: dict[Reference, None] = {}
    own: Values = {}
    items = 0
    for sequence, values in Scanner(
        data, explicit=explicit, wanted=_WANTED, maximum=elements_of(maximum)
    ).items():
        if sequence:
            items += 1
            if items > maximum:
                raise Refused(RESOURCE_LIMITATION, f"more than {maximum} references in one request")
            references[reference_of(values)] = None
        else:
            own = values
    transaction_uid = uid_of(own, TRANSACTION_UID)
    if not references:
        raise invalid_argument("(0008,1199) is missing or has no items")
    return ActionInformation(transaction_uid, tuple(references))


def encode_request(transaction_uid: str, references: Iterable[Reference], *, explicit: bool) -> bytes:
    """The data set of an N-ACTION-RQ."""
    items = b"".join(
        encode_item(encode_reference(each.sop_class_uid, each.sop_instance_uid, explicit=explicit))
        for each in references
    )
    return encode_element(
        TRANSACTION_UID, b"UI", transaction_uid.encode("ascii"), explicit=explicit
    ) + encode_element(REFERENCED_SOP_SEQUENCE, b"SQ", items, explicit=explicit)


def elements_of(references: int) -> int:
    """How many elements a data set may have that is about so many instances."""
    return _ELEMENTS_EACH * references + _ELEMENTS_ASIDE


def reference_of(values: Values) -> Reference:
    """What an item refers to.

    Raises:
        Refused: a UID is missing or not usable.
    """
    return Reference(uid_of(values, REFERENCED_SOP_CLASS_UID), uid_of(values, REFERENCED_SOP_INSTANCE_UID))


def encode_reference(sop_class_uid: str, sop_instance_uid: str, *, explicit: bool) -> bytes:
    """The two elements of an item."""
    return _class_element(sop_class_uid, explicit) + encode_element(
        REFERENCED_SOP_INSTANCE_UID, b"UI", sop_instance_uid.encode("ascii"), explicit=explicit
    )


@lru_cache(maxsize=64)  # a request names few classes
def _class_element(uid: str, explicit: bool) -> bytes:
    return encode_element(REFERENCED_SOP_CLASS_UID, b"UI", uid.encode("ascii"), explicit=explicit)
