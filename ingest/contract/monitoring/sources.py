"""Names of senders in metrics: those of the settings, and one for all others. Never what a peer says it is."""

from typing import Final

from ingest.contract.settings import Settings

OTHER: Final = "(other)"  # no source can be called so: see `SourceName`


class Sources:
    """Which configured source an AE title is of."""

    def __init__(self, settings: Settings) -> None:
        self._names = {title: name for name, source in settings.sources.items() for title in source.ae_titles}

    def of(self, calling_ae_title: str) -> str:
        """The source's name, or `OTHER`."""
        return self._names.get(calling_ae_title.strip(" "), OTHER)
