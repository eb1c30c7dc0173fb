"""Pseudonyms: keyed hashes of Patient ID and Accession Number, by which the ledger finds what it does not know.

BLAKE2b (RFC 7693) with a secret key, 128 bits: without the key nobody can try out the few million numbers that there
are. A Patient ID tells people apart only within its issuer, (0010,0021) or else what the settings say of the source;
with neither only within the source: "12345" of two hospitals is two people. An Accession Number belongs to the source's
issuer, else to the source.
"""

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from ingest.contract.folder_sync import sync_folder
from ingest.contract.ledger_settings import KEY_BYTES, LEAST_KEY
from ingest.contract.settings import Settings

ISSUER: Final = "issuer"
_SIZE: Final = 16  # bytes
_LONGEST_KEY: Final = 64  # bytes, BLAKE2b's; a longer one is hashed first


class Patient(NamedTuple):
    """A patient's pseudonym."""

    digest: str  # 32 hex digits; empty: no Patient ID, or no key
    scope: str  # `ISSUER`, or ``source:NAME``: digests of different scopes say nothing of each other


NOBODY: Final = Patient("", "")


class NoKey(Exception):  # noqa: N818 - states what was found
    """There is no key, so nothing is known of patients."""


class Pseudonyms:
    """Makes them by the settings; the key is read when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names = {title: name for name, one in settings.sources.items() for title in one.ae_titles}
        self._key: bytes | None = None

    def load_key(self) -> None:
        """Read the key, or make it, before it is needed.

        Raises:
            OSError: the key cannot be read or made.
        """
        if self._key is None:
            self._key = _read_key(self._settings)

    def patient(self, patient_id: str, issuer: str, calling_ae_title: str) -> Patient:
        """Of a Patient ID that a sender of this AE title used; ``issuer``: of the data set.

        Raises:
            OSError: the key cannot be read or made.
        """
        if not patient_id:
            return NOBODY
        issuer = issuer or self._issuer(calling_ae_title)
        scope = ISSUER if issuer else self.source_scope(calling_ae_title)
        digest = self._digest(b"patient", issuer or scope, patient_id, scope)
        return Patient(digest, scope) if digest else NOBODY

    def accession(self, accession_number: str, calling_ae_title: str) -> str:
        """Of an Accession Number, 32 hex digits; empty where there is none, or no key.

        Raises:
            OSError: the key cannot be read or made.
        """
        if not accession_number:
            return ""
        issuer = self._issuer(calling_ae_title)
        scope = ISSUER if issuer else self.source_scope(calling_ae_title)
        return self._digest(b"accession", issuer or scope, accession_number, scope)

    def patients(self, patient_id: str, issuer: str, ae_titles: Iterable[str]) -> dict[Patient, str]:
        """All that a Patient ID can stand for, each with within what; ``ae_titles``: of unconfigured sources.

        Raises:
            NoKey: nothing can be found.
            OSError: the key cannot be read or made.
        """
        self._require_key()
        if issuer:
            return {self.patient(patient_id, issuer, ""): f"issuer {issuer}"}
        return {
            self.patient(patient_id, "", title): self._within(title)
            for title in (*self._names, *(title for title in ae_titles if title not in self._names))
        }

    def accessions(self, accession_number: str, ae_titles: Iterable[str]) -> dict[str, str]:
        """As `patients`, of an Accession Number.

        Raises:
            NoKey: nothing can be found.
            OSError: the key cannot be read or made.
        """
        self._require_key()
        titles = (*self._names, *(title for title in ae_titles if title not in self._names))
        return {self.accession(accession_number, title): self._within(title) for title in titles}

    def source_scope(self, calling_ae_title: str) -> str:
        """The source as a scope; without a table sources.NAME, an AE title is a source alone."""
        title = calling_ae_title.strip(" ")
        return f"source:{self._names[title]}" if title in self._names else f"ae:{title}"

    def _within(self, title: str) -> str:
        issuer = self._issuer(title)
        return f"issuer {issuer}" if issuer else self.source_scope(title).replace(":", " ")

    def _issuer(self, calling_ae_title: str) -> str:
        name = self._names.get(calling_ae_title.strip(" "))
        return "" if name is None else self._settings.sources[name].issuer

    def _digest(self, what: bytes, within: str, value: str, scope: str) -> str:
        self.load_key()
        if not self._key:
            return ""
        # What it is within may be called like a source: the kind of the scope is hashed, too.
        kind = scope.partition(":")[0].encode()
        parts = b"".join(
            len(part).to_bytes(4, "big") + part for part in (kind, within.encode(), value.encode())
        )
        return hashlib.blake2b(parts, key=self._key, digest_size=_SIZE, person=what).hexdigest()

    def _require_key(self) -> None:
        self.load_key()
        if not self._key:
            raise NoKey("there is no ledger.key, so patients and accession numbers are not in the ledger")


def _read_key(settings: Settings) -> bytes:
    """The key of the settings, or on one machine that of the data folder; empty where there is none.

    With Kafka each host would make its own, and their hashes would not match.
    """
    ledger = settings.ledger
    key = ledger.key.get_secret_value().strip().encode()
    if not key and ledger.key_file:
        key = _key_in(Path(ledger.key_file))
    if not key and settings.log.kind == "spool":
        key = _own_key(settings.data / "ledger.key")
    return hashlib.sha512(key).digest() if len(key) > _LONGEST_KEY else key


def _key_in(path: Path) -> bytes:
    """A key, an administrator's of any bytes; too few of them hide nobody, and are what is left of a file."""
    key = path.read_bytes().strip()
    if len(key) < LEAST_KEY:
        raise OSError(errno.EINVAL, f"it has no key of at least {LEAST_KEY} characters", str(path))
    return key


def _own_key(path: Path) -> bytes:
    """The key in a data folder, made once: several processes may want to at the same time."""
    with contextlib.suppress(FileNotFoundError):
        return _key_in(path)
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(temporary)
        sync_folder(path.parent)
    finally:
        temporary.unlink()
    return _key_in(path)
