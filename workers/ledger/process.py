"""The ledger's process: reads on as the logs grow, and shows how far it is and what alarms there are."""

import asyncio
import contextlib
import time
from typing import Final

import structlog

from ingest.contract.kafka import KafkaUnreachable
from ingest.contract.monitoring.admin import Admin
from ingest.contract.monitoring.instruments import Counter, Gauge, Instrument, KeptCounter, Labels
from ingest.contract.running import announce, withdraw
from ingest.contract.settings import Settings
from ingest.contract.stop_signals import stop_by_signal
from workers.errors import Unavailable
from workers.ledger.consumer import entered, logs_of, move_rows
from workers.ledger.database import LedgerUnavailable, open_database
from workers.ledger.ledger import Ledger
from workers.ledger.logs import Logs
from workers.storage.shard_map import WrongStores

logger = structlog.get_logger(__name__)

_RETRY: Final = 5.0  # seconds after the database, brokers or the disk did not answer


class LedgerMetrics:
    """What is known of it without a question to the database."""

    def __init__(self) -> None:
        self.taken = Counter("ledger_records_total", "Records of the logs that this process entered.")
        self.failures = Counter(
            "ledger_failures_total", "Times that the database, the logs or the stores did not answer."
        )
        # As the database has them; until it was asked, nothing: from 0 to its number would look like new alarms.
        self.raised: dict[str, int] = {}
        self.lost: int | None = None
        self._caught_up = time.monotonic()

    def caught_up(self) -> None:
        """All that the logs had is entered."""
        self._caught_up = time.monotonic()

    @property
    def instruments(self) -> list[Instrument]:
        """All of them."""
        return [
            self.taken,
            self.failures,
            Gauge(
                "ledger_behind_seconds",
                "Since all that the logs had was entered.",
                lambda: time.monotonic() - self._caught_up,
            ),
            KeptCounter(
                "ledger_lost_total",
                "Stretches of the logs that were gone or damaged before they were read.",
                lambda: {} if self.lost is None else float(self.lost),
            ),
            KeptCounter(
                "ledger_alarms_total",
                "Studies and series that are not consistent.",
                self._alarms,
                ("reason",),
            ),
        ]

    def _alarms(self) -> dict[Labels, float]:
        return {(kind,): float(times) for kind, times in self.raised.items()}


async def run_ledger(settings: Settings) -> int:
    """Keep the ledger until SIGTERM or SIGINT; returns the exit code."""
    stop = stop_by_signal()
    if settings.log.kind == "kafka" and not (
        settings.ledger.key.get_secret_value() or settings.ledger.key_file
    ):
        logger.warning("no ledger.key: patients and accession numbers are not in the ledger")
    metrics = LedgerMetrics()
    # Behind the last worker that there can be.
    async with Admin(settings, 1 + settings.log.partitions) as admin:
        admin.show(metrics.instruments)
        keeper = _Keeper(settings, metrics, stop)
        admin.ready_unless(lambda: ["stopping"] if stop.is_set() else keeper.reasons)
        file = announce(settings.data, "ledger")
        try:
            await keeper.run()
        finally:
            withdraw(file)
    return 0


class _Keeper:
    """The loop. What does not answer is asked again: nothing waits for the ledger."""

    def __init__(self, settings: Settings, metrics: LedgerMetrics, stop: asyncio.Event) -> None:
        self._settings = settings
        self._metrics = metrics
        self._stop = stop
        self._moves_at = float("-inf")
        self.reasons: list[str] = ["the logs are not read yet"]

    async def run(self) -> None:
        while not self._stop.is_set():
            try:
                with contextlib.ExitStack() as opened:
                    ledger = Ledger(await asyncio.to_thread(open_database, self._settings))
                    opened.callback(ledger.close)
                    logs = await asyncio.to_thread(logs_of, self._settings)
                    opened.callback(logs.close)
                    while not self._stop.is_set():
                        await asyncio.to_thread(self._turn, ledger, logs)
                        self.reasons = []
                        await self._pause(self._settings.ledger.interval)
            except (LedgerUnavailable, KafkaUnreachable, Unavailable, WrongStores, OSError) as error:
                why = (error.strerror or "") if isinstance(error, OSError) else str(error)
                self.reasons = [why]
                self._metrics.failures.add()
                logger.warning("the ledger waits", reason=why)
                await self._pause(_RETRY)

    def _turn(self, ledger: Ledger, logs: Logs) -> None:
        for taken in entered(ledger, logs):
            self._metrics.taken.add(amount=taken)
            self._metrics.raised, self._metrics.lost = ledger.counts()
            if self._stop.is_set():
                return
        self._metrics.caught_up()
        if time.monotonic() - self._moves_at >= self._settings.ledger.moves_interval:
            ledger.note_moves(move_rows(self._settings))
            self._metrics.raised, self._metrics.lost = ledger.counts()
            self._moves_at = time.monotonic()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
