"""A day's account by source, by the ledger and by what waits in the log."""

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import Connection, Row, TextClause, text

from ingest.contract.monitoring.sources import OTHER
from ingest.contract.settings import Settings
from workers.dataset.findings import Finding
from workers.ledger.database import reading
from workers.ledger.ledger import Ledger, entered_of

_HOUR: Final = 3_600_000_000_000  # nanoseconds
_SATURDAY: Final = 5
_UNIDENTIFIED: Final = f"%{Finding.PATIENT_UNIDENTIFIED}%"


class SourceDay(msgspec.Struct, kw_only=True):
    """What one source sent on a day, as it is now; what scripts get. Keys stay, new ones may come."""

    source: str
    studies: int = 0
    series: int = 0
    instances: int = 0
    bytes: int = 0
    stored: int = 0
    duplicates: int = 0
    conflicts: int = 0
    quarantined: int = 0
    discarded: int = 0
    not_yet_stored: int = 0
    committed: int = 0  # of those stored
    patient_unidentified: int = 0
    silent: bool = False  # expected on this day, and nothing came


class Unidentified(msgspec.Struct, frozen=True):
    """Instances of a study without Patient ID, name or accession number: legal in an emergency, to be settled after."""

    source: str
    study_instance_uid: str
    instances: int


class Exceptions(msgspec.Struct, frozen=True):
    """What was set apart, and why."""

    source: str
    place: str
    reason: str
    instances: int


class RaisedAlarm(msgspec.Struct, frozen=True):
    """A study or series that is not consistent."""

    alarm: str
    uid: str
    source: str


class Day(msgspec.Struct, kw_only=True):
    """The report of a day; what scripts get. Keys stay, new ones may come."""

    day: str
    begin: str
    end: str
    sources: list[SourceDay]
    silent_sources: list[str]
    exceptions: list[Exceptions]
    unidentified: list[Unidentified]
    alarms: list[RaisedAlarm]
    instances_by_hour: list[int]  # from the day's begin on; 23 or 25 where the clocks change


class Waiting(NamedTuple):
    """An upload that is received and not yet stored."""

    upload_id: str  # 32 hex digits
    source: str
    received_at: int  # nanoseconds since 1970-01-01 UTC
    size: int  # bytes


class Bounds(NamedTuple):
    """A day as times: nanoseconds since 1970-01-01 UTC, the end not in it."""

    begin: int
    end: int


def bounds_of(day: dt.date, time_zone: str) -> Bounds:
    """When a day begins and ends; ``time_zone``: of IANA, empty: the machine's."""

    def midnight(of: dt.date) -> int:
        naive = dt.datetime.combine(of, dt.time())
        moment = naive.replace(tzinfo=ZoneInfo(time_zone)) if time_zone else naive.astimezone()
        return int(moment.timestamp()) * 1_000_000_000

    return Bounds(midnight(day), midnight(day + dt.timedelta(days=1)))


def is_expected(expected: str, day: dt.date) -> bool:
    """Whether a source sends on a day, by its setting."""
    return expected == "daily" or (expected == "weekdays" and day.weekday() < _SATURDAY)


