"""What the receiver tells of each association: one line in the log, counts for the metrics, refusals with a remedy."""

import time
from collections import Counter
from itertools import count

import structlog

from ingest.association import Accepted, AssociateRequest
from ingest.association.negotiation import ACCEPTANCE, Answer
from ingest.contract import audit
from ingest.contract.audit import events
from ingest.contract.identifiers import association_id
from ingest.contract.monitoring.sources import OTHER, Sources
from ingest.contract.refusals import RefusalOf, shown, shown_uid
from ingest.contract.settings import Settings
from ingest.dimse import CStoreRequest
from ingest.errors import Refused, RemoteProtocolError
from ingest.instance import Upload
from ingest.receiver import reasons
from ingest.receiver.metrics import ReceiverMetrics
from ingest.receiver.receiving import Drain, Peer, Receiving
from ingest.receiver.refusals import Refusals

logger = structlog.get_logger(__name__)

# What ends an association, by the words of `Connection`; whatever else it may say counts as protocol error.
_ENDS = {
    "released": "released",
    "closed": "closed",
    "aborted by peer": "aborted-by-peer",
    "shutdown": "shutdown",
    "idle": "idle",
    "stalled": "stalled",
    "too slow": "too-slow",
    "message takes too long": "too-long",
    "does not read": "does-not-read",
    "does not read its answers": "does-not-read",
}


class Telemetry:
    """Of one receiver. ``metrics`` is None where nobody can ask for them."""

    def __init__(self, settings: Settings, metrics: ReceiverMetrics | None = None) -> None:
        self.metrics = metrics
        self.refusals = Refusals(settings.data)
        self._sources = Sources(settings)
        self._started = time.time_ns() // 1_000_000
        self._numbers = count(1)

    def take_sources(self, settings: Settings) -> None:
        """Know the sources of these settings from now on."""
        self._sources = Sources(settings)

    def connection_refused(self, address: str) -> None:
        """A connection was closed at once."""
        if self.metrics is not None:
            self.metrics.connections_refused.add()
        self.refusals.add(RefusalOf.CONNECTION, Peer("", "", address), reasons.CONNECTIONS, "")

    def request_unreadable(self, address: str, fault: RemoteProtocolError) -> None:
        """What came where an association request was due is none that can be read."""
        reason = reasons.MALFORMED
        if self.metrics is not None:
            self.metrics.associations.add((OTHER, reason.word))
        self.refusals.add(RefusalOf.ASSOCIATION, Peer("", "", address), reason, str(fault))
        audit.record(events.refused("", "", address, f"association refused: {reason.word}"))
        logger.warning(
            "association refused",
            peer=address,
            reason=reason.word,
            detail=str(fault),
            change=reason.remedy,
        )

    def handshake_failed(self, address: str, why: str) -> None:
        """TLS could not be agreed upon."""
        self.refusals.add(RefusalOf.HANDSHAKE, Peer("", "", address), reasons.HANDSHAKE, why)

    def commitment_refused(self, peer: Peer, failure: Exception) -> None:
        """A request of storage commitment is refused."""
        comment = failure.comment if isinstance(failure, Refused) else ""
        self.refusals.add(RefusalOf.COMMITMENT, peer, reasons.of_commitment(failure), comment)

    def answered(
        self, request: AssociateRequest, answer: Answer, address: str, *, draining: bool
    ) -> "AssociationTelemetry":
        """An association request is answered; what is returned is told the rest, if it was accepted."""
        record = AssociationTelemetry(
            self,
            association_id(self._started, next(self._numbers)),
            Peer(shown(request.calling_ae_title), shown(request.called_ae_title), address),
            self._sources.of(request.calling_ae_title),
        )
        reason = reasons.of_answer(answer, draining=draining)
        if self.metrics is not None:
            self.metrics.associations.add((record.source, "accepted" if reason is None else reason.word))
        if isinstance(answer, Accepted):
            results = {result.context_id: result.result for result in answer.reply.contexts}
            for context in request.contexts:
                if results[context.context_id] != ACCEPTANCE:
                    record.context_refused(context.abstract_syntax, results[context.context_id])
        elif reason is not None:
            record.refused(RefusalOf.ASSOCIATION, reason, "")
            if reason in reasons.SECURITY:
                audit.record(events.refused(*record.peer[:3], f"association refused: {reason.word}"))
            logger.warning(
                "association refused",
                **record.facts,
                called_ae_title=record.peer.called_ae_title,
                reason=reason.word,
                change=reason.remedy,
            )
        return record


