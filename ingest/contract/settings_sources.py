"""Where settings come from: defaults, then one TOML file, then the environment, then flags; the later wins.

The file is the one named by ``--config``, else ``./dicom-ingest.toml``, else
``$XDG_CONFIG_HOME/dicom-ingest/config.toml`` (``~/.config`` when unset), else none. In the environment, the
key ``receiver.port`` is ``DICOM_INGEST_RECEIVER__PORT``; a list is written with commas. Tables with names of the
user's own (``sources.NAME``, ``listeners.NAME``) are in the file only: in the environment their names would lose their case.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from ingest.contract.audit_settings import audit_problems
from ingest.contract.kafka import kafka_problems
from ingest.contract.largest_instance import fitted, size_problems
from ingest.contract.listener_settings import listener_problems
from ingest.contract.settings import Settings
from ingest.contract.settings_keys import (
    allowed_values,
    find_field,
    holds_secrets,
    name_words,
    names_of,
    settings_fields,
    table_keys,
)
from ingest.contract.source_settings import source_problems

ENVIRONMENT_PREFIX: Final = "DICOM_INGEST_"
CONFIG_VARIABLE: Final = ENVIRONMENT_PREFIX + "CONFIG"  # names the file; it is no setting

_MAXIMUM_FILE: Final = 1024 * 1024  # bytes; a settings file has a few KiB
# What a problem begins with, as `'sources.ct 1' (file …): …`; a name that is none is cut where it stops to be one.
_KEY: Final = re.compile(r"'?(([a-z_]+)(?:\.[A-Za-z0-9_-]{1,64})*)")
# Credentials have no place in a URL, and none in a message; a password may have slashes.
_USER: Final = re.compile(r"//\S*@")
_OPTIONS: Final = re.compile(r"(//[^\s?]*\?)[^\s']*")
_NAMED_TABLES: Final = ("sources", "listeners")  # in the file only
_SHOWN: Final = 80  # characters of a wrong value that a message repeats

Tree = dict[str, object]  # settings as nested tables
Sources = dict[str, str]  # dotted key -> where its value comes from


class WrongSettings(ValueError):  # noqa: N818 - named for the fact
    """Settings that stop the start. ``problems`` has one line each: the key, what was given, what is allowed."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems

    @property
    def keys(self) -> list[str]:
        """The settings that the problems are of, each once, and never what was given for them."""
        found = (_KEY.match(problem) for problem in self.problems)
        keys = (match[1] for match in found if match and match[2] in Settings.model_fields)
        return list(dict.fromkeys(keys))


class LoadedSettings(NamedTuple):
    """The effective settings, and for each dotted key that is not a default, where its value comes from."""

    settings: Settings
    sources: Sources
    file: Path | None


class _Environment(BaseSettings, Settings):
    """`Settings` as pydantic-settings reads them from the environment; values stay text until validation."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", enable_decoding=False, extra="forbid"
    )


def load_settings(config: Path | None = None, flags: Mapping[str, object] | None = None) -> LoadedSettings:
    """Read, merge and validate all sources; ``flags`` are values by dotted key, those given on the command line.

    Raises:
        WrongSettings: unreadable file, unknown key, or wrong value.
    """
    file = config or default_file()
    merged: Tree = {}
    sources: Sources = {}
    if file is not None:
        _merge(merged, sources, _read_file(file), f"file {file}")
    _refuse_unknown_variables()
    _merge(merged, sources, EnvSettingsSource(_Environment)(), "environment")
    for key, value in (flags or {}).items():
        _merge(merged, sources, _nested(key, value), "flag")
    try:
        settings = fitted(Settings.model_validate(merged), sources)
    except ValidationError as error:
        raise WrongSettings(
            [_problem(detail["loc"], detail["input"], sources, detail["type"]) for detail in error.errors()]
        ) from None
    problems = [
        *kafka_problems(settings),
        *source_problems(settings),
        *listener_problems(settings),
        *audit_problems(settings.audit),
        *size_problems(settings),
    ]
    if problems:
        raise WrongSettings(problems)
    return LoadedSettings(settings, sources, file)


def default_file() -> Path | None:
    """The settings file that is read when none is named, if it exists."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    candidates = (Path("dicom-ingest.toml"), Path(home).expanduser() / "dicom-ingest" / "config.toml")
    return next((path for path in candidates if path.is_file()), None)


