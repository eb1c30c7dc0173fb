"""A bucket, or a prefix in one, through obstore: requests whose outcome is known when they return.

The only file that asks obstore (`bucket_client` makes its clients), and the place where its errors become ours. Only
its blocking calls are used, from threads of ours: its calls for asyncio wake the event loop from threads of their own,
and ended up to half of the interpreters that used them with SIGABRT as they exited.

An answer to a conditional write may be lost, and its error may lie: "exists already" is also what a store says
of our own write whose first answer was lost (5xx after it had stored), or of a race in which nothing was stored
(409). So every answer but a plain success is settled by reading back: the bytes there are ours, another's, or
nothing, and in the last case the write is repeated, with jitter, until the deadline. Past it the store is
`Unavailable`, and whoever comes back finds its own earlier write by the manifest in it.

No message here repeats what obstore says: that has the object's key, which has a UID.
"""

import base64
import contextlib
import hashlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from ingest.contract.failpoints import Failpoint, reach
from ingest.contract.store_urls import StoreUrl
from workers.errors import Unavailable
from workers.storage.bucket_client import FIRST_PAUSE, LONGEST_PAUSE, clients_of
from workers.storage.in_flight import in_flight

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode, UpdateVersion
    from obstore.store import ObjectStore as Client

    from ingest.contract.settings import StoreSettings

R = TypeVar("R")
Buffer = bytes | memoryview

# Metadata of an object: the SHA-256 of all its bytes, in base64 as S3 has it; see `checksums`.
DIGEST: Final = "dicom-ingest-sha256"
RETRY_AFTER: Final = 2.0  # seconds
REFUSED_RETRY: Final = 30.0  # seconds; credentials and rights come back by an administrator's hand
_BLOCK: Final = 4 * 1024 * 1024  # bytes that are compared at a time
_PARTS_AT_ONCE: Final = 4
_NO_SUCH_RANGE: Final = "416"
# As obstore calls control characters, and nothing between two slashes; of the store that answers so nothing else is wrong.
_NO_NAME: Final = "store: somebody's object there has a name that cannot be read: remove that object"
_GONE: Final = "store: an object has gone while it was copied"
_STATUS = re.compile(r"status code: (\d{3} [A-Za-z ]+)")


class Version(NamedTuple):
    """Which content of an object is meant; an S3 store knows it by its entity tag, GCS by its generation."""

    e_tag: str | None
    version: str | None


class Head(NamedTuple):
    """What a bucket says of an object."""

    name: str
    size: int  # bytes
    version: Version
    modified: datetime  # by the store's clock


class Uploaded(NamedTuple):
    """What an upload has sent."""

    size: int  # bytes
    digest: bytes  # SHA-256

    @classmethod
    def of(cls, data: bytes) -> "Uploaded":
        """As if these bytes had been uploaded."""
        return cls(len(data), hashlib.sha256(data).digest())


class Silent(Unavailable):
    """The store did not answer, or not with an answer of use: it may be down for everybody."""

    def __init__(self, detail: str, retry_after: float = RETRY_AFTER, status: str = "") -> None:
        """``status``: of HTTP, where there was an answer."""
        super().__init__(detail, retry_after)
        self.status = status


def always() -> None:
    """Nothing to check before a request."""


