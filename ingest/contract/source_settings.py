"""What single settings of sources cannot say of themselves: an AE title is of one source, and a report needs a way."""

from collections.abc import Iterator
from typing import Final

from ingest.contract.identifiers import InvalidIdentifier, check_ae_title
from ingest.contract.settings import Settings

MINIMUM_RATE: Final = 64 * 1024  # bytes/s; one read of a socket may take 256 KiB, and is then waited off
MAXIMUM_TITLES: Final = 128  # all of them go into each fence, whose metadata has 4 KiB


def source_problems(settings: Settings) -> list[str]:
    """One line for each that does not fit the others."""
    return [
        *_problems_of_ownership(settings),
        *_problems_of_titles(settings),
        *_problems_of_rates(settings),
    ]


def _problems_of_rates(settings: Settings) -> Iterator[str]:
    for name, source in settings.sources.items():
        if 0 < source.maximum_rate < MINIMUM_RATE:
            yield f"sources.{name}.maximum_rate: given {source.maximum_rate}; allowed: 0, or from {MINIMUM_RATE} up"


def _problems_of_ownership(settings: Settings) -> Iterator[str]:
    """Whose lane entries an AE title's are must have one answer."""
    owners: dict[str, str] = {}
    for name, source in settings.sources.items():
        if len(source.ae_titles) > MAXIMUM_TITLES:
            yield f"sources.{name}.ae_titles: given {len(source.ae_titles)}; allowed: at most {MAXIMUM_TITLES}"
        for ae_title in source.ae_titles:
            owner = owners.setdefault(ae_title, name)
            if owner != name:
                yield (
                    f"sources.{name}.ae_titles: given {ae_title!r}, which sources.{owner}.ae_titles has too; "
                    "allowed: an AE title in one source only"
                )


def _problems_of_titles(settings: Settings) -> Iterator[str]:
    """AE titles that may be empty."""
    titles = {"commitment.retrieve_ae_title": settings.commitment.retrieve_ae_title}
    for name, source in settings.sources.items():
        titles[f"sources.{name}.called_ae_title"] = source.called_ae_title
        titles[f"sources.{name}.calling_ae_title"] = source.calling_ae_title
    for key, title in titles.items():
        try:
            if title:
                check_ae_title(title)
        except InvalidIdentifier as error:
            yield f"{key}: given {title[:80]!r}; allowed: nothing, or an {error}"
