"""Settings: where each value comes from, and what a wrong one says."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from ingest.contract.settings import Settings
from ingest.contract.settings_keys import settings_fields
from ingest.contract.settings_sources import WrongSettings, effective, load_settings, source_of, variable_of


def problems(config: Path | None = None, **flags: object) -> list[str]:
    with pytest.raises(WrongSettings) as caught:
        load_settings(config, {key.replace("__", "."): value for key, value in flags.items()})
    return caught.value.problems


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def test_defaults_stand_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without file, environment and flags, the settings are the defaults."""
    monkeypatch.delenv("DICOM_INGEST_ADMIN__LISTEN")  # of all tests
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
    """A misspelt key is named with the file and the keys there are."""
    file = write(tmp_path, "[receiver]\nprot = 104\n")
    (problem,) = problems(file)
    assert problem.startswith(f"receiver.prot (file {file}): an unknown key; allowed keys: host, port,")


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
        (
            "[store]\ndirectories = 5",
            "store.directories (file {}): given 5; allowed: a list, each a path, in UTF-8",
        ),
        (
            "[receiver]\nartim_timeout = inf",
            "receiver.artim_timeout (file {}): given inf; allowed: a number above 0",
        ),
        (
            "[receiver]\nartim_timeout = nan",
            "receiver.artim_timeout (file {}): given nan; allowed: a number above 0",
        ),
        (
            "[receiver]\nmaximum_associations = true",
            "receiver.maximum_associations (file {}): given True; allowed: an integer from 1 up",
        ),
        (
            "[sources.ct1]\nae_titles = ['CT1']\nwait_limit = true\n",
            "sources.ct1.wait_limit (file {}): given True; allowed: a number above 0",
        ),
        (
            "[ledger]\ntime_zone = 'Europe/Berln'",
            "ledger.time_zone (file {}): given 'Europe/Berln'; allowed: a time zone of IANA's",
        ),
        (
            "[ledger]\nkey = 'short'",
            "ledger.key (file {}): given what is not shown; allowed: text of at least 32 characters",
        ),
        (
            "[ledger]\ndatabase = 'x'",
            "ledger.database (file {}): given 'x'; allowed: postgresql://USER@HOST/DATABASE, or nothing",
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


def test_keys_are_named_without_values(tmp_path: Path) -> None:
    """Each once, whatever is wrong with it; a file that cannot be read has none."""
    config = write(
        tmp_path,
        '[receiver]\nport = 0x1FFFF\nZZMARKER = 1\n[sources."ct 1"]\nae_titles = ["ZZ\\\\MARK"]\n'
        '[sources.mr]\nae_titles = ["ZZ\\\\MARK", "ZZMARKERZZMARKERZ"]\n',
    )
    with pytest.raises(WrongSettings) as wrong:
        load_settings(config)
    assert len(wrong.value.problems) > len(wrong.value.keys)
    assert set(wrong.value.keys) == {
        "receiver.port",
        "receiver.ZZMARKER",
        "sources.ct",
        "sources.mr.ae_titles",
    }
    with pytest.raises(WrongSettings) as wrong:
        load_settings(Path("settings.toml"))
    assert wrong.value.keys == []


def test_long_value_is_cut(tmp_path: Path) -> None:
    """A message stays one short line, whatever was given."""
    (problem,) = problems(write(tmp_path, f"[receiver]\nport = '{'1' * 5000}x'"))
    assert len(problem) < 400


def test_settings_are_frozen() -> None:
    """Nothing changes a setting after the start."""
    with pytest.raises(ValidationError, match="frozen"):
        Settings().receiver.port = 1  # type: ignore[misc]  # which is what must not be done


def test_every_setting_is_described() -> None:
    """Each has a description, and its variable reads back as its key."""
    for key, field in settings_fields().items():
        assert field.description, key
        assert variable_of(key).removeprefix("DICOM_INGEST_").lower().replace("__", ".") == key


SOURCE = "[sources.ct1]\nae_titles = ['CT1', 'CT1_CONSOLE']\nhost = '10.0.0.7'\n"


def test_sources_are_tables_with_names_of_their_own(tmp_path: Path) -> None:
    """A source is found under each of its AE titles; one that is not configured is none."""
    file = write(tmp_path, SOURCE + "[sources.mr]\nae_titles = 'MR'\nabsent_grace = 0\n")
    loaded = load_settings(file)
    found = loaded.settings.source_of_ae_title("CT1_CONSOLE ")
    assert found is not None
    assert (found[0], found[1].host, found[1].port) == ("ct1", "10.0.0.7", 104)
    assert loaded.settings.sources["mr"].ae_titles == ("MR",)
    assert loaded.settings.source_of_ae_title("OTHER") is None
    assert source_of(loaded, "sources.ct1.host") == f"file {file}"
    assert source_of(loaded, "sources.ct1.port") == "default"
    shown = [key for key, _, _ in effective(loaded) if key.startswith("sources.")]
    assert shown[:2] == ["sources.ct1.ae_titles", "sources.ct1.addresses"]
    assert "sources.ct1.host" in shown
    assert "sources.mr.absent_grace" in shown


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            SOURCE + "prot = 1\n",
            "sources.ct1.prot (file {}): an unknown key; allowed keys: ae_titles,",
        ),
        (SOURCE + "port = 0\n", "sources.ct1.port (file {}): given 0; allowed: an integer from 1 to 65535"),
        (
            "[sources.ct1]\nport = 1\n",
            "sources.ct1.ae_titles (file {}): not given, and it has no default; allowed",
        ),
        (
            "[sources.'a b']\nae_titles = 'A'\n",
            "'sources.a b' (file {}): given that name; allowed: a name of",
        ),
        ("[sources]\nct1 = 1\n", "sources.ct1 (file {}): given 1; allowed: a table with ae_titles,"),
        ("sources = 1\n", "sources (file {}): given 1; allowed: tables, each with a name of"),
        (
            SOURCE + "proof = 'trust'\n",
            "sources.ct1.proof (file {}): given 'trust'; allowed: one of nothing, read,",
        ),
        (
            SOURCE + "wait_limit = -1\n",
            "sources.ct1.wait_limit (file {}): given -1; allowed: a number above 0",
        ),
        (SOURCE + "called_ae_title = 'a\\\\b'\n", "sources.ct1.called_ae_title: given"),
        (
            SOURCE + "[sources.ct2]\nae_titles = ['CT1 ']\n",
            "sources.ct2.ae_titles: given 'CT1', which sources.ct1",
        ),
    ],
)
def test_wrong_sources_are_named(tmp_path: Path, text: str, problem: str) -> None:
    """A wrong source says which key, what was given and what is allowed."""
    file = write(tmp_path, text.replace("'a\\\\b'", '"a\\\\b"'))
    assert problems(file)[0].startswith(problem.format(file))


