"""The database: SQLite in the data folder or a PostgreSQL server, its tables made when they are not there."""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, select
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from ingest.contract.settings import Settings
from workers.ledger.tables import ALL, FATES, SCHEMA, ledger, metadata

_BUSY: Final = 60.0  # seconds that one who writes waits for another
_TRIES: Final = 3  # several processes may make the tables at the same time
_DAMAGED: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_READING: Final = "ledger_reading"
# An advisory lock of PostgreSQL: who writes has it to the end of the transaction, as SQLite lets one write at a time. Two that enter
# the same studies in another order, or a rebuild and whoever writes beside it, would wait for each other until one is broken off.
# The number is any that nobody else takes in the same database.
_ONE_WRITES: Final = "SELECT pg_advisory_xact_lock(7308057215439365491)"
_ONE_MOMENT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
# Of libpq: a server that is gone without a word, as with its machine, is given up within a minute, not after the kernel's two hours.
_PATIENCE: Final[dict[str, Any]] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


class LedgerUnavailable(Exception):  # noqa: N818 - named for the fact
    """The database does not answer, or is another release's. The message holds no value of any row."""


def open_database(settings: Settings, *, remake: bool = False) -> Engine:
    """The database of the settings, its tables in place; ``remake``: those of another release are dropped.

    Raises:
        LedgerUnavailable: it does not answer, its driver is not installed, or it is of another release.
        OSError: the folder of SQLite cannot be made.
    """
    engine = _postgresql(settings) if settings.ledger.database else _sqlite(settings)
    for attempt in range(_TRIES):
        try:
            if not _is_made(engine):
                with clear_errors(), engine.begin() as connection:
                    _make_tables(connection, remake=remake)
        except LedgerUnavailable:
            if attempt + 1 == _TRIES:
                engine.dispose()
                raise
        else:
            break
    return engine


@contextlib.contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection for questions, which holds up nobody who writes; all of its answers are of one moment.

    Raises:
        LedgerUnavailable: the database does not answer.
    """
    with clear_errors(), engine.connect().execution_options(**{_READING: True}) as connection:
        yield connection


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Driver errors quote statements and rows; ours says only of what kind they are.

    Raises:
        LedgerUnavailable: instead of any of them.
    """
    try:
        yield
    except OperationalError as error:
        raise LedgerUnavailable(f"the ledger's database does not answer now ({_kind(error)})") from None
    except DBAPIError as error:
        kind = _kind(error)
        if kind.startswith(_DAMAGED):
            raise LedgerUnavailable(
                f"the ledger's database is damaged ({kind}): stop its processes, remove DATA/ledger, "
                "then `dicom-ingest ledger rebuild`"
            ) from None
        raise LedgerUnavailable(f"the ledger's database refuses a statement ({kind})") from None
    except SQLAlchemyError as error:
        raise LedgerUnavailable(f"the ledger's database cannot be used ({type(error).__name__})") from None


def _kind(error: DBAPIError) -> str:
    """SQLite's own name, as SQLITE_FULL, or the driver's class."""
    return str(getattr(error.orig, "sqlite_errorname", "")) or type(error.orig).__name__


def _is_made(engine: Engine) -> bool:
    """Whether the tables are there and this release's; who only asks waits for nobody who writes."""
    with reading(engine) as connection:
        if not inspect(connection).has_table(ledger.name):
            return False
        return connection.execute(select(ledger.c.version)).scalar() == SCHEMA


def _make_tables(connection: Connection, *, remake: bool) -> None:
    if inspect(connection).has_table(ledger.name):
        version = connection.execute(select(ledger.c.version)).scalar()
        if version == SCHEMA:
            return
        if not remake:
            raise LedgerUnavailable(
                f"the ledger has schema {version}, this release has {SCHEMA}: `dicom-ingest ledger rebuild`"
            )
        connection.exec_driver_sql("DROP VIEW IF EXISTS fates")
        metadata.drop_all(connection)
    metadata.create_all(connection, tables=[ledger, *ALL])
    connection.execute(FATES)
    connection.execute(ledger.insert().values(version=SCHEMA))


def _sqlite(settings: Settings) -> Engine:
    folder = settings.data / "ledger"
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    engine = create_engine(f"sqlite:///{folder.resolve() / 'ledger.sqlite'}", connect_args={"timeout": _BUSY})

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        # The driver's own idea of when a transaction begins would let two that write meet half-way.
        connection.isolation_level = None
        # Readers and the writer do not wait for each other; a power cut may take the last transactions back, and
        # with each its position: they are read again.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        deferred = connection.get_execution_options().get(_READING)
        connection.exec_driver_sql("BEGIN" if deferred else "BEGIN IMMEDIATE")

    return engine


def _postgresql(settings: Settings) -> Engine:
    url = make_url(settings.ledger.database).set(drivername="postgresql+psycopg")
    password = settings.ledger.password.get_secret_value()
    if password:
        url = url.set(password=password)
    try:
        patience = {name: value for name, value in _PATIENCE.items() if name not in url.query}
        engine = create_engine(url, pool_pre_ping=True, connect_args=patience)
    except ImportError:
        raise LedgerUnavailable(
            "ledger.database needs psycopg: pip install 'dicom-ingest[postgresql]'"
        ) from None

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        reads = connection.get_execution_options().get(_READING)
        connection.exec_driver_sql(_ONE_MOMENT if reads else _ONE_WRITES)

    return engine
