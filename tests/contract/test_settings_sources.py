"""Settings: where each value comes from, and what a wrong one says."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from ingest.contract.settings import Settings
from ingest.contract.settings_keys import settings_fields
from ingest.contract.settings_sources import WrongSettings, load_settings, source_of, variable_of


def problems(config: Path | None = None, **flags: object) -> list[str]:
    with pytest.raises(WrongSettings) as caught:
        load_settings(config, {key.replace("__", "."): value for key, value in flags.items()})
    return caught.value.problems


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def test_defaults_stand_alone() -> None:
    """Without file, environment and flags, the settings are the defaults."""
    loaded = load_settings()
    assert loaded.settings == Settings()
    assert loaded.file is None
    assert {source_of(loaded, key) for key in settings_fields()} == {"default"}


def test_later_source_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File under environment under flag, key by key, and each value names its source."""
    file = write(tmp_path, "data = 'a'\n[receiver]\nport = 1\nhost = 'file'\nae_title = 'FILE'\n")
    monkeypatch.setenv("DICOM_INGEST_RECEIVER__PORT", "2")
    monkeypatch.setenv("DICOM_INGEST_RECEIVER__HOST", "environment")
    loaded = load_settings(file, {"receiver.port": 3})
    receiver = loaded.settings.receiver
    assert (receiver.port, receiver.host, receiver.ae_title) == (3, "environment", "FILE")
    assert source_of(loaded, "receiver.port") == "flag"
    assert source_of(loaded, "receiver.host") == "environment DICOM_INGEST_RECEIVER__HOST"
    assert source_of(loaded, "receiver.ae_title") == f"file {file}"
    assert source_of(loaded, "receiver.idle_timeout") == "default"


def test_file_is_found_here_then_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """./dicom-ingest.toml comes before the user's; there is one file, never a mix."""
    home = tmp_path / "home" / "dicom-ingest"
    home.mkdir(parents=True)
    (home / "config.toml").write_text("[receiver]\nport = 1\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home.parent))
    monkeypatch.chdir(tmp_path)
    assert load_settings().settings.receiver.port == 1
    (tmp_path / "dicom-ingest.toml").write_text("[receiver]\nhost = 'x'\n")
    assert load_settings().settings.receiver.port == 11112


def test_list_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list is written with commas."""
    monkeypatch.setenv("DICOM_INGEST_STORE__DIRECTORIES", "/a, /b")
    assert load_settings().settings.store.directories == (Path("/a"), Path("/b"))


def test_unknown_key_in_the_file(tmp_path: Path) -> None:
    """A misspelt key is named with the file, what it was given and the keys there are."""
    file = write(tmp_path, "[receiver]\nprot = 104\n")
    (problem,) = problems(file)
    assert problem.startswith(
        f"receiver.prot (file {file}): given 104 under an unknown key; allowed keys: host, port,"
    )


def test_unknown_table_in_the_file(tmp_path: Path) -> None:
    """A misspelt table is named, too."""
    (problem,) = problems(write(tmp_path, "[recevier]\nport = 104\n"))
    assert problem.startswith("recevier (file ")
    assert "allowed keys: data, receiver, log," in problem


def test_unknown_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt variable is not ignored."""
    monkeypatch.setenv("DICOM_INGEST_RECEIVER__PROT", "104")
    (problem,) = problems()
    assert problem.startswith("DICOM_INGEST_RECEIVER__PROT (environment): no setting has this name")


def test_wrong_value_of_each_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key, the source, what was given, what is allowed; every wrong value in one go."""
    file = write(tmp_path, "[log]\npartitions = 0\n")
    monkeypatch.setenv("DICOM_INGEST_RECEIVER__PORT", "http")
    assert problems(file, receiver__ae_title="a\\b") == [
        "receiver.port (environment DICOM_INGEST_RECEIVER__PORT): given 'http'; allowed: an integer from 0 to 65535",
        (
            "receiver.ae_title (flag): given 'a\\\\b'; allowed: an AE title of 1 to 16 printable ASCII characters "
            "without backslash"
        ),
        f"log.partitions (file {file}): given 0; allowed: an integer from 1 to 1024",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("telemetry.level = 'loud'", "telemetry.level (file {}): given 'loud'; allowed: one of debug, info,"),
        ("[store]\ndirectories = 5", "store.directories (file {}): given 5; allowed: a list, each a path"),
        (
            "[receiver]\nartim_timeout = inf",
            "receiver.artim_timeout (file {}): given inf; allowed: a number above 0",
        ),
        (
            "[receiver]\nartim_timeout = nan",
            "receiver.artim_timeout (file {}): given nan; allowed: a number above 0",
        ),
        ("receiver = 5", "receiver (file {}): given 5; allowed: a table with host, port,"),
        ("[receiver.port]\na = 1", "receiver.port (file {}): given {{'a': 1}}; allowed: an integer from 0"),
        (
            "[receiver]\nprivate_storage_classes = ['1.2', 'x']",
            "receiver.private_storage_classes (file {}): given 'x'",
        ),
        (
            "[transcode]\ndecode_lossless = ['gif']",
            "transcode.decode_lossless (file {}): given 'gif'; allowed: a list",
        ),
    ],
)
def test_wrong_value_in_the_file(tmp_path: Path, text: str, expected: str) -> None:
    """Types, limits, choices, tables and members of lists are all explained under their key."""
    file = write(tmp_path, text)
    (problem,) = problems(file)
    assert problem.startswith(expected.format(file))


def test_plain_value_in_place_of_a_table_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong file stays wrong, though the environment overrides a key of the table it spoilt."""
    monkeypatch.setenv("DICOM_INGEST_RECEIVER__PORT", "104")
    (problem,) = problems(write(tmp_path, "receiver = 5"))
    assert problem.startswith("receiver (file ")


@pytest.mark.parametrize("content", [b"a = ", b"\xff\xfe", b"# " + b"x" * 1024 * 1024])
def test_unreadable_file(tmp_path: Path, content: bytes) -> None:
    """A file that is no TOML, no text or no settings file at all is one clear problem."""
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    (problem,) = problems(file)
    assert problem.startswith(f"{file}: ")
    assert "allowed: " in problem


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """A file that was named must be there."""
    assert problems(tmp_path / "none.toml") == [
        f"{tmp_path}/none.toml: No such file or directory; allowed: a readable TOML file"
    ]


def test_long_value_is_cut(tmp_path: Path) -> None:
    """A message stays one short line, whatever was given."""
    (problem,) = problems(write(tmp_path, f"[receiver]\nport = '{'1' * 5000}x'"))
    assert len(problem) < 400


def test_settings_are_frozen() -> None:
    """Nothing changes a setting after the start."""
    with pytest.raises(ValidationError, match="frozen"):
        Settings().receiver.port = 1


def test_every_setting_is_described() -> None:
    """Each has a description, and its variable reads back as its key."""
    for key, field in settings_fields().items():
        assert field.description, key
        assert variable_of(key).removeprefix("DICOM_INGEST_").lower().replace("__", ".") == key
