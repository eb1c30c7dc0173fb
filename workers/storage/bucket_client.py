"""obstore's clients of a bucket: by the store's URL, the settings, and credentials from where the platform puts them."""

import importlib
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from obstore.store import AzureStore, GCSStore, S3Store

from ingest.contract.settings import MiB, StoreSettings
from ingest.contract.store_urls import StoreUrl

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3CredentialProvider
    from obstore.store import ObjectStore as Client

CONNECT: Final = 5.0  # seconds
FIRST_PAUSE: Final = 0.1  # seconds before a request is repeated; then doubled
LONGEST_PAUSE: Final = 3.0  # seconds
_RETRIES: Final = 10  # the deadline comes first
_COPIED: Final = 16 * MiB  # bytes a second that a store copies at least


class Clients(NamedTuple):
    """Of one bucket; some may be the same."""

    usual: "Client"
    copiers: "Copiers"
    once: "Client"  # which repeats no request: for what each time is asked about before


class Copiers:
    """Clients for copies within a bucket, which take the longer the larger the object is, though few bytes come and go."""

    def __init__(self, url: StoreUrl, settings: StoreSettings) -> None:
        """As `clients_of`."""
        self._url = url
        self._settings = settings
        self._made: dict[tuple[float, bool], Client] = {}

    def new(self, size: int) -> "Client":
        """For ``size`` bytes that are given a name which may be taken."""
        return self._waiting_for(size, over=False)

    def over(self, size: int) -> "Client":
        """For ``size`` bytes put over what is there; it repeats no request."""
        return self._waiting_for(size, over=True)

    def _waiting_for(self, size: int, *, over: bool) -> "Client":
        seconds = self._settings.request_timeout
        # Doubled, so that few clients are made.
        while size > seconds * _COPIED:
            seconds *= 2
        if (seconds, over) not in self._made:
            settings = self._settings.model_copy(update={"request_timeout": seconds})
            # By parts: on AWS and MinIO the only copy that heeds a condition, and MinIO refuses it with a checksum.
            parts = {} if over or self._url.scheme != "s3" else {"copy_if_not_exists": "multipart"}
            self._made[seconds, over] = _client(self._url, settings, 0 if over else _RETRIES, **parts)
        return self._made[seconds, over]


def clients_of(url: StoreUrl, settings: StoreSettings) -> Clients:
    """Those of a bucket.

    ``settings``: endpoint, region and times where the URL does not name them.

    Raises:
        BaseError: obstore does not take the URL.
        ValueError: an AWS profile is named, and boto3, which reads profiles, is not installed.
    """
    checksum = {}
    if url.scheme == "s3" and settings.checksum != "none":
        checksum = {"checksum_algorithm": settings.checksum}
    usual = _client(url, settings, **checksum)
    return Clients(usual, Copiers(url, settings), _client(url, settings, 0))


def _client(url: StoreUrl, settings: StoreSettings, retries: int = _RETRIES, /, **config: str) -> "Client":
    endpoint = url.endpoint or settings.endpoint
    options: ClientConfig = {
        "timeout": timedelta(seconds=settings.request_timeout),
        "connect_timeout": timedelta(seconds=min(CONNECT, settings.request_timeout)),
    }
    retry: RetryConfig = {
        "max_retries": retries,
        "retry_timeout": timedelta(seconds=settings.retry_timeout),
        "backoff": {
            "init_backoff": timedelta(seconds=FIRST_PAUSE),
            "max_backoff": timedelta(seconds=LONGEST_PAUSE),
        },
    }
    if url.scheme == "gs":
        return GCSStore(url.bucket, prefix=url.prefix or None, client_options=options, retry_config=retry)
    if url.scheme == "az":
        return AzureStore(
            url.bucket, prefix=url.prefix or None, config={"account_name": url.account},
            client_options=options, retry_config=retry,
        )  # fmt: skip
    config["disable_bulk_delete"] = "true"  # one object at a time is what every store has
    if endpoint:
        config["endpoint"] = endpoint
        options["allow_http"] = endpoint.startswith("http://")
    region = url.region or settings.region
    if region:
        config["region"] = region
    return S3Store(
        url.bucket, prefix=url.prefix or None, config=cast("S3Config", config),
        client_options=options, retry_config=retry, credential_provider=_profile(url),
    )  # fmt: skip


def profile_of(url: StoreUrl) -> str:
    """The AWS profile that has the credentials; empty where none is named, or the environment has some."""
    return url.profile or ("" if os.environ.get("AWS_ACCESS_KEY_ID") else os.environ.get("AWS_PROFILE", ""))


def _profile(url: StoreUrl) -> "S3CredentialProvider | None":
    """Credentials of an AWS profile, where one is named; else obstore looks where the platform puts them.

    Raises:
        ValueError: boto3, which reads profiles, is not installed.
    """
    profile = profile_of(url)
    if not profile:
        return None
    try:
        session = importlib.import_module("boto3.session")
        provider = importlib.import_module("obstore.auth.boto3")
    except ImportError:
        raise ValueError("an AWS profile is read by boto3: pip install 'dicom-ingest[aws-profile]'") from None
    return cast(
        "S3CredentialProvider", provider.Boto3CredentialProvider(session.Session(profile_name=profile))
    )
