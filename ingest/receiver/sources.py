"""Who may associate: the configured sources, by calling AE title, address and certificate, and what each has open."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from ingest.association import AcceptorPolicy, AssociateRequest, Rejection
from ingest.contract.refusals import shown
from ingest.contract.settings import ReceiverSettings, SourceSettings
from ingest.contract.settings_base import WEIGHTS
from ingest.contract.tls import Certificate, certificate_of
from ingest.instance import Share, Shares
from ingest.receiver.rate import RateMeter
from ingest.receiver.unknown_sources import UnknownQuota

if TYPE_CHECKING:
    import ssl

logger = structlog.get_logger(__name__)

UNKNOWN: Final = ""  # the name of no configured source


class Origin(NamedTuple):
    """Where a connection comes from, and whom its verified certificate names, if it has one."""

    address: str
    certificate: Certificate | None


def address_of(transport: asyncio.BaseTransport) -> str:
    """The peer's address; empty when it is already gone."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if peer else ""


def origin_of(transport: asyncio.BaseTransport) -> Origin:
    """Of an established connection."""
    connection: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    return Origin(address_of(transport), certificate_of(connection))


class Grant:
    """What one association was granted: the limits of its source when it was accepted."""

    def __init__(
        self,
        source: str,
        share: Share,
        *,
        meter: RateMeter | None = None,
        size: int = 0,
        room: int = 0,
        quota: UnknownQuota | None = None,
    ) -> None:
        self.source = source
        self.share = share
        self.meter = meter
        self.quota = quota  # of a source that is unknown, and whose instances go to quarantine
        self._size = size  # bytes of an instance; 0: no limit
        self._room = room  # bytes that the association may still store
        self._bounded = room > 0

    @property
    def maximum_size(self) -> int:
        """Bytes of the next instance; 0 is no limit."""
        if not self._bounded:
            return self._size
        room = max(self._room, 1)  # 0 would be no limit
        return min(self._size, room) if self._size else room

    def stored(self, size: int) -> None:
        """An instance of so many bytes has come."""
        self._room -= size


@dataclass
class _Source:
    """A configured source as this process knows it."""

    settings: SourceSettings
    networks: tuple[IPv4Network | IPv6Network, ...]
    policy: AcceptorPolicy
    meter: RateMeter | None

    def why_not(self, origin: Origin) -> str:
        """What speaks against this source coming from there; empty if nothing does."""
        if self.networks and not _within(origin.address, self.networks):
            return "address"
        names = self.settings.certificates
        if names and (origin.certificate is None or not origin.certificate.is_one_of(names)):
            return "certificate"
        return ""