def read_day(
    ledger: Ledger, settings: Settings, day: dt.date, waiting: Iterable[Waiting], source: str | None = None
) -> Day:
    """The account of a day; ``waiting``: read before the ledger was brought up to date. ``source``: only this one.

    Raises:
        LedgerUnavailable: the database does not answer.
    """
    bounds = bounds_of(day, settings.ledger.time_zone)
    with reading(ledger.engine) as connection:
        sources = {one.source: one for one in _sources(connection, bounds)}
        hours = _hours(connection, bounds, source)
        of_day = [one for one in waiting if bounds.begin <= one.received_at < bounds.end]
        entered = entered_of(connection, [one.upload_id for one in of_day])
        exceptions = [
            Exceptions(_name(row.source), row.place, row.reason, row.instances)
            for row in _ask(connection, _EXCEPTIONS, bounds)
        ]
        unidentified = [
            Unidentified(_name(row.source), row.study_instance_uid, row.instances)
            for row in _ask(connection, _STUDIES_UNIDENTIFIED, bounds, words=_UNIDENTIFIED)
        ]
        raised = [
            RaisedAlarm(row.kind, row.uid, _name(row.source)) for row in _ask(connection, _ALARMS, bounds)
        ]
    for one in of_day:
        if one.upload_id in entered:
            continue
        of_source = sources.setdefault(one.source, SourceDay(source=one.source))
        of_source.instances += 1
        of_source.bytes += one.size
        of_source.not_yet_stored += 1
        if source in (None, one.source):
            hours[(one.received_at - bounds.begin) // _HOUR] += 1
    _mark_silent(sources, settings, day)
    chosen = [sources[name] for name in sorted(sources) if source in (None, name)]
    return Day(
        day=day.isoformat(),
        begin=_moment(bounds.begin, settings.ledger.time_zone),
        end=_moment(bounds.end, settings.ledger.time_zone),
        sources=chosen,
        silent_sources=[one.source for one in chosen if one.silent],
        exceptions=[one for one in exceptions if source in (None, one.source)],
        unidentified=[one for one in unidentified if source in (None, one.source)],
        alarms=[one for one in raised if source in (None, one.source)],
        instances_by_hour=hours,
    )


def _mark_silent(sources: dict[str, SourceDay], settings: Settings, day: dt.date) -> None:
    """Those that should have sent and have not."""
    for name, configured in settings.sources.items():
        if is_expected(configured.expected, day):
            of_source = sources.setdefault(name, SourceDay(source=name))
            of_source.silent = not of_source.instances


_IN_DAY: Final = "received_at >= :begin AND received_at < :end"
_SOURCES: Final = text(
    f"""
    SELECT source, COUNT(*) AS instances, SUM(size) AS bytes,
           COUNT(DISTINCT NULLIF(study_instance_uid, '')) AS studies,
           COUNT(DISTINCT NULLIF(series_instance_uid, '')) AS series,
           SUM(CASE WHEN place = 'stored' THEN 1 ELSE 0 END) AS stored,
           SUM(CASE WHEN place = 'duplicate' THEN 1 ELSE 0 END) AS duplicates,
           SUM(CASE WHEN place = 'conflict' THEN 1 ELSE 0 END) AS conflicts,
           SUM(CASE WHEN place = 'quarantined' THEN 1 ELSE 0 END) AS quarantined,
           SUM(CASE WHEN place = 'discarded' THEN 1 ELSE 0 END) AS discarded,
           SUM(CASE WHEN place = 'stored' THEN committed ELSE 0 END) AS committed,
           SUM(CASE WHEN findings LIKE :words THEN 1 ELSE 0 END) AS patient_unidentified
    FROM fates WHERE {_IN_DAY} GROUP BY source
    """  # noqa: S608 - all names are of this page
)
# As in all these, the names put in are of this page (S608).
_EXCEPTIONS: Final = text(
    "SELECT source, place, CASE WHEN moved_from = '' THEN reason ELSE 'was ' || moved_from END AS reason, "  # noqa: S608
    "COUNT(*) AS instances FROM fates "
    f"WHERE {_IN_DAY} AND place IN ('conflict', 'quarantined', 'discarded') "
    "GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
)
_STUDIES_UNIDENTIFIED: Final = text(
    "SELECT source, study_instance_uid, COUNT(*) AS instances FROM fates "  # noqa: S608
    f"WHERE {_IN_DAY} AND findings LIKE :words AND place <> 'discarded' "
    "GROUP BY source, study_instance_uid ORDER BY source, study_instance_uid"
)
_ALARMS: Final = text(
    "SELECT kind, uid, source FROM alarms WHERE raised_at >= :begin AND raised_at < :end ORDER BY kind, uid"
)
_HOURS: Final = text(
    f"SELECT (received_at - :begin) / {_HOUR} AS hour, COUNT(*) AS instances FROM instances "  # noqa: S608
    f"WHERE {_IN_DAY} GROUP BY 1"
)
_HOURS_OF_SOURCE: Final = text(
    f"SELECT (received_at - :begin) / {_HOUR} AS hour, COUNT(*) AS instances FROM instances "  # noqa: S608
    f"WHERE {_IN_DAY} AND source = :source GROUP BY 1"
)


def _ask(connection: Connection, question: TextClause, bounds: Bounds, **more: object) -> Sequence[Row[Any]]:
    return connection.execute(question, {"begin": bounds.begin, "end": bounds.end, **more}).all()


def _sources(connection: Connection, bounds: Bounds) -> Iterator[SourceDay]:
    given = {"begin": bounds.begin, "end": bounds.end, "words": _UNIDENTIFIED}
    for row in connection.execute(_SOURCES, given).mappings():
        # PostgreSQL adds whole numbers to a decimal one.
        counts: dict[str, Any] = {name: int(value) for name, value in row.items() if name != "source"}
        yield SourceDay(source=_name(row["source"]), **counts)


def _hours(connection: Connection, bounds: Bounds, source: str | None) -> list[int]:
    hours = [0] * -((bounds.begin - bounds.end) // _HOUR)
    if source is None:
        found = _ask(connection, _HOURS, bounds)
    else:
        found = _ask(connection, _HOURS_OF_SOURCE, bounds, source="" if source == OTHER else source)
    for row in found:
        hours[int(row.hour)] = row.instances
    return hours


def _name(source: str) -> str:
    return source or OTHER


def _moment(nanoseconds: int, time_zone: str) -> str:
    moment = dt.datetime.fromtimestamp(nanoseconds // 1_000_000_000, dt.UTC)
    return moment.astimezone(ZoneInfo(time_zone) if time_zone else None).isoformat()
