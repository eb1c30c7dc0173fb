"""The roots of the settings: a folder's or a bucket's for each place."""

from collections.abc import Iterable
from pathlib import Path

from ingest.contract.settings import StoreSettings
from ingest.contract.store_urls import StoreUrl, parse_store_url
from workers.storage.directory_root import DirectoryRoot
from workers.storage.root import Root
from workers.storage.shard_map import WrongStores


def root_of(
    place: Path | StoreUrl | Root, settings: StoreSettings | None = None, *, checksums: bool = False
) -> Root:
    """The root at a folder or in a bucket; ``checksums``: a bucket is to return those that it checked.

    Raises:
        WrongStores: it cannot be one as this installation or environment is.
    """
    if isinstance(place, Path):
        return DirectoryRoot(place)
    if isinstance(place, StoreUrl):
        return _bucket_root(place, settings or StoreSettings(), checksums=checksums)
    return place


def roots_of(
    places: Iterable[Path | StoreUrl | Root],
    settings: StoreSettings | None = None,
    *,
    checksums: bool = False,
) -> list[Root]:
    """The roots of several."""
    return [root_of(place, settings, checksums=checksums) for place in places]


def place_of(text: str) -> Path | StoreUrl:
    """A folder's path or a store's URL.

    Raises:
        ValueError: a URL of no store.
    """
    return parse_store_url(text) if "://" in text else Path(text)


def _bucket_root(url: StoreUrl, settings: StoreSettings, *, checksums: bool) -> Root:
    try:
        from workers.storage.bucket_root import BucketRoot  # noqa: PLC0415 - folders alone need no obstore
    except ImportError:
        raise WrongStores(f"{url} needs obstore: pip install 'dicom-ingest[s3]'") from None
    return BucketRoot(url, settings, checksums=checksums)
