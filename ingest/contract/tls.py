"""TLS by the BCP 195 RFC 8996, 9325 profile (PS3.15 B.12): contexts of both sides, and whom a certificate names.

TLS 1.2 or 1.3, nothing older; of TLS 1.2 only suites with ephemeral elliptic-curve keys and authenticated
encryption, which the earlier profiles B.9 to B.11 have, too; no compression, no renegotiation, no tickets.
"""

import hashlib
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from ingest.contract.peer_settings import ListenerSettings

# RFC 9325 4.2 recommends the four with AES-GCM; PS3.15 B.13 has those with ChaCha20, for peers without AES in
# hardware. Level 2 of OpenSSL refuses RSA keys below 2048 bits, curves below 224, and signatures with SHA-1.
CIPHERS: Final = (
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:@SECLEVEL=2"
)
_OPTIONS: Final = ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
_MAXIMUM_FILE: Final = 1024 * 1024  # bytes of a PEM file
_SHORT: Final = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "givenName": "GN",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "street",
    "surname": "SN",
    "userId": "UID",
}
_ALTERNATIVES: Final = ("DNS", "IP Address", "URI", "email")
_SPECIAL: Final = ',+"\\<>;'  # RFC 4514 2.4

_VERIFY: Final = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}


class WrongCertificate(Exception):  # noqa: N818 - named for the fact
    """A file of certificates or keys cannot be used; the message names the file and says why."""


@dataclass(frozen=True)
class Certificate:
    """What identifies a peer: the SHA-256 of its certificate, its subject as RFC 4514 has it, its other names."""

    sha256: str
    subject: str
    alternatives: frozenset[str]

    def is_one_of(self, names: Iterable[str]) -> bool:
        """Whether one of the names, as settings have them, is this certificate's."""
        own = {f"sha256:{self.sha256}", f"subject:{self.subject}"}
        own.update(f"san:{name}" for name in self.alternatives)
        return not own.isdisjoint(names)


def certificate_of(connection: ssl.SSLObject | None) -> Certificate | None:
    """The certificate that the peer has presented and we have verified, if any."""
    encoded = connection.getpeercert(binary_form=True) if connection is not None else None
    if connection is None or encoded is None:
        return None
    decoded = connection.getpeercert() or {}
    return Certificate(
        hashlib.sha256(encoded).hexdigest(), _subject(decoded), frozenset(_alternatives(decoded))
    )


class ServerContext(NamedTuple):
    """What a listener accepts connections with, and until when: seconds since 1970."""

    context: ssl.SSLContext
    expires: float


def server_context(listener: ListenerSettings) -> ServerContext:
    """A context for new connections of a listener, tried out in a handshake with ourselves.

    Raises:
        WrongCertificate: a file cannot be read or does not fit, or the certificate is not valid now.
    """
    context = _profile(ssl.PROTOCOL_TLS_SERVER)
    # Of TLS 1.3: each connection presents its certificate. For TLS 1.2, see `holds_sessions`.
    context.num_tickets = 0
    _load_chain(context, listener.certificate_file, listener.key_file)
    context.verify_mode = _VERIFY[listener.client_certificate]
    if listener.client_ca_file:
        _load_authorities(context, listener.client_ca_file)
    if listener.client_crl_file:
        _load_authorities(context, listener.client_crl_file)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return ServerContext(context, _try_out(listener))


def holds_sessions(context: ssl.SSLContext) -> bool:
    """Whether a server's context has sessions of TLS 1.2 that peers may resume by their id, unchecked anew.

    OpenSSL keeps them for two hours, and up to 20,480 of some 15 KiB each; Python cannot tell it not to. They go with the context.
    """
    return context.session_stats()["number"] > 0


def client_context(
    ca_file: str = "", certificate_file: str = "", key_file: str = "", *, check_name: bool = True
) -> ssl.SSLContext:
    """A context for connections that we open; without ``ca_file`` the system's authorities are trusted.

    With ``check_name`` the peer's certificate must be of the host that is connected to.

    Raises:
        WrongCertificate: a file cannot be read or does not fit.
    """
    context = _profile(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = check_name
    if ca_file:
        _load_authorities(context, ca_file)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if certificate_file:
        _load_chain(context, certificate_file, key_file)
    return context


def reason_of(error: Exception) -> str:
    """Why TLS failed, in a few words that repeat nothing of what the peer sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or "TLS failed").lower().replace("_", " ")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _profile(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= _OPTIONS
    return context


def _load_chain(context: ssl.SSLContext, certificate_file: str, key_file: str) -> None:
    for file in (certificate_file, key_file):
        _check_readable(file)
    try:
        context.load_cert_chain(certificate_file, key_file, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise WrongCertificate(f"{certificate_file} with key {key_file}: {reason_of(error)}") from None


def _no_password() -> str:
    raise ValueError("the key has a password; allowed: one without, readable by this user only")


def _load_authorities(context: ssl.SSLContext, file: str) -> None:
    _check_readable(file)
    try:
        context.load_verify_locations(file)
    except (ssl.SSLError, OSError) as error:
        raise WrongCertificate(f"{file}: {reason_of(error)}") from None


def _check_readable(file: str) -> None:
    """OpenSSL says neither which of its files is missing nor that it is no file."""
    try:
        with Path(file).open("rb") as opened:
            if len(opened.read(_MAXIMUM_FILE + 1)) > _MAXIMUM_FILE:
                raise WrongCertificate(f"{file}: longer than {_MAXIMUM_FILE} bytes")
    except OSError as error:
        raise WrongCertificate(f"{file}: {error.strerror}") from None


def _try_out(listener: ListenerSettings) -> float:
    """Shake hands in memory with a client that trusts this very certificate; when it expires.

    What is not valid yet or no more, not for servers, or not for any suite of the profile, fails here and not
    at every peer.
    """
    server = _profile(ssl.PROTOCOL_TLS_SERVER)
    _load_chain(server, listener.certificate_file, listener.key_file)
    client = _profile(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _load_authorities(client, listener.certificate_file)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    try:
        for end in ends * 2:  # at most two flights each way (RFC 5246 7.3)
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLError as error:
        raise WrongCertificate(f"{listener.certificate_file}: {reason_of(error)}") from None
    decoded = ends[0].getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(decoded["notAfter"])))


def _subject(decoded: Mapping[str, Any]) -> str:
    parts = decoded.get("subject", ())
    return ",".join(
        "+".join(f"{_SHORT.get(kind, kind)}={_escaped(value)}" for kind, value in part)
        for part in reversed(list(parts))
    )


def _escaped(value: str) -> str:
    text = "".join("\\" + character if character in _SPECIAL else character for character in value)
    if text.startswith((" ", "#")):
        text = "\\" + text
    return text[:-1] + "\\ " if text.endswith(" ") else text


def _alternatives(decoded: Mapping[str, Any]) -> Iterator[str]:
    for kind, value in decoded.get("subjectAltName", ()):
        if kind in _ALTERNATIVES and isinstance(value, str):
            yield value
