"""What single settings of listeners and TLS cannot say of themselves: what goes with what."""

from collections.abc import Iterator

from ingest.contract.peer_settings import ListenerSettings
from ingest.contract.settings import Settings
from ingest.contract.settings_base import PORT_MAX


def listener_problems(settings: Settings) -> list[str]:
    """One line for each that does not fit the others."""
    return [
        *_problems_of_places(settings),
        *_problems_of_admin(settings),
        *_problems_of_tls(settings),
        *_problems_of_sources(settings),
    ]


def _problems_of_places(settings: Settings) -> Iterator[str]:
    if not settings.receiver.host and not settings.listeners:
        yield "receiver.host: given nothing; allowed: an address, or nothing beside a table [listeners.NAME]"
    places: dict[tuple[str, int], str] = {}
    if settings.receiver.host:
        places[settings.receiver.host, settings.receiver.port] = "receiver"
    for name, listener in settings.listeners.items():
        other = places.setdefault((listener.host, listener.port), f"listeners.{name}")
        if listener.port and other != f"listeners.{name}":
            yield f"listeners.{name}.port: given {listener.port}, which {other} has too; allowed: another"


def _problems_of_admin(settings: Settings) -> Iterator[str]:
    """Behind the receiver's port are those of the workers, and then the ledger's."""
    others = settings.log.partitions + 1
    last = settings.admin.address(others)
    if last is not None and last[1] > PORT_MAX:
        yield (
            f"admin.listen: given {settings.admin.listen!r}; allowed: a port of at most {PORT_MAX - others}, since each "
            f"worker of {settings.log.partitions} partitions may have one behind it"
        )


def _problems_of_tls(settings: Settings) -> Iterator[str]:
    for name, listener in settings.listeners.items():
        key = f"listeners.{name}"
        yield from _pair(key, listener)
        if not listener.certificate_file:
            if listener.client_ca_file or listener.client_crl_file:
                yield f"{key}.client_ca_file: given without certificate_file; allowed: with TLS only"
        elif (listener.client_certificate == "none") == bool(listener.client_ca_file):
            yield (
                f"{key}.client_ca_file: given {listener.client_ca_file!r} with client_certificate = "
                f"{listener.client_certificate!r}; allowed: a file, or nothing where none is asked for"
            )
        if listener.client_crl_file and not listener.client_ca_file:
            yield f"{key}.client_crl_file: given without client_ca_file; allowed: with it only"


def _pair(key: str, listener: ListenerSettings) -> Iterator[str]:
    if bool(listener.certificate_file) != bool(listener.key_file):
        yield f"{key}.key_file: given {listener.key_file!r}; allowed: a file with certificate_file, else nothing"


def _problems_of_sources(settings: Settings) -> Iterator[str]:
    reaches_tls = any(listener.client_ca_file for listener in settings.listeners.values())
    for name, source in settings.sources.items():
        key = f"sources.{name}"
        if source.certificates and not reaches_tls:
            yield f"{key}.certificates: given, and no listener asks for any; allowed: with listeners.NAME.client_ca_file"
        if bool(source.tls_certificate_file) != bool(source.tls_key_file):
            yield f"{key}.tls_key_file: given {source.tls_key_file!r}; allowed: a file with tls_certificate_file, else nothing"
        if not source.tls and (source.tls_ca_file or source.tls_certificate_file):
            yield f"{key}.tls: given false; allowed: true with tls_ca_file or tls_certificate_file"
