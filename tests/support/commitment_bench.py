"""One receiver's commitment engine on the log of one machine, with its worker and its peer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.commitment.engine import Engine
from ingest.contract.commitments import Finding, Reference
from ingest.contract.identifiers import TransactionId
from ingest.contract.settings import Settings
from ingest.log.commitment_log import Location
from ingest.log.commitment_spool import SpoolCommitmentLog
from tests.support.commitment import CT, Channel, Hand, Modality, leave_proofs
from tests.support.memory_log import MemoryLog

if TYPE_CHECKING:
    from ingest.commitment.reporting import Reporter

REFERENCES = [Reference(CT, f"1.2.3.{number}") for number in range(10)]
UID = "1.2.9"
ID = TransactionId.of("CT1", UID)


class Bench:
    """One receiver's engine, with its worker and its peer."""

    def __init__(self, data: Path, **commitment: Any) -> None:
        source = {"ae_titles": ["CT1"], "host": "127.0.0.1", "port": 104}
        for key in ("same_association", "report_limit", "port"):
            if key in commitment:
                source[key] = commitment.pop(key)
        self.settings = Settings.model_validate(
            {"data": data, "commitment": {"enabled": True, **commitment}, "sources": {"ct": source}}
        )
        self.instances = MemoryLog()
        self.clock = Hand()
        self.modality = Modality()
        self.report: Reporter = self.modality
        self.channel = Channel()
        self.taken: set[bytes] = set()
        self.finding = dict.fromkeys(REFERENCES, Finding.PROVED)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Engine]:
        self.instances.epoch += 1
        self.log = SpoolCommitmentLog(self.settings)
        engine = Engine(self.settings, self.instances, self.log, self.report, self.clock)
        await engine.start()
        try:
            yield engine
        finally:
            await engine.close()

    async def ask(self, engine: Engine, uid: str = UID, count: int = 10, ae_title: str = "CT1") -> int:
        return await engine.ask(uid, REFERENCES[:count], ae_title, "US", self.channel)

    def prove(self) -> int:
        return leave_proofs(
            self.settings.data / "proofs", self.instances, lambda one: self.finding[one], self.taken
        )


def damage(data: Path, place: Location) -> None:
    """Flip a bit of the record at this place."""
    segments = sorted((data / "commitments" / "segments").iterdir())
    size = segments[0].stat().st_size
    with segments[place.position // size].open("r+b") as file:
        file.seek(place.position % size + 120)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
