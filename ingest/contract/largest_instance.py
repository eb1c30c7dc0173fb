"""The largest instance that the stores of the settings can put in its place; a larger one is not to be acknowledged."""

from collections.abc import Container, Iterator
from typing import Final

from ingest.contract.settings import Settings
from ingest.contract.store_urls import StoreUrl

KEY: Final = "receiver.maximum_instance_size"
# Bytes. S3 copies 5 GiB at once, which is how a large object gets its name; it has a head, and may be larger encoded anew.
LARGEST_ON_S3: Final = 5_000_000_000


def fitted(settings: Settings, given: Container[str]) -> Settings:
    """With a default that the stores can take. ``given``: the keys that are none."""
    receiver = settings.receiver
    if KEY in given or not _has_s3(settings) or 0 < receiver.maximum_instance_size <= LARGEST_ON_S3:
        return settings
    receiver = receiver.model_copy(update={"maximum_instance_size": LARGEST_ON_S3})
    return settings.model_copy(update={"receiver": receiver})


def size_problems(settings: Settings) -> Iterator[str]:
    """One line for each limit above what the stores can take."""
    if not _has_s3(settings):
        return
    general = settings.receiver.maximum_instance_size
    if not 0 < general <= LARGEST_ON_S3:
        yield f"{KEY}: given {general}; {_allowed(1)}"
    for name, source in settings.sources.items():
        if source.maximum_instance_size > LARGEST_ON_S3:
            yield f"sources.{name}.maximum_instance_size: given {source.maximum_instance_size}; {_allowed(0)}"


def _has_s3(settings: Settings) -> bool:
    return any(isinstance(place, StoreUrl) and place.scheme == "s3" for place in settings.store_locations)


def _allowed(least: int) -> str:
    return f"allowed: from {least} to {LARGEST_ON_S3}, since an object in an s3 store has at most 5 GiB"