class AssociationTelemetry:
    """Of one association, from its request to its end."""

    __slots__ = (
        "_began", "_bytes", "_contexts", "_counts", "_metrics", "_refusals", "_seconds_key", "_success", "id", "peer", "source",
    )  # fmt: skip

    def __init__(self, telemetry: Telemetry, association_id: str, peer: Peer, source: str) -> None:
        self.id = association_id
        self.peer = peer
        self.source = source
        self._metrics = telemetry.metrics
        self._refusals = telemetry.refusals
        self._success = (source, "acknowledged")
        self._seconds_key = (source,)
        self._counts: Counter[str] = Counter()  # of instances not taken, by reason
        self._contexts = 0  # not accepted
        self._bytes = 0
        self._began = time.monotonic()

    @property
    def facts(self) -> dict[str, str]:
        """What each of its lines in the log has."""
        return {
            "association": self.id,
            "source": self.source,
            "calling_ae_title": self.peer.calling_ae_title,
            "peer": self.peer.address,
        }

    def refused(self, what: RefusalOf, reason: reasons.Reason, subject: str) -> None:
        """Something of it was not taken."""
        self._refusals.add(what, self.peer, reason, subject)

    def context_refused(self, abstract_syntax: str, result: int) -> None:
        """A presentation context was not accepted."""
        self._contexts += 1
        reason = reasons.of_context(abstract_syntax, result)
        if self._metrics is not None:
            self._metrics.contexts_refused.add((self.source, reason.word))
        self.refused(RefusalOf.CONTEXT, reason, shown_uid(abstract_syntax))

    def stored(
        self,
        request: CStoreRequest,
        receiving: Receiving,
        failure: Exception | None,
        begun: float,
        last: float,
    ) -> None:
        """A C-STORE request is about to be answered; it came at ``begun``, its last byte at ``last``."""
        size = receiving.size if isinstance(receiving, Upload) else 0
        metrics = self._metrics
        if failure is not None:
            self._not_stored(request, failure, size)
        else:
            self._bytes += size
            if metrics is not None:
                now = time.monotonic()
                metrics.instances.add(self._success)
                metrics.bytes.add(self._success, size)
                metrics.store.observe(now - begun, self._seconds_key)
                metrics.acknowledge.observe(now - last)

    def _not_stored(self, request: CStoreRequest, failure: Exception, size: int) -> None:
        reason = reasons.of_failure(failure)
        if self._metrics is not None:
            self._metrics.instances.add((self.source, reason.word))
            self._metrics.bytes.add((self.source, reason.word), size)
        self.refused(RefusalOf.INSTANCE, reason, shown_uid(request.affected_sop_class_uid))
        self._counts[reason.word] += 1
        if self._counts[reason.word] == 1:  # one line for each reason; the last line of all has their number
            logger.warning(
                "instance not taken",
                **self.facts,
                sop_class_uid=shown_uid(request.affected_sop_class_uid),
                sop_instance_uid=shown_uid(request.affected_sop_instance_uid),
                reason=reason.word,
                detail="" if reason is reasons.DEFECT else str(failure),  # our own sentence
                exc_info=failure if reason is reasons.DEFECT else None,
            )

    def interrupted(self, request: CStoreRequest, receiving: Receiving) -> bool:
        """It ends within a data set; whether that was refused from its beginning."""
        if isinstance(receiving, Drain):
            self._not_stored(request, receiving.failure, 0)
            return True
        if self._metrics is not None and isinstance(receiving, Upload):
            self._metrics.instances.add((self.source, "interrupted"))
            self._metrics.bytes.add((self.source, "interrupted"), receiving.size)
        return False

    def ended(self, how: str, *, received: int, refused: int, oversized_pdus: int) -> None:
        """It is over: its one line."""
        if self._metrics is not None:
            self._metrics.ended.add((self.source, _ENDS.get(how, "protocol-error")))
        logger.info(
            "association ended",
            **self.facts,
            how=how,
            received=received,
            bytes=self._bytes,
            refused=refused,
            contexts_refused=self._contexts,
            seconds=round(time.monotonic() - self._began, 3),
            oversized_pdus=oversized_pdus,
        )