def variable_of(key: str) -> str:
    """The environment variable of a dotted key."""
    return ENVIRONMENT_PREFIX + key.upper().replace(".", "__")


def _read_file(path: Path) -> Tree:
    try:
        with path.open("rb") as file:
            text = file.read(_MAXIMUM_FILE + 1)
        if len(text) > _MAXIMUM_FILE:
            raise WrongSettings(
                [f"{path}: longer than {_MAXIMUM_FILE} bytes; allowed: a TOML file of settings"]
            )
        return tomllib.loads(text.decode())
    except OSError as error:
        raise WrongSettings([f"{path}: {error.strerror}; allowed: a readable TOML file"]) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise WrongSettings([f"{path}: {error}; allowed: TOML in UTF-8"]) from None


def _merge(into: Tree, sources: Sources, tree: Mapping[str, object], source: str, prefix: str = "") -> None:
    """Lay ``tree`` over ``into`` and note the source of each value."""
    for name, value in tree.items():
        key = prefix + name
        below = into.setdefault(name, {}) if isinstance(value, dict) else None
        if isinstance(value, dict) and isinstance(below, dict):
            sources.setdefault(key, source)
            _merge(below, sources, value, source, key + ".")
        elif below is not None:
            continue  # a plain value stands where a table belongs: kept, so that validation names it
        else:
            into[name] = value
            sources[key] = source


def _nested(key: str, value: object) -> Tree:
    head, dot, rest = key.partition(".")
    return {head: _nested(rest, value) if dot else value}


def _refuse_unknown_variables() -> None:
    """The environment source skips what it does not know; a misspelt variable must not be ignored."""
    known = {CONFIG_VARIABLE, *(variable_of(key) for key in settings_fields())}
    problems = [
        f"{name} (environment): {_why_unknown(name.upper())}"
        for name in sorted(os.environ)
        if name.upper().startswith(ENVIRONMENT_PREFIX) and name.upper() not in known
    ]
    if problems:
        raise WrongSettings(problems)


def _why_unknown(name: str) -> str:
    for table in _NAMED_TABLES:
        if name.startswith(ENVIRONMENT_PREFIX + table.upper()):
            return f"{table} are set in the settings file only; allowed: a table [{table}.NAME] there"
    return (
        f"no setting has this name; allowed: {ENVIRONMENT_PREFIX}TABLE__KEY for a key "
        "of `dicom-ingest config show`"
    )


def _problem(location: tuple[int | str, ...], given: object, sources: Sources, kind: str) -> str:
    """One line for one wrong value: the key, its source, what was given, what is allowed."""
    names = [str(part) for part in location]
    if names[-1] == "[key]":  # pydantic's way to say that a name of the user's own is none
        key = ".".join(names[:-1])
        return f"{_shown(key)} ({sources.get(key, 'default')}): given that name; allowed: {name_words()}"
    if kind == "missing" and (missing := find_field(names)) is not None:
        above = sources.get(".".join(names[:-1]), "default")
        return f"{'.'.join(names)} ({above}): not given, and it has no default; allowed: {allowed_values(missing)}"
    while len(names) > 1 and ".".join(names) not in sources:
        names.pop()  # pydantic adds list indices and union members below the key
    key = ".".join(names)
    source = sources.get(key, "default")
    if source == "environment":
        source = f"environment {variable_of(key)}"
    field = find_field(names)
    if field is None:  # what was given may be a secret that belongs elsewhere
        return f"{key} ({source}): an unknown key; allowed keys: {', '.join(table_keys(names[:-1]))}"
    shown = "what is not shown" if holds_secrets(field) else _shown(given)
    return f"{key} ({source}): given {shown}; allowed: {allowed_values(field)}"


def _shown(value: object) -> str:
    text = _OPTIONS.sub(r"\1…", _USER.sub("//…@", repr(value)))
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def source_of(loaded: LoadedSettings, key: str) -> str:
    """Where the value of ``key`` comes from: default, file and its path, environment and its variable, flag."""
    source = loaded.sources.get(key, "default")
    return f"environment {variable_of(key)}" if source == "environment" else source


def effective(loaded: LoadedSettings) -> Iterator[tuple[str, str, FieldInfo]]:
    """Every setting as dotted key, source, field, in the order of the file."""
    for key, field in settings_fields(names_of(loaded.settings)).items():
        yield key, source_of(loaded, key), field
