"""SIGHUP: settings are read again and, if they are valid, those that can change while we run are taken."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import structlog

from ingest.contract import audit
from ingest.contract.settings import Settings
from ingest.contract.settings_sources import WrongSettings
from ingest.contract.supervision import has_terminal

logger = structlog.get_logger(__name__)

# What `take` of `Reloading` applies. All else needs a restart, and is said to.
_APPLIED = frozenset({"sources"})
_APPLIED_OF_RECEIVER = frozenset(
    {
        "unknown_sources",
        "unknown_priority",
        "unknown_associations",
        "unknown_bytes",
        "unknown_instances",
        "unknown_period",
        "maximum_instance_size",
        "maximum_association_size",
    }
)


class Reloading:
    """Reads the settings anew on SIGHUP, one signal after the other."""

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        take: Callable[[Settings], Awaitable[None]],
        stop: asyncio.Event,
    ) -> None:
        self._settings = settings  # of the start: what differs from them waits for a restart
        self._taken = settings
        self._load = load
        self._take = take
        self._stop = stop
        self._asked = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        self._had_terminal = has_terminal()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)

    def close(self) -> None:
        """Reload no more. From here on SIGHUP does nothing: its default would cut what is still received."""
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._task.cancel()

    def _hang_up(self) -> None:
        if self._had_terminal and not has_terminal():
            self._stop.set()  # the terminal that ran us is gone: what SIGHUP was made for
        else:
            self._asked.set()

    async def _run(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self._reload()
            except Exception:
                logger.exception("settings not reloaded")

    async def _reload(self) -> None:
        try:
            settings = await asyncio.to_thread(self._load)
        except WrongSettings as error:
            for problem in error.problems:
                logger.error("settings refused, the old ones stay", problem=problem)  # noqa: TRY400 - it says all
            wrong = ", ".join(error.keys) or "the file cannot be read"
            audit.settings_reloaded((), f"settings refused: {wrong}")
            return
        waiting = changed_for_restart(self._settings, settings)
        await self._take(settings)
        logger.info("settings reloaded", sources=len(settings.sources))
        audit.settings_reloaded(changed_and_taken(self._taken, settings))
        self._taken = settings
        if waiting:
            logger.warning("settings that need a restart have changed", keys=", ".join(waiting))


def changed_and_taken(before: Settings, after: Settings) -> list[str]:
    """The keys that differ and are taken; of the tables of sources, each one's own."""
    names = sorted({*before.sources, *after.sources})
    keys = [f"sources.{name}" for name in names if before.sources.get(name) != after.sources.get(name)]
    return keys + [
        f"receiver.{key}"
        for key in sorted(_APPLIED_OF_RECEIVER)
        if getattr(before.receiver, key) != getattr(after.receiver, key)
    ]


def changed_for_restart(before: Settings, after: Settings) -> list[str]:
    """The keys that differ and are not taken."""
    keys = []
    for table in Settings.model_fields:
        if table in _APPLIED or getattr(before, table) == getattr(after, table):
            continue
        if table != "receiver":
            keys.append(table)
            continue
        keys += [
            f"receiver.{key}"
            for key in type(before.receiver).model_fields
            if key not in _APPLIED_OF_RECEIVER
            and getattr(before.receiver, key) != getattr(after.receiver, key)
        ]
    return keys
