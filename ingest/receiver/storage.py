"""The Storage Service Class as SCP (PS3.4 Annex B): success only once the log has the instance durable."""

import itertools
import time
from collections.abc import Callable, Mapping

from ingest.association import STORAGE_COMMITMENT, VERIFICATION, AcceptedContext
from ingest.contract.identifiers import InvalidIdentifier, UploadId, check_uid
from ingest.contract.records import Instance
from ingest.dimse import CStoreRequest, CStoreResponse
from ingest.dimse.plain_store import encode_success
from ingest.dimse.status import (
    CANNOT_UNDERSTAND,
    INVALID_OBJECT_INSTANCE,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    SOP_CLASS_NOT_SUPPORTED,
)
from ingest.errors import LogUnavailable, OutOfResources, Refused
from ingest.instance import Upload
from ingest.log import InstanceLog
from ingest.receiver.receiving import Drain, Peer, Receiving
from ingest.receiver.sources import Grant
from ingest.receiver.unknown_sources import UnknownUpload

_AFFECTED_SOP_CLASS_UID = 0x0000_0002
_AFFECTED_SOP_INSTANCE_UID = 0x0000_1000
# What is accepted beside the Storage Service Class.
_NOT_STORED = frozenset({VERIFICATION, STORAGE_COMMITMENT})


class StorageService:
    """Opens an upload for each C-STORE request and turns its end into a response."""

    def __init__(self, log: InstanceLog) -> None:
        self._log = log
        self._sequence = itertools.count(1)

    def begin(
        self,
        request: CStoreRequest,
        context: AcceptedContext,
        contexts: Mapping[int, AcceptedContext],
        peer: Peer,
        grant: Grant,
        *,
        resume: Callable[[], None],
    ) -> Receiving:
        """What takes the data set of ``request`` within what its association was granted.

        ``contexts`` are all of it, ``context`` is the request's. ``resume`` is called when a write may be tried again.
        """
        try:
            self._check(request, context, contexts)
            if grant.quota is not None:
                grant.quota.begin()
        except Refused as refused:
            return Drain(refused)
        instance = Instance(
            request.affected_sop_class_uid,
            request.affected_sop_instance_uid,
            context.transfer_syntax,
            0,
            b"",
            peer.calling_ae_title,
            peer.called_ae_title,
            peer.address,
            time.time_ns(),
            grant.quota is not None,
            peer.association_id,
        )
        upload_id = UploadId.of(self._log.receiver_id, self._log.epoch, next(self._sequence))
        maximum, quota = grant.maximum_size, grant.quota
        if quota is None:
            return Upload(self._log, grant.share, upload_id, instance, resume, maximum=maximum)
        return UnknownUpload(
            self._log, grant.share, upload_id, instance, resume, quota=quota, maximum=maximum
        )

    def _check(
        self, request: CStoreRequest, context: AcceptedContext, contexts: Mapping[int, AcceptedContext]
    ) -> None:
        sop_class = request.affected_sop_class_uid
        if context.abstract_syntax in _NOT_STORED:
            raise Refused(
                SOP_CLASS_NOT_SUPPORTED, "SOP Class of the context is not stored", _AFFECTED_SOP_CLASS_UID
            )
        if sop_class != context.abstract_syntax and not _is_accepted(sop_class, contexts):
            raise Refused(
                SOP_CLASS_NOT_SUPPORTED,
                "SOP Class was not accepted in this association",
                _AFFECTED_SOP_CLASS_UID,
            )
        try:
            check_uid(request.affected_sop_instance_uid)
        except InvalidIdentifier as error:
            raise Refused(INVALID_OBJECT_INSTANCE, str(error), _AFFECTED_SOP_INSTANCE_UID) from None
        reason = self._log.refusal()
        if reason is not None:
            raise Refused(OUT_OF_RESOURCES, reason)


def _is_accepted(sop_class: str, contexts: Mapping[int, AcceptedContext]) -> bool:
    """Whether a SOP Class may be stored by another context than the one that its instance comes in.

    Some requestors choose a context by its transfer syntax alone, as dicom-rs does, and other acceptors let them.
    """
    accepted = {context.abstract_syntax for context in contexts.values()}
    return sop_class in accepted - _NOT_STORED


def response(request: CStoreRequest, failure: Exception | None) -> bytes:
    """The command set of the C-STORE-RSP to an upload that has ended."""
    return encode_success(request) if failure is None else _refusal(request, failure).encode()


def _refusal(request: CStoreRequest, failure: Exception) -> CStoreResponse:
    """What an upload that has failed is answered (PS3.4 Table B.2-1)."""
    if isinstance(failure, Refused):
        return request.respond(
            failure.status, comment=failure.comment, offending_element=failure.offending_element
        )
    if isinstance(failure, OutOfResources | LogUnavailable):
        return request.respond(OUT_OF_RESOURCES, comment=str(failure))
    return request.respond(PROCESSING_FAILURE, comment="internal error")


def without_data_set() -> Receiving:
    """What becomes of a C-STORE request that announces no data set."""
    return Drain(Refused(CANNOT_UNDERSTAND, "no data set"))
