"""What stands in for the commitment engine: it answers as a test says, and reports when a test lets it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from ingest.commitment.interface import ReportChannel
from ingest.contract.commitments import Finding, Found, Reference


@dataclass(frozen=True)
class Asked:
    transaction_uid: str
    references: tuple[Reference, ...]
    calling_ae_title: str
    called_ae_title: str
    channel: ReportChannel

    async def report(self, failing: dict[str, Finding] | None = None, title: str = "") -> int | None:
        """Report all of it: committed, but for the instances of ``failing``."""
        findings = failing or {}
        found = [
            Found(
                each.sop_class_uid, each.sop_instance_uid, findings.get(each.sop_instance_uid, Finding.PROVED)
            )
            for each in self.references
        ]
        committed = [each for each in found if each.finding is Finding.PROVED]
        failed = [each for each in found if each.finding is not Finding.PROVED]
        return await self.channel.report(self.transaction_uid, committed, failed, title)


@dataclass
class Engine:
    """Keeps what it is asked; ``hold`` keeps the answer back."""

    status: int = 0
    failure: Exception | None = None
    asked: list[Asked] = field(default_factory=list)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    hold: bool = False

    async def ask(
        self,
        transaction_uid: str,
        references: Sequence[Reference],
        calling_ae_title: str,
        called_ae_title: str,
        channel: ReportChannel,
    ) -> int:
        asked = Asked(transaction_uid, tuple(references), calling_ae_title, called_ae_title, channel)
        self.asked.append(asked)
        if self.hold:
            await self.let_go.wait()
        if self.failure is not None:
            raise self.failure
        return self.status
