"""Who may associate, and how many at once (PS3.8 9.3.4)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ingest.association import (
    AcceptorPolicy,
    Answer,
    AssociateReject,
    AssociateRequest,
    Rejection,
    negotiate,
)
from ingest.contract.settings import ReceiverSettings, SourceSettings
from ingest.instance import ChunkPool, Shares
from ingest.log import InstanceLog
from ingest.receiver.sources import Grant, Origin, Sources
from ingest.receiver.unknown_sources import UnknownQuota

NO_SOURCES: Final[Mapping[str, SourceSettings]] = MappingProxyType({})


def acceptor_policy(settings: ReceiverSettings, *, commitment: bool = False) -> AcceptorPolicy:
    """What the settings say an acceptor accepts; ``commitment`` is whether requests for it are.

    Raises:
        ValueError: a transfer syntax or SOP Class that cannot be accepted.
    """
    return AcceptorPolicy(
        ae_title=settings.ae_title,
        accept_any_called_ae=settings.accept_any_called_ae,
        maximum_length=settings.maximum_pdu_length,
        transfer_syntax_preference=settings.transfer_syntax_preference,
        private_storage_classes=frozenset(settings.private_storage_classes),
        commitment_scp=commitment,
    )


class Admission:
    """Answers association requests within the limits of this process."""

    def __init__(
        self,
        settings: ReceiverSettings,
        log: InstanceLog,
        pool: ChunkPool,
        shares: Shares,
        *,
        commitment: bool = False,
        sources: Mapping[str, SourceSettings] = NO_SOURCES,
        quota: UnknownQuota | None = None,
    ) -> None:
        policy = acceptor_policy(settings, commitment=commitment)
        self.sources = Sources(settings, sources, policy, shares, quota)
        self._maximum = settings.maximum_associations
        self._reserve = int(settings.maximum_associations * settings.association_reserve)
        self._log = log
        self._pool = pool
        self.associations = 0
        log.publishers = 0
        self.draining = False

    def answer(self, request: AssociateRequest, origin: Origin) -> tuple[Answer, Grant | None]:
        """Accept or reject, and what is granted unless it is refused for its source.

        Call `established` and `ended` once for each that was accepted.
        """
        if self.draining or self._log.congested(full=not self._pool.free):
            return AssociateReject.of(Rejection.TEMPORARY_CONGESTION), None
        admitted, grant = self.sources.admit(request, origin)
        if isinstance(admitted, Rejection):
            return AssociateReject.of(admitted), None
        assert grant is not None  # with a policy
        if not self._has_room(grant):
            return AssociateReject.of(Rejection.LOCAL_LIMIT_EXCEEDED), None
        return negotiate(request, admitted), grant

    def _has_room(self, grant: Grant) -> bool:
        """The last places are kept for sources that have less than their share of all."""
        left = self._maximum - self.associations
        return left > self._reserve or (left > 0 and self.sources.is_below_its_share(grant, self._maximum))

    def established(self, grant: Grant) -> None:
        """One more association is established."""
        self.sources.established(grant)
        self.associations += 1
        self._log.publishers = self.associations

    def ended(self, grant: Grant) -> None:
        """One association less."""
        self.sources.ended(grant)
        self.associations -= 1
        self._log.publishers = self.associations
