"""The pipeline with an audit trail: where each instance has its place, told by study (PS3.15 A.5.3.7)."""

import asyncio
from pathlib import Path
from typing import Final

import structlog
from pydicom.charset import convert_encodings, decode_bytes

from ingest.contract.audit import Trail
from ingest.contract.audit.events import Transfer
from ingest.contract.identifiers import InvalidIdentifier, check_uid
from ingest.contract.settings import Settings
from workers.dataset.elements import Kind, Limits, Token, Walker
from workers.dataset.findings import Findings
from workers.dataset.identity import STUDY_INSTANCE_UID
from workers.dataset.payload import Payload
from workers.dataset.transfer_syntax import DEFLATED, encoding_of
from workers.errors import Rejected
from workers.pipeline import Pipeline, Work
from workers.pixels.codec import Codec
from workers.storage.lanes import Settled
from workers.storage.stores import Stores

logger = structlog.get_logger(__name__)

_CHARACTER_SET: Final = 0x0008_0005
_PATIENT_ID: Final = 0x0010_0020
_WANTED: Final = frozenset((_CHARACTER_SET, _PATIENT_ID, STUDY_INSTANCE_UID))
_LONGEST: Final = 256  # bytes of a value; a Patient ID has 64 characters (PS3.5 6.2, LO)
_MOST_TOKENS: Final = 10_000  # before (0020,000D); real ones have some hundred


class AuditedPipeline(Pipeline):
    """A `Pipeline` that tells the audit trail of each upload that is settled."""

    def __init__(self, stores: Stores, codec: Codec, settings: Settings, scratch: Path, trail: Trail) -> None:
        super().__init__(stores, codec, settings, scratch)
        self._trail = trail
        self._with_patient = settings.audit.patient_id

    async def settle(self, work: Work) -> Settled:
        """See `Pipeline.settle`."""
        settled = await super().settle(work)
        try:
            await self._tell(work, settled)
        except Exception:
            logger.exception("a defect in the audit trail")  # the upload has its place all the same
        return settled

    async def _tell(self, work: Work, settled: Settled) -> None:
        instance = work.upload.instance
        study, patient_id = work.manifest.study_instance_uid, ""
        if not study or self._with_patient:
            study, patient_id = await asyncio.to_thread(
                study_and_patient, work.payload, instance.transfer_syntax_uid
            )
        self._trail.transferred(
            Transfer(
                instance.calling_ae_title,
                instance.called_ae_title,
                instance.peer_address,
                study,
                patient_id if self._with_patient else "",
                settled.place,
                settled.reason,
            ),
            instance.sop_class_uid,
        )


def pipeline_of(stores: Stores, codec: Codec, settings: Settings, scratch: Path, trail: Trail) -> Pipeline:
    """As the settings want it."""
    if trail.is_on:
        return AuditedPipeline(stores, codec, settings, scratch, trail)
    return Pipeline(stores, codec, settings, scratch)


def study_and_patient(payload: Payload, transfer_syntax_uid: str) -> tuple[str, str]:
    """Study Instance UID and Patient ID, as far as the first elements can be read; empty where they cannot.

    A duplicate is settled by its digest before anything is read of it, and what is in quarantine may not be readable.
    """
    encoding = encoding_of(transfer_syntax_uid)
    if encoding is None or transfer_syntax_uid in DEFLATED:
        return "", ""
    found: dict[int, bytes] = {}
    walker = Walker(payload, encoding, Limits(), Findings())
    try:
        for number, token in enumerate(walker):
            if number > _MOST_TOKENS or (not token.depth and token.tag > STUDY_INSTANCE_UID):
                break
            if _is_wanted(token):
                found.setdefault(token.tag, bytes(walker.value(token)))
    except (Rejected, OSError):
        pass  # what was found before stands
    return _uid(found.get(STUDY_INSTANCE_UID, b"")), _text(found)


def _is_wanted(token: Token) -> bool:
    return (
        token.depth == 0
        and token.kind is Kind.VALUE
        and token.tag in _WANTED
        and 0 < token.length <= _LONGEST
    )


def _uid(value: bytes) -> str:
    try:
        return check_uid(value.rstrip(b" \0").decode("ascii", "replace"))
    except InvalidIdentifier:
        return ""


def _text(found: dict[int, bytes]) -> str:
    """The Patient ID, by the Specific Character Set of the data set."""
    names = found.get(_CHARACTER_SET, b"").decode("ascii", "replace").strip(" \0").split("\\")
    value = found.get(_PATIENT_ID, b"").strip(b" \0")
    try:
        return decode_bytes(value, convert_encodings([name.strip() for name in names]), set())
    except (LookupError, ValueError):
        return value.decode("ascii", "backslashreplace")