class Bucket:
    """Every method blocks, and raises `Unavailable` when the bucket does not serve it within the deadline."""

    def __init__(self, url: StoreUrl, settings: "StoreSettings") -> None:
        """``settings``: endpoint, region and times where the URL does not name them.

        Raises:
            ValueError: obstore does not take the URL.
        """
        self.url: StoreUrl = url
        self._deadline = settings.retry_timeout
        self._part = settings.part_size
        self._has_checksum = url.scheme == "s3" and settings.checksum == "sha256"
        try:
            self._client, self._copiers, self._once = clients_of(url, settings)
        except BaseError as error:
            raise ValueError(str(error).partition("\n")[0]) from None
        self._closing = threading.Event()

    def close(self) -> None:
        """Try nothing again from now on."""
        self._closing.set()

    def create(self, name: str, buffers: Sequence[Buffer]) -> Version | None:
        """Create an object with these bytes; None where the name has others. Never overwrites."""
        for _ in self.tries():
            version = self._put(name, buffers, "create")
            if version is not None:
                return version
            found = self.head(name)
            if found is not None:
                return found.version if self._has(found, buffers) else None
        raise AssertionError("unreachable")

    def swap(self, name: str, buffers: Sequence[Buffer], before: Version) -> Version | None:
        """Replace the content ``before``; None where there is another, or nothing. The bytes must be new ones."""
        mode = _exactly(before)
        for _ in self.tries():
            version = self._put(name, buffers, mode)
            if version is not None:
                return version
            found = self.head(name)
            if found is None or found.version != before:
                return found.version if found is not None and self._has(found, buffers) else None
        raise AssertionError("unreachable")

    def create_once(self, name: str, data: bytes) -> Version | None:
        """One create, as the store answers it: None for anything but success. To try out a store."""
        return self._put(name, [data], "create")

    def swap_once(self, name: str, data: bytes, before: Version) -> Version | None:
        """One replacement, as the store answers it: None for anything but success. To try out a store."""
        return self._put(name, [data], _exactly(before))

    def head(self, name: str) -> Head | None:
        """What is under a name; None where there is nothing."""
        meta = self._asked(lambda: self._meta(name))
        return None if meta is None else _head(meta)

    def read(self, name: str, length: int) -> tuple[bytes, Head] | None:
        """Up to ``length`` first bytes, and what they are of; None where there is nothing."""
        for _ in self.tries():
            found = self.head(name) if length == 0 else self._start(name, length)
            if isinstance(found, Head):
                if length and found.size:
                    continue  # it was empty a moment ago
                return b"", found
            if found is None or len(found[0]) == min(length, found[1].size):
                return found
        raise AssertionError("unreachable")

    def read_range(self, name: str, offset: int, length: int, version: Version) -> bytes | None:
        """Exactly these bytes of that version; None where it is no longer there."""
        for _ in self.tries():
            try:
                data = self._asked(lambda: self._range(name, offset, length, version))
            except PreconditionError:
                return None
            if data is None or len(data) == length:
                return data
        raise AssertionError("unreachable")

    def below(self, folder: str) -> Iterator[Head]:
        """All objects in a folder and below.

        Not what stands for a folder: an empty object of the name and a slash, as consoles make it, is listed without the slash.
        """
        found = self._asked(lambda: [meta for chunk in obstore.list(self._client, folder) for meta in chunk])
        for head in map(_head, found or ()):
            if head.size or self.head(head.name) is not None:
                yield head

    def folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder."""
        listing = self._asked(lambda: obstore.list_with_delimiter(self._client, folder or None))
        prefixes = [] if listing is None else listing["common_prefixes"]
        return [prefix.rstrip("/").rpartition("/")[2] for prefix in prefixes]

    def remove(self, name: str) -> None:
        """Remove an object whose name nobody uses anew, else see `removals`; one that is not there is removed already."""
        self.until_answered(lambda: self.remove_once(name))

    def remove_once(self, name: str) -> None:
        """One removal, as the store answers it; one that is given up may still arrive."""
        self._asked(lambda: obstore.delete(self._once, name))

    def upload(self, name: str, pieces: Iterable[Buffer]) -> Uploaded:
        """Put bytes of any number under a name that nobody else uses, in parts.

        It is visible only when complete. What fails is given up; what a kill leaves is invisible, and goes by
        the bucket's lifecycle rule for incomplete uploads.
        """
        digest, size = hashlib.sha256(), 0
        with _writer(self._client, name, self._part) as write:
            for piece in pieces:
                write(piece)
                digest.update(piece)
                size += len(piece)
                if size // self._part > (size - len(piece)) // self._part:
                    reach(Failpoint.BETWEEN_PUTS)
        found = self.head(name)
        if found is None or found.size != size:
            raise Unavailable("store: an upload has not arrived whole", RETRY_AFTER)
        return Uploaded(size, digest.digest())

    def copy_new(self, source: str, target: str, content: Uploaded) -> bool:
        """Give ``source``, which has ``content``, the name ``target`` too; False where that has other bytes."""
        for _ in self.tries():
            if self._copied(source, target, content.size):
                return True
            found = self.head(target)
            if found is not None:
                return found.size == content.size and self.digest(found) == content.digest
        raise AssertionError("unreachable")

    def copy_over(self, source: str, target: str, size: int, allow: Callable[[], None] = always) -> None:
        """Put the ``size`` bytes of ``source`` under ``target``, whatever is there. ``allow``: see `until_answered`."""

        def copy() -> bool:
            obstore.copy(self._copiers.over(size), source, target, overwrite=True)
            return True

        if not self.until_answered(lambda: self._asked(copy), allow):
            raise Unavailable(_GONE, RETRY_AFTER)

    def digest(self, found: Head) -> bytes | None:
        """SHA-256 of an object; None where it is no longer there."""
        digest = hashlib.sha256()
        for offset in range(0, found.size, _BLOCK):
            block = self.read_range(found.name, offset, min(_BLOCK, found.size - offset), found.version)
            if block is None:
                return None
            digest.update(block)
        return digest.digest()

    def _put(self, name: str, buffers: Sequence[Buffer], mode: "PutMode") -> Version | None:
        """One conditional PUT; None for an answer that does not say that it was stored."""
        try:
            with in_flight():
                result = obstore.put(
                    self._client, name, list(buffers), attributes=self._attributes(buffers), mode=mode,
                    use_multipart=False,
                )  # fmt: skip
        except (PermissionDeniedError, UnauthenticatedError, FileNotFoundError) as error:
            raise _unavailable(error) from None
        except (BaseError, OSError):
            return None
        return Version(result["e_tag"], result["version"])

    def _attributes(self, buffers: Sequence[Buffer]) -> dict[str, str] | None:
        """What lies beside the bytes; see `checksums`."""
        return {DIGEST: base64.b64encode(_sha256(buffers)).decode()} if self._has_checksum else None

    def _copied(self, source: str, target: str, size: int) -> bool:
        try:
            with in_flight():
                obstore.copy(self._copiers.new(size), source, target, overwrite=False)
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise _unavailable(error) from None
        except FileNotFoundError:
            raise Unavailable(_GONE, RETRY_AFTER) from None
        except (BaseError, OSError):
            return False
        return True

    def _start(self, name: str, length: int) -> tuple[bytes, Head] | Head | None:
        """One read of the first bytes; of an empty object, of which no range exists, its head."""
        try:
            return self._asked(lambda: self._first(name, length))
        except Silent as error:
            if not error.status.startswith(_NO_SUCH_RANGE):
                raise
            return self.head(name)

    def _first(self, name: str, length: int) -> tuple[bytes, Head]:
        result = obstore.get(self._client, name, options={"range": (0, length)})
        return bytes(result.bytes()), _head(result.meta)

    def _range(self, name: str, offset: int, length: int, version: Version) -> bytes:
        options: obstore.GetOptions = {"range": (offset, offset + length), "if_match": version.e_tag}
        return bytes(obstore.get(self._client, name, options=options).bytes())

    def _has(self, found: Head, buffers: Sequence[Buffer]) -> bool:
        """Whether an object has exactly these bytes."""
        if found.size != sum(map(len, buffers)):
            return False
        return self.digest(found) == _sha256(buffers)

    def _meta(self, name: str) -> "ObjectMeta":
        try:
            return obstore.head(self._client, name)
        except (PermissionDeniedError, UnauthenticatedError):
            obstore.get_range(self._client, name, start=0, length=1)  # an answer to HEAD does not say why
            raise

    def _asked(self, request: Callable[[], R]) -> R | None:
        """The answer to a request that changes nothing when repeated; None where there is no such object."""
        try:
            with in_flight():
                return request()
        except FileNotFoundError:
            return None
        except PreconditionError:
            raise
        except InvalidPathError:
            raise Unavailable(_NO_NAME, REFUSED_RETRY) from None
        except (BaseError, OSError) as error:
            raise _unavailable(error) from None

    def until_answered(self, request: Callable[[], R], allow: Callable[[], None] = always) -> R:
        """The answer to a request that the client does not repeat by itself.

        ``allow`` is asked before each try, of which there are many while the store cannot be reached: it raises where the
        request, which nothing makes conditional, may be made no more.

        Raises:
            Unavailable: at the deadline, when closed, or where rights are missing.
        """
        for _ in self.tries():
            allow()
            try:
                return request()
            except Silent as error:
                if error.retry_after > RETRY_AFTER:
                    raise
        raise AssertionError("unreachable")

    def tries(self) -> Iterator[None]:
        """For what is done once, and again with growing pauses, until the deadline.

        Raises:
            Unavailable: at the deadline, or when closed.
        """
        end = time.monotonic() + self._deadline
        pause = FIRST_PAUSE
        while True:
            yield
            wait = pause * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, no secret
            if time.monotonic() + wait > end or self._closing.wait(wait):
                raise Silent("store: it does not settle a request in time", RETRY_AFTER)
            pause = min(2 * pause, LONGEST_PAUSE)


def _sha256(buffers: Sequence[Buffer]) -> bytes:
    digest = hashlib.sha256()
    for buffer in buffers:
        digest.update(buffer)
    return digest.digest()


@contextlib.contextmanager
def _writer(client: "Client", name: str, part: int) -> Iterator[Callable[[Buffer], object]]:
    """An upload in parts, completed at the end of the context, or given up where that raises."""
    try:
        writer = obstore.open_writer(client, name, buffer_size=part, max_concurrency=_PARTS_AT_ONCE)
    except (BaseError, OSError) as error:
        raise _unavailable(error) from None

    def write(piece: Buffer) -> None:
        try:
            with in_flight():
                writer.write(piece)
        except (BaseError, OSError) as error:
            raise _unavailable(error) from None

    try:
        yield write
    except BaseException as error:
        with contextlib.suppress(BaseError, OSError), in_flight():
            writer.__exit__(type(error), error, error.__traceback__)  # which gives the upload up
        raise
    try:
        with in_flight():
            writer.__exit__(None, None, None)
    except (BaseError, OSError) as error:
        raise _unavailable(error) from None


def _exactly(version: Version) -> "UpdateVersion":
    mode: UpdateVersion = {}
    if version.e_tag is not None:
        mode["e_tag"] = version.e_tag
    if version.version is not None:
        mode["version"] = version.version
    return mode


def _head(meta: "ObjectMeta") -> Head:
    return Head(meta["path"], meta["size"], Version(meta["e_tag"], meta["version"]), meta["last_modified"])


def _unavailable(error: Exception) -> Unavailable:
    """What an error of obstore means, without what it says."""
    text = str(error)
    if "RequestTimeTooSkewed" in text:
        return Silent("store: its clock and ours are too far apart", RETRY_AFTER)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or "403 Forbidden" in text:
        return Silent(
            "store: it refuses our credentials (or there are none), or the rights we need", REFUSED_RETRY
        )
    if "NoSuchBucket" in text:
        return Silent("store: there is no such bucket", REFUSED_RETRY)
    status = _STATUS.search(text)
    if status is not None:
        return Silent(f"store: it answers {status[1]}", status=status[1])
    if "IncompleteBody" in text:  # as MinIO answers of bytes that it finds rotten: it serves all others
        return Unavailable("store: it breaks off in the middle of an object", RETRY_AFTER)
    late = "timed out" in text.lower() or "timeout" in text.lower()
    return Silent(f"store: it {'does not answer in time' if late else 'cannot be reached, or breaks off'}")
