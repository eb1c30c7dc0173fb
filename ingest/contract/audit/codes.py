"""Coded values of audit messages: PS3.16 CID 400 (event), 401 (event type), 402 (role), 404 (object) and ours."""

from typing import Final, NamedTuple


class Code(NamedTuple):
    """A coded value (PS3.15 A.5.1: csd-code, originalText, codeSystemName)."""

    value: str
    meaning: str
    system: str = "DCM"


# Extensions of ours have a coding scheme of their own; its name begins with 99 (PS3.3 8.2).
_OURS: Final = "99DICOM-INGEST"

# CID 400
APPLICATION_ACTIVITY: Final = Code("110100", "Application Activity")
INSTANCES_ACCESSED: Final = Code("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED: Final = Code("110104", "DICOM Instances Transferred")
SECURITY_ALERT: Final = Code("110113", "Security Alert")

# CID 401
APPLICATION_START: Final = Code("110120", "Application Start")
APPLICATION_STOP: Final = Code("110121", "Application Stop")
NODE_AUTHENTICATION: Final = Code("110126", "Node Authentication")
SOFTWARE_CONFIGURATION: Final = Code("110131", "Software Configuration")

STORAGE_COMMITMENT: Final = Code("commitment", "Storage Commitment", _OURS)
QUARANTINE_REPLAY: Final = Code("quarantine-replay", "Quarantine Replay", _OURS)
QUARANTINE_DISCARD: Final = Code("quarantine-discard", "Quarantine Discard", _OURS)
CONFLICT_RESOLVE: Final = Code("conflict-resolve", "Conflict Resolve", _OURS)

# CID 402
APPLICATION: Final = Code("110150", "Application")
APPLICATION_LAUNCHER: Final = Code("110151", "Application Launcher")
DESTINATION: Final = Code("110152", "Destination Role ID")
SOURCE: Final = Code("110153", "Source Role ID")

# CID 404, and of RFC 3881 as PS3.15 A.5.1.2.4 takes it over
STUDY: Final = Code("110180", "Study Instance UID")
NODE: Final = Code("110182", "Node ID")
PATIENT: Final = Code("2", "Patient Number", "RFC-3881")
TRANSACTION: Final = Code("transaction", "Transaction UID", _OURS)
