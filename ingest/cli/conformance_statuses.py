"""The statuses that peers are answered with, and what each means here: tables of the conformance statement."""

from typing import Final

from ingest.dimse.status import (
    CANNOT_UNDERSTAND,
    CLASS_INSTANCE_CONFLICT,
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
    DUPLICATE_TRANSACTION_UID,
    INVALID_ARGUMENT_VALUE,
    INVALID_OBJECT_INSTANCE,
    NO_SUCH_ACTION,
    NO_SUCH_SOP_CLASS,
    NO_SUCH_SOP_INSTANCE,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    UNRECOGNIZED_OPERATION,
)

# Of C-STORE; the meaning of success is `durability`.
STORE: Final = {
    OUT_OF_RESOURCES: "No room in the log or in memory, or the log does not acknowledge: send again later.",
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS: "SOP Class or SOP Instance UID of the data set are not those of the request.",
    CANNOT_UNDERSTAND: "There is no data set, or it cannot be read in the transfer syntax of its context.",
    INVALID_OBJECT_INSTANCE: "The SOP Instance UID violates the rules for UIDs.",
    SOP_CLASS_NOT_SUPPORTED: "The SOP Class of the request was not accepted in its association, or is none that is stored.",
    PROCESSING_FAILURE: "A defect of this program; the instance is not known to be kept.",
}

ACTION: Final = {
    SUCCESS: "The request is durable; a report will follow. Nothing is committed yet.",
    PROCESSING_FAILURE: "No report could ever be delivered to this AE title, or the log failed.",
    NO_SUCH_SOP_INSTANCE: "Not the well-known SOP Instance.",
    INVALID_ARGUMENT_VALUE: "The data set cannot be read, or lacks a Transaction UID, references or their UIDs.",
    NO_SUCH_SOP_CLASS: "The SOP Class of the request is not that of its presentation context.",
    NO_SUCH_ACTION: "Action Type ID is not 1.",
    DUPLICATE_TRANSACTION_UID: "The Transaction UID is in use for other instances, or used up.",
    UNRECOGNIZED_OPERATION: "The SOP Class of the presentation context has no N-ACTION.",
    RESOURCE_LIMITATION: "More references, bytes or open transactions than 5.2.6.1 says, or no room in the log.",
}

FAILURE_REASONS: Final = {
    PROCESSING_FAILURE: (
        "What is stored is damaged, waits in quarantine or in conflict, or could not be found out in time."
    ),
    NO_SUCH_SOP_INSTANCE: "Every store that could have the instance answered that it has not.",
    CLASS_INSTANCE_CONFLICT: "The instance is stored under another SOP Class.",
}


def table(statuses: dict[int, str]) -> list[str]:
    """Rows of status and meaning."""
    rows = [f"| {status:04X}H | {meaning} |" for status, meaning in sorted(statuses.items())]
    return ["| status | meaning |", "|---|---|", *rows]
