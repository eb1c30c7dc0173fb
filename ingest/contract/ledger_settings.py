"""Settings of the ledger: where it is, how patients are hidden in it, and how patiently it is kept."""

from typing import Annotated, Final
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, SecretStr

from ingest.contract.settings_base import MiB, Section

KEY_BYTES: Final = 32
LEAST_KEY: Final = 32  # characters: 128 bits and more, as hex digits


def _database(value: str) -> str:
    if value and not value.startswith("postgresql://"):
        raise ValueError("not nothing, and not postgresql://USER@HOST/DATABASE")
    parts = urlsplit(value)
    # The settings are shown. Behind a slash in a password, its rest is taken for the path.
    if parts.password is not None or "@" in parts.path or "password" in dict(parse_qsl(parts.query)):
        raise ValueError("its password is the setting ledger.password")
    return value


def _key(value: SecretStr) -> SecretStr:
    if 0 < len(value.get_secret_value().strip()) < LEAST_KEY:
        raise ValueError(f"shorter than {LEAST_KEY} characters")
    return value


def _time_zone(value: str) -> str:
    if value:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError("not a time zone") from None
    return value


Database = Annotated[str, AfterValidator(_database)]
Key = Annotated[SecretStr, AfterValidator(_key)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]


class LedgerSettings(Section):
    """Who sent what when, and what became of it: a database made from the outcome log."""

    enabled: bool = Field(
        default=True, description="Let `serve` keep it; without, commands that need it read the log first."
    )
    database: Database = Field(
        "",
        description="postgresql://USER@HOST/DATABASE; empty: a file of SQLite in DATA/ledger, for one machine.",
    )
    password: SecretStr = Field(
        SecretStr(""), description="Of the database; never shown. Best given by the environment."
    )
    key: Key = Field(
        SecretStr(""),
        description="Hashes Patient IDs and Accession Numbers; at least 32 characters, never shown. Best given by the environment.",
    )
    key_file: str = Field(
        "",
        description="File that holds the key; empty: on one machine DATA/ledger.key, made once; with Kafka none, and no hashes.",
    )
    time_zone: TimeZone = Field("", description="Of a report's day, as Europe/Berlin; empty: the machine's.")
    interval: float = Field(
        1.0, gt=0, json_schema_extra={"unit": "s"}, description="Between looks at logs that had nothing new."
    )
    moves_interval: float = Field(
        60.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="Between looks at what administrators have moved, which lists the stores' move records.",
    )
    kept_outcomes: int = Field(
        16 * MiB,
        ge=4 * MiB,
        le=48 * MiB,
        json_schema_extra={"unit": "bytes"},
        description="Of each partition's outcomes, on one machine: what a ledger that stood still can catch up on.",
    )
