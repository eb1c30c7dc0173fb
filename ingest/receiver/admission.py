"""Who may associate, and how many at once (PS3.8 9.3.4)."""

from ingest.association import (
    AcceptorPolicy,
    Answer,
    AssociateReject,
    AssociateRequest,
    Rejection,
    negotiate,
)
from ingest.contract.settings import ReceiverSettings
from ingest.receiver.storage import InstanceLog


def acceptor_policy(settings: ReceiverSettings) -> AcceptorPolicy:
    """What the settings say an acceptor accepts.

    Raises:
        ValueError: a transfer syntax or SOP Class that cannot be accepted.
    """
    return AcceptorPolicy(
        ae_title=settings.ae_title,
        accept_any_called_ae=settings.accept_any_called_ae,
        maximum_length=settings.maximum_pdu_length,
        transfer_syntax_preference=settings.transfer_syntax_preference,
        private_storage_classes=frozenset(settings.private_storage_classes),
    )


class Admission:
    """Answers association requests within the limits of this process."""

    def __init__(self, settings: ReceiverSettings, log: InstanceLog) -> None:
        self._policy = acceptor_policy(settings)
        self._maximum = settings.maximum_associations
        self._log = log
        self.associations = 0
        log.publishers = 0
        self.draining = False

    def answer(self, request: AssociateRequest) -> Answer:
        """Accept or reject. Call `ended` once for each that was accepted."""
        if self.draining:
            return AssociateReject.of(Rejection.TEMPORARY_CONGESTION)
        if self.associations >= self._maximum:
            return AssociateReject.of(Rejection.LOCAL_LIMIT_EXCEEDED)
        return negotiate(request, self._policy)

    def established(self) -> None:
        """One more association is established."""
        self.associations += 1
        self._log.publishers = self.associations

    def ended(self) -> None:
        """One association less."""
        self.associations -= 1
        self._log.publishers = self.associations
