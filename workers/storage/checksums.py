"""The SHA-256 that an S3 store takes with a PUT, checks, keeps and returns: what the proof `checksum` rests on.

obstore sends it with each PUT, but does not hand it out; nor does a URL that it signs help, since the header that
asks for it must be signed too (without, AWS and versitygw answer 403). So this one request is boto3's, which finds
its credentials in the environment, a profile or the platform, as obstore does.

What the store returns must be the SHA-256 of the whole object that we put. No manifest can say that, being in the
object, so it lies beside the bytes as metadata, written by the same PUT (`bucket.DIGEST`). What was put in parts has
a checksum of checksums, and what other tools have written or copied has another, or none of ours: neither is equal.
"""

import base64
import os
import ssl
from typing import Final

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ingest.contract.settings import StoreSettings
from workers.storage.bucket import DIGEST, REFUSED_RETRY, RETRY_AFTER, Bucket, Head, Silent
from workers.storage.bucket_client import CONNECT, profile_of
from workers.storage.in_flight import in_flight

_GONE: Final = (404, 412)  # removed or replaced since
_REFUSED: Final = (401, 403)
_WRONG: Final = bytes(32)


class Checksums:
    """Of the objects of one bucket. Every method blocks, no longer than those of `Bucket`."""

    def __init__(self, bucket: Bucket, settings: StoreSettings) -> None:
        """``settings``: endpoint, region and times where the bucket's URL does not name them.

        Raises:
            ValueError: boto3 does not take the URL.
        """
        url = bucket.url
        self._bucket = bucket
        self._prefix = f"{url.prefix}/" if url.prefix else ""
        region = url.region or settings.region or os.environ.get("AWS_REGION")
        try:
            session = boto3.session.Session(profile_name=profile_of(url) or None)
            self._client = session.client(
                "s3",
                endpoint_url=url.endpoint or settings.endpoint or None,
                region_name=region or session.region_name or "us-east-1",
                verify=os.environ.get("AWS_CA_BUNDLE") or ssl.get_default_verify_paths().cafile,
                config=Config(
                    connect_timeout=min(CONNECT, settings.request_timeout),
                    read_timeout=settings.request_timeout,
                    max_pool_connections=settings.requests,
                    retries={"total_max_attempts": 1},  # `Bucket.tries` repeats
                    s3={"addressing_style": "path"},  # as obstore
                ),
            )
        except (BotoCoreError, ValueError) as error:
            raise ValueError(str(error).partition("\n")[0]) from None

    def has(self, found: Head) -> bool:
        """Whether the store returns, now and of this version, the SHA-256 of what we put.

        Raises:
            Silent: the store.
        """
        return self._bucket.until_answered(lambda: self._asked(found))

    def takes_wrong(self, name: str, data: bytes) -> bool:
        """Whether the store takes what has another SHA-256 than is sent with it. To try out a store.

        Raises:
            Silent: it did not answer well enough to tell.
        """
        wrong = base64.b64encode(_WRONG).decode()
        try:
            with in_flight():
                self._client.put_object(**self._of(name), Body=data, ChecksumSHA256=wrong)
        except (ClientError, BotoCoreError) as error:
            if _status(error) != 400:  # noqa: PLR2004 - Bad Request
                raise _silent(error) from None
            return False
        return True

    def _asked(self, found: Head) -> bool:
        try:
            with in_flight():
                answer = self._client.head_object(
                    **self._of(found.name), IfMatch=found.version.e_tag, ChecksumMode="ENABLED"
                )
        except (ClientError, BotoCoreError) as error:
            if _status(error) in _GONE:
                return False
            raise _silent(error) from None
        returned = answer.get("ChecksumSHA256", "")
        put = answer.get("Metadata", {}).get(DIGEST, "")
        return bool(returned) and returned == put

    def _of(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket.url.bucket, "Key": self._prefix + name}


def _status(error: Exception) -> int:
    """Of HTTP; zero where there was no answer."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _silent(error: Exception) -> Silent:
    """What an error of boto3 means, without what it says: that has the object's key."""
    status = _status(error)
    if status in _REFUSED or (not status and "Credentials" in type(error).__name__):
        return Silent(
            "store: it refuses our credentials (or there are none), or the rights we need", REFUSED_RETRY
        )
    if status:
        return Silent(f"store: it answers {status}", status=str(status))
    return Silent("store: it cannot be reached, or breaks off", RETRY_AFTER)
