"""URLs of stores: ``file:///folder``, ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``az://account/container/prefix``.

An ``s3`` URL may say where its bucket is and who asks, for stores over several endpoints or accounts:
``s3://images?endpoint=https://s3.example.org&region=eu-1&profile=archive``. A URL never has credentials: they
come from the environment, a profile, or the platform.
"""

from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

BUCKET_SCHEMES: Final = ("s3", "gs", "az")
_OPTIONS: Final = ("endpoint", "region", "profile")


class StoreUrl(NamedTuple):
    """A bucket, or a prefix in one."""

    scheme: str
    account: str  # az only
    bucket: str  # container of az
    prefix: str  # may be empty; without slashes around it
    endpoint: str = ""
    region: str = ""
    profile: str = ""

    def __str__(self) -> str:
        """The URL as reports show it: where the objects are, without how to get there."""
        return f"{self.scheme}://" + "/".join(filter(None, (self.account, self.bucket, self.prefix)))


def parse_store_url(text: str) -> StoreUrl | Path:
    """The bucket that a URL names; of a ``file`` URL the folder.

    Raises:
        ValueError: it is none of these; the message does not repeat what may be a secret.
    """
    parts = urlsplit(text)
    if "@" in parts.netloc or ":" in parts.netloc:
        raise ValueError("a store's URL has no credentials: they come from environment, profile or platform")
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return Path(unquote(parts.path))
    if parts.scheme not in BUCKET_SCHEMES or not parts.netloc or parts.fragment:
        raise ValueError(
            "a store's URL is file:///folder, s3://bucket, gs://bucket or az://account/container"
        )
    options = _options(parts.scheme, parts.query)
    path = parts.path.strip("/")
    if parts.scheme != "az":
        return StoreUrl(parts.scheme, "", parts.netloc, path, **options)
    container, _, prefix = path.partition("/")
    if not container:
        raise ValueError("an az URL names account and container: az://account/container")
    return StoreUrl("az", parts.netloc, container, prefix.strip("/"))


def _options(scheme: str, query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if options and (scheme != "s3" or not set(options) <= set(_OPTIONS)):
        raise ValueError(f"only s3 URLs have options, and only {', '.join(_OPTIONS)}")
    check_endpoint(options.get("endpoint", ""))
    return options


def check_endpoint(text: str) -> None:
    """Where the buckets of s3 URLs are; nothing will do.

    Raises:
        ValueError: it is no endpoint; the message does not repeat what may be a secret.
    """
    if text and ("@" in text or urlsplit(text).scheme not in ("http", "https")):
        raise ValueError("an endpoint is http://host or https://host, without credentials")
