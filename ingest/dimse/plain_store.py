"""C-STORE in the one form that nearly every peer uses, coded in one step (PS3.7 9.3.1, Annex E).

A message with other or fewer elements, or odd in any way, is left to the general codec of `command_set`, which says
the same of the plain ones and takes three times as long: with images of 128 KiB, the coding of commands was a
quarter of what Python did for one.
"""

import struct
from typing import Final

from ingest.contract.identifiers import UID_MAX_LENGTH
from ingest.dimse.command_fields import C_STORE_RSP, NO_DATA_SET
from ingest.dimse.messages import CStoreRequest
from ingest.dimse.status import SUCCESS

# Elements in ascending order: tag and length, then the value. UIDs come between these and after them.
_REQUEST_START: Final = struct.Struct("<8s4x4sI")  # group length; SOP Class UID
# Field, message ID, priority, type; SOP Instance UID.
_REQUEST_REST: Final = struct.Struct("<10s8sH8s2x8sH4sI")
_RESPONSE_START: Final = struct.Struct("<8sI4sI")
_RESPONSE_REST: Final = struct.Struct("<10s8sH10s10s4sI")  # field, message ID, type, status; SOP Instance UID

_GROUP_LENGTH: Final = bytes.fromhex("00000000 04000000")
_CLASS_TAG: Final = bytes.fromhex("00000200")
_IS_REQUEST: Final = bytes.fromhex("00000001 02000000 0100")
_MESSAGE_ID: Final = bytes.fromhex("00001001 02000000")
_PRIORITY: Final = bytes.fromhex("00000007 02000000")
_DATA_SET_TYPE: Final = bytes.fromhex("00000008 02000000")
_INSTANCE_TAG: Final = bytes.fromhex("00000010")
_IS_RESPONSE: Final = bytes.fromhex("00000001 02000000") + C_STORE_RSP.to_bytes(2, "little")
_ANSWERED_ID: Final = bytes.fromhex("00002001 02000000")
_NO_DATA_SET: Final = _DATA_SET_TYPE + NO_DATA_SET.to_bytes(2, "little")
_SUCCESS: Final = bytes.fromhex("00000009 02000000") + SUCCESS.to_bytes(2, "little")

_FIRST_UID: Final = _REQUEST_START.size
_SHORTEST: Final = _FIRST_UID + _REQUEST_REST.size
_AFTER_GROUP_LENGTH: Final = len(_GROUP_LENGTH) + 4


def decode_plain_request(data: bytes) -> CStoreRequest | None:
    """The C-STORE-RQ with a data set in a whole command set; None when it is anything else than plain."""
    if len(data) < _SHORTEST:
        return None
    group_length, class_tag, class_size = _REQUEST_START.unpack_from(data)
    rest = _FIRST_UID + class_size
    instance = rest + _REQUEST_REST.size
    if group_length != _GROUP_LENGTH or class_tag != _CLASS_TAG or instance > len(data):
        return None
    field, id_head, message_id, priority, type_head, data_set_type, instance_tag, size = (
        _REQUEST_REST.unpack_from(data, rest)
    )
    if (
        (field, id_head, priority, type_head, instance_tag)
        != (_IS_REQUEST, _MESSAGE_ID, _PRIORITY, _DATA_SET_TYPE, _INSTANCE_TAG)
        or data_set_type == NO_DATA_SET
        or instance + size != len(data)
    ):  # fmt: skip
        return None
    return CStoreRequest(message_id, _text(data[_FIRST_UID:rest]), _text(data[instance:]))


def encode_success(request: CStoreRequest) -> bytes:
    """The command set of the C-STORE-RSP that says success."""
    sop_class, instance = request.affected_sop_class_uid, request.affected_sop_instance_uid
    if not (0 < len(sop_class) <= UID_MAX_LENGTH and 0 < len(instance) <= UID_MAX_LENGTH):
        return request.respond().encode()  # which leaves out what cannot be echoed
    first, second = _even(sop_class), _even(instance)
    length = _RESPONSE_START.size + len(first) + _RESPONSE_REST.size + len(second) - _AFTER_GROUP_LENGTH
    start = _RESPONSE_START.pack(_GROUP_LENGTH, length, _CLASS_TAG, len(first))
    rest = _RESPONSE_REST.pack(
        _IS_RESPONSE, _ANSWERED_ID, request.message_id, _NO_DATA_SET, _SUCCESS, _INSTANCE_TAG, len(second)
    )
    return b"".join((start, first, rest, second))


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip("\0 ")


def _even(uid: str) -> bytes:
    return (uid + "\0" if len(uid) & 1 else uid).encode("latin-1")
