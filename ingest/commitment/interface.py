"""Where the association and the commitment engine meet: an N-ACTION goes in, a status and later a report come out."""

from collections.abc import Sequence
from typing import Protocol

from ingest.contract.commitments import Found, Reference


class ReportChannel(Protocol):
    """The association that brought the N-ACTION, for a report on the same one (PS3.4 J.3.3.1.2)."""

    def keep(self) -> None:
        """A report will be sent here: idle or not, the association is kept for it, as long as the settings lease it."""
        ...

    def let_go(self) -> None:
        """None will be sent here any more."""
        ...

    async def report(
        self,
        transaction_uid: str,
        committed: Sequence[Found],
        failed: Sequence[Found],
        retrieve_ae_title: str,
    ) -> int | None:
        """Send one N-EVENT-REPORT when the association is idle; the peer's status, None once it is gone."""
        ...


class Commitments(Protocol):
    """What answers N-ACTION needs of the engine."""

    async def ask(
        self,
        transaction_uid: str,
        references: Sequence[Reference],
        calling_ae_title: str,
        called_ae_title: str,
        channel: ReportChannel,
    ) -> int:
        """Make a request durable; the status for N-ACTION-RSP, 0000H only when it is.

        The UIDs are checked, ``references`` are each once and at least one. Statuses: 0131H for a Transaction UID
        that is in use for other instances or used up, 0213H for too many open ones or a log without room, 0110H
        where a report could never be delivered or the log failed.
        """
        ...
