"""A pipeline in the test's process that announces what it places, as a worker does, for ledgers to read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Outcome
from ingest.contract.settings import Settings
from tests.support.placing import Placing, placing
from workers.ledger.consumer import catch_up, logs_of, move_rows
from workers.ledger.database import open_database
from workers.ledger.ledger import Ledger
from workers.ledger.rebuild import Rebuilt, rebuild
from workers.log.checkpoint import Announced
from workers.log.outcome_producer import OutcomeProducer
from workers.storage.stores import open_stores


class Announcing:
    """Places, and announces in the outcome log of a partition."""

    def __init__(self, one: Placing, producer: OutcomeProducer) -> None:
        self.one, self._producer = one, producer
        self._first = one.sequence

    async def announce(self, *outcomes: Outcome) -> None:
        """Those of the last so many uploads, in their order."""
        numbers = range(self.one.sequence - len(outcomes) + 1, self.one.sequence + 1)
        announced = [
            Announced(UploadId.of(1, 1, number), outcome)
            for number, outcome in zip(numbers, outcomes, strict=True)
        ]
        self._producer.counted(await self._producer.announce(announced))


@asynccontextmanager
async def announcing(data: Path) -> AsyncIterator[Announcing]:
    """A pipeline on a data folder, without a codec."""
    producer = OutcomeProducer(data / "outcomes" / "0", 0)
    with closing(producer):
        async with placing(data, encode=False) as one:
            yield Announcing(one, producer)


def live(settings: Settings) -> Ledger:
    """The ledger, all read that there is."""
    ledger = Ledger(open_database(settings))
    with closing(logs_of(settings)) as logs:
        catch_up(ledger, logs)
    ledger.note_moves(move_rows(settings))
    return ledger


def rebuilt(settings: Settings, ledger: Ledger) -> Rebuilt:
    """The same database made anew."""
    with (
        open_stores(settings.store_locations, settings.store) as stores,
        closing(logs_of(settings)) as logs,
    ):
        return asyncio.run(rebuild(ledger.engine, logs, stores, settings, lambda _: None))
