"""Status codes (0000,0900) that are sent or read here: PS3.7 Annex C, and PS3.4 B.2.3 for C-STORE."""

SUCCESS = 0x0000  # PS3.7 C.1.1; of a C-STORE: the instance is durable

# PS3.4 Table B.2-1
OUT_OF_RESOURCES = 0xA700
DATA_SET_DOES_NOT_MATCH_SOP_CLASS = 0xA900
CANNOT_UNDERSTAND = 0xC000
COERCION_OF_DATA_ELEMENTS = 0xB000
ELEMENTS_DISCARDED = 0xB006
WARNING_DATA_SET_DOES_NOT_MATCH_SOP_CLASS = 0xB007

# PS3.7 C.5
PROCESSING_FAILURE = 0x0110
NO_SUCH_SOP_INSTANCE = 0x0112
NO_SUCH_EVENT_TYPE = 0x0113
INVALID_ARGUMENT_VALUE = 0x0115
INVALID_OBJECT_INSTANCE = 0x0117  # SOP Instance UID violates the rules for UIDs
NO_SUCH_SOP_CLASS = 0x0118
CLASS_INSTANCE_CONFLICT = 0x0119
SOP_CLASS_NOT_SUPPORTED = 0x0122
NO_SUCH_ACTION = 0x0123
NOT_AUTHORIZED = 0x0124
UNRECOGNIZED_OPERATION = 0x0211
RESOURCE_LIMITATION = 0x0213

DUPLICATE_TRANSACTION_UID = 0x0131  # PS3.4 J.3.2, PS3.3 C.14.1.1

_WARNINGS = (0x0001, 0x0107, 0x0116)  # PS3.7 C.4


def is_warning(status: int) -> bool:
    """Whether the operation was done, with a remark (PS3.7 C.4, and BxxxH of the services)."""
    return status in _WARNINGS or status >> 12 == 0xB  # noqa: PLR2004 - BxxxH


def is_failure(status: int) -> bool:
    """Whether the operation was not done."""
    return status != SUCCESS and not is_warning(status)
