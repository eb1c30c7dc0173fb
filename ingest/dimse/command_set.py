"""The command set's codec (PS3.7 6.3.1, Annex E): Implicit VR Little Endian, whatever the context negotiated.

A command set is a dictionary from element number (of group 0000H) to the value's bytes as sent.
"""

import struct
from collections.abc import Mapping

from ingest.errors import AbortReason, RemoteProtocolError

COMMAND_GROUP_LENGTH = 0x0000
AFFECTED_SOP_CLASS_UID = 0x0002
REQUESTED_SOP_CLASS_UID = 0x0003
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
PRIORITY = 0x0700
COMMAND_DATA_SET_TYPE = 0x0800
STATUS = 0x0900
OFFENDING_ELEMENT = 0x0901
ERROR_COMMENT = 0x0902
AFFECTED_SOP_INSTANCE_UID = 0x1000
REQUESTED_SOP_INSTANCE_UID = 0x1001
EVENT_TYPE_ID = 0x1002
ACTION_TYPE_ID = 0x1008
MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE = 0x1030
MOVE_ORIGINATOR_MESSAGE_ID = 0x1031

# The elements of any command here are a few hundred bytes; a UID list of N-ACTION is in its data set.
MAX_COMMAND_SET = 64 * 1024

CommandSet = Mapping[int, bytes]

_ELEMENT = struct.Struct("<HHI")
_US = struct.Struct("<H")
US_LENGTH = _US.size


def malformed(message: str) -> RemoteProtocolError:
    """The error for a command set that cannot be answered: abort reason 6."""
    return RemoteProtocolError(message, AbortReason.INVALID_PDU_PARAMETER_VALUE)


def encode_command_set(elements: CommandSet) -> bytes:
    """Encode with ascending tags, even lengths and the group length in front."""
    pieces: list[bytes] = []
    for element, unpadded in sorted(elements.items()):
        # PS3.5 6.2: UIDs are padded with NUL; other text here is padded by its maker
        value = unpadded + b"\0" if len(unpadded) & 1 else unpadded
        pieces += (_ELEMENT.pack(0, element, len(value)), value)
    body = b"".join(pieces)
    return _ELEMENT.pack(0, COMMAND_GROUP_LENGTH, 4) + len(body).to_bytes(4, "little") + body


def decode_command_set(data: bytes | bytearray | memoryview) -> dict[int, bytes]:
    """Decode a whole command set; elements of other groups are passed over.

    Neither the order of the elements nor the group length is tested, as PS3.7 6.3.1 has them: peers get both wrong, or
    leave the latter out, and other acceptors let them.

    Raises:
        RemoteProtocolError: an element comes twice, or overruns the end.
    """
    data = bytes(data)
    size = len(data)
    elements: dict[int, bytes] = {}
    position = 0
    while position < size:
        if size - position < _ELEMENT.size:
            raise malformed("a command set ends within an element")
        group, element, length = _ELEMENT.unpack_from(data, position)
        position += _ELEMENT.size
        if length > size - position:
            raise malformed("an element of a command set overruns its end")
        if group == 0:
            if element in elements:
                raise malformed("an element of a command set comes twice")
            elements[element] = data[position : position + length]
        position += length
    return elements


def encode_us(value: int) -> bytes:
    """VR US."""
    return _US.pack(value)


def decode_us(elements: CommandSet, element: int) -> int:
    """The value of an element of VR US that must be there.

    Raises:
        RemoteProtocolError: it is missing, or not two bytes long.
    """
    value = elements.get(element, b"")
    if len(value) != _US.size:
        raise malformed(f"element (0000,{element:04X}) is missing or not two bytes long")
    return int(_US.unpack(value)[0])


def decode_text(elements: CommandSet, element: int) -> str:
    """The value of a text element without padding, or an empty string. Any byte survives, as Latin-1."""
    return elements.get(element, b"").decode("latin-1").strip("\0 ")
