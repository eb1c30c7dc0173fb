"""TLS on associations that we open: whom we trust, as whom we come, and whose certificate we expect."""

import ssl
from dataclasses import dataclass

from ingest.contract.settings import SourceSettings
from ingest.contract.tls import Certificate, client_context


@dataclass(frozen=True)
class ClientTls:
    """What a connection to a peer needs.

    ``certificates`` are names of which the peer's certificate must have one, as in ``sources.NAME.certificates``.
    """

    context: ssl.SSLContext
    name: str = ""  # that the certificate must be of, where the context checks it; empty: the host's
    certificates: tuple[str, ...] = ()

    def accepts(self, certificate: Certificate | None) -> bool:
        """Whether this is whom we meant to reach; the authority has been checked by then."""
        return not self.certificates or (certificate is not None and certificate.is_one_of(self.certificates))


def tls_of(source: SourceSettings) -> ClientTls | None:
    """For reports to a source; None where they go without.

    What ``certificates`` names is expected of it as an acceptor, too; without, its certificate must be of its host,
    as nothing else tells it from others of its authority. Reads files, so that a renewed certificate is used at once.

    Raises:
        WrongCertificate: a file cannot be used.
    """
    if not source.tls:
        return None
    context = client_context(
        source.tls_ca_file,
        source.tls_certificate_file,
        source.tls_key_file,
        check_name=not source.certificates,
    )
    return ClientTls(context, certificates=source.certificates)