class Sources:
    """The configured sources; `reload` exchanges them, and what is open keeps what it was granted."""

    def __init__(
        self,
        settings: ReceiverSettings,
        sources: Mapping[str, SourceSettings],
        policy: AcceptorPolicy,
        shares: Shares,
        quota: UnknownQuota | None = None,
    ) -> None:
        self._general = policy
        self._shares = shares
        # Of a stranger's instances nothing is proved before an administrator has decided.
        self._strangers = replace(policy, commitment_scp=False)
        self.quota = quota or UnknownQuota(settings)
        self._open: dict[str, int] = {}
        self._sources: dict[str, _Source] = {}
        self._names: dict[str, str] = {}
        self.reload(settings, sources)

    def reload(self, settings: ReceiverSettings, sources: Mapping[str, SourceSettings]) -> None:
        """Take these, and what is for all, from now on. A source that keeps its rate keeps what it has used of it."""
        before = self._sources
        self._unknown = settings.unknown_sources
        self._unknown_associations = settings.unknown_associations
        self._unknown_priority = settings.unknown_priority
        self.quota.reload(settings)
        self._sizes = settings.maximum_instance_size, settings.maximum_association_size
        self._sources = {name: self._made(source, before.get(name)) for name, source in sources.items()}
        self._names = {title: name for name, source in sources.items() for title in source.ae_titles}

    def _made(self, source: SourceSettings, before: _Source | None) -> _Source:
        policy = self._general
        if source.called_ae_titles:
            policy = replace(policy, accept_any_called_ae=True)
        if source.sop_classes:
            classes = frozenset(source.sop_classes)
            policy = replace(policy, storage_classes=classes)
        meter = RateMeter(source.maximum_rate) if source.maximum_rate else None
        if before is not None and before.settings.maximum_rate == source.maximum_rate:
            meter = before.meter
        return _Source(source, tuple(map(ip_network, source.addresses)), policy, meter)

    def admit(
        self, request: AssociateRequest, origin: Origin
    ) -> tuple[Rejection, None] | tuple[AcceptorPolicy, Grant]:
        """The policy to negotiate with and what is granted, or why there is no association (PS3.8 9.3.4)."""
        name = self._names.get(request.calling_ae_title.strip(" "), UNKNOWN)
        size, room = self._sizes
        source = self._sources.get(name)
        if source is None:
            return self._admit_unknown(request, origin)
        if why := source.why_not(origin):
            return self._refused(request, origin, Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED, why, name)
        limits = source.settings
        if limits.called_ae_titles and request.called_ae_title.strip(" ") not in limits.called_ae_titles:
            return self._refused(
                request, origin, Rejection.CALLED_AE_TITLE_NOT_RECOGNIZED, "called AE title", name
            )
        if limits.maximum_associations and self._open.get(name, 0) >= limits.maximum_associations:
            return self._refused(request, origin, Rejection.LOCAL_LIMIT_EXCEEDED, "associations", name)
        share = self._shares.of(name, WEIGHTS[limits.priority])
        size = limits.maximum_instance_size or size
        return source.policy, Grant(name, share, meter=source.meter, size=size, room=room)

    def _admit_unknown(
        self, request: AssociateRequest, origin: Origin
    ) -> tuple[Rejection, None] | tuple[AcceptorPolicy, Grant]:
        if self._unknown == "refuse":
            return self._refused(request, origin, Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED, "unknown")
        if self._unknown_associations and self._open.get(UNKNOWN, 0) >= self._unknown_associations:
            return self._refused(request, origin, Rejection.LOCAL_LIMIT_EXCEEDED, "associations")
        size, room = self._sizes
        held = self._unknown == "quarantine"
        policy = self._strangers if held else self._general
        share = self._shares.of(UNKNOWN, WEIGHTS[self._unknown_priority])
        return policy, Grant(UNKNOWN, share, size=size, room=room, quota=self.quota if held else None)

    def is_below_its_share(self, grant: Grant, maximum: int) -> bool:
        """Whether a source has fewer associations than its part, by weight, of ``maximum`` among all that have any."""
        weights = {grant.source: grant.share.weight}
        weights |= {name: self._shares.of(name).weight for name in self._open}
        mine = maximum * grant.share.weight / sum(weights.values())
        return self._open.get(grant.source, 0) < mine

    def established(self, grant: Grant) -> None:
        """One more association of its source."""
        self._open[grant.source] = self._open.get(grant.source, 0) + 1

    def ended(self, grant: Grant) -> None:
        """One less."""
        left = self._open.pop(grant.source) - 1
        if left:
            self._open[grant.source] = left

    def _refused(
        self, request: AssociateRequest, origin: Origin, rejection: Rejection, why: str, name: str = UNKNOWN
    ) -> tuple[Rejection, None]:
        certificate = origin.certificate
        logger.warning(
            "source refused",
            why=why,
            source=name,
            calling_ae_title=shown(request.calling_ae_title),
            called_ae_title=shown(request.called_ae_title),
            peer=origin.address,
            certificate=f"sha256:{certificate.sha256}" if certificate else "",
            subject=certificate.subject if certificate else "",
        )
        return rejection, None


def _within(address: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    try:
        where = ip_address(address)
    except ValueError:
        return False
    return any(where in network for network in networks)