def test_sources_in_the_environment_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their names would lose their case: the file is their place, and the message says so."""
    monkeypatch.setenv("DICOM_INGEST_SOURCES__CT1__HOST", "10.0.0.7")
    (problem,) = problems()
    assert problem.startswith(
        "DICOM_INGEST_SOURCES__CT1__HOST (environment): sources are set in the settings file"
    )


TLS = "[listeners.out]\ncertificate_file = 'c'\nkey_file = 'k'\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[receiver]\nhost = ''\n", "receiver.host: given nothing"),
        ("[listeners.a]\nport = 11112\n", "listeners.a.port: given 11112, which receiver has too"),
        ("[listeners.a]\ncertificate_file = 'c'\n", "listeners.a.key_file: given ''"),
        (
            "[listeners.a]\nclient_ca_file = 'c'\n",
            "listeners.a.client_ca_file: given without certificate_file",
        ),
        (TLS, "listeners.out.client_ca_file: given '' with client_certificate = 'required'"),
        (
            TLS + "client_certificate = 'none'\nclient_ca_file = 'a'\n",
            "listeners.out.client_ca_file: given 'a'",
        ),
        (
            TLS + "client_certificate = 'none'\nclient_crl_file = 'r'\n",
            "listeners.out.client_crl_file: given without client_ca_file",
        ),
        (SOURCE + "certificates = 'san:ct1'\n", "sources.ct1.certificates: given, and no listener asks"),
        (SOURCE + "tls = true\ntls_certificate_file = 'c'\n", "sources.ct1.tls_key_file: given ''"),
        (SOURCE + "tls_ca_file = 'c'\n", "sources.ct1.tls: given false"),
        (
            SOURCE + "addresses = '10.0.0.1/8'\n",
            "sources.ct1.addresses (file {}): given '10.0.0.1/8'; allowed: a list",
        ),
        (
            SOURCE + "certificates = 'sha256:12'\n",
            "sources.ct1.certificates (file {}): given 'sha256:12'; allowed",
        ),
        (
            SOURCE + "maximum_rate = 100\n",
            "sources.ct1.maximum_rate: given 100; allowed: 0, or from 65536 up",
        ),
    ],
)
def test_listeners_and_limits_that_do_not_fit_are_named(tmp_path: Path, text: str, problem: str) -> None:
    """What one setting cannot know of another is said before anything listens."""
    file = write(tmp_path, text)
    assert problems(file)[0].startswith(problem.format(file))


def test_workers_must_have_admin_ports_behind_the_receivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the ledger: else each of them would end at its start."""
    monkeypatch.setenv("DICOM_INGEST_ADMIN__LISTEN", "127.0.0.1:65519")
    (problem,) = problems(log__partitions=16)
    assert problem.startswith("admin.listen: given '127.0.0.1:65519'; allowed: a port of at most 65518")
    load_settings(None, {"log.partitions": 15})


@pytest.mark.parametrize(
    "text",
    [
        "sasl_password = 'hidden'",
        "[Kafka]\nsasl_password = 'hidden'",
        "[kafka]\npassword = 'hidden'",
        "[store]\nsecret_access_key = 'hidden'",
        "[ledger]\ndatabase = 'postgresql://us:hidden@there/ledger'",
        "[ledger]\ndatabase = 'postgresql://us:/hidden@there/ledger'",
        "[ledger]\ndatabase = 'postgresql://us@there/ledger?password=hidden'",
        "[store]\nendpoint = 'http://us:hidden@there'",
        "[store]\nurls = ['s3://AKIA:x/hidden@images']",
    ],
)
def test_a_secret_in_the_wrong_place_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    """Under a key that there is not it may be one, whatever table was meant; and a URL has none."""
    (problem,) = problems(write(tmp_path, text))
    assert "hidden" not in problem
    assert "allowed" in problem


@pytest.mark.parametrize("key", ["data", "store.directories", "receiver.host"])
def test_text_that_is_not_utf_8(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """As a path in Latin-1: commands ended with a traceback where they were to print it, JSON could not hold it."""
    monkeypatch.setenv(variable_of(key), "/srv/M\udcfcller")
    (problem,) = problems()
    assert problem.startswith(f"{key} (environment {variable_of(key)}): given '/srv/M\\udcfcller'")


def test_a_flag_that_is_not_utf_8() -> None:
    """A path on the command line, too."""
    (problem,) = problems(data=Path("/srv/M\udcfcller"))
    assert "M\\udcfcller" in problem
    assert problem.endswith("allowed: a path, in UTF-8")
