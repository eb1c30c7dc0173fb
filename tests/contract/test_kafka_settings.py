"""Settings of Kafka: what does not fit together is said at the start, and no secret is ever shown."""

import json
from pathlib import Path

import pytest

from ingest.contract.kafka import client_options, is_single_copy, topic_configuration
from ingest.contract.settings import Settings
from ingest.contract.settings_sources import WrongSettings, load_settings
from tests.support.command import run

KAFKA = "[log]\nkind = 'kafka'\n[kafka]\n"
SECRET = "hunter2-secret"


def load(folder: Path, text: str) -> Settings:
    path = folder / "settings.toml"
    path.write_text(text)
    return load_settings(path).settings


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(WrongSettings) as caught:
        load(folder, text)
    return caught.value.problems


def test_defaults_keep_two_copies_at_least() -> None:
    """Three replicas of which two acknowledge, as the promise of durability asks."""
    settings = Settings.model_validate({"log": {"kind": "kafka"}})
    assert not is_single_copy(settings)
    assert topic_configuration(settings.kafka)["min.insync.replicas"] == "2"


@pytest.mark.parametrize("line", ["replication_factor = 2", "min_insync_replicas = 1"])
def test_fewer_copies_must_be_allowed(tmp_path: Path, line: str) -> None:
    """One copy is a decision, not an accident."""
    (problem,) = problems(tmp_path, KAFKA + line)
    assert "log.allow_single_copy" in problem
    settings = load(tmp_path, KAFKA.replace("[kafka]", "allow_single_copy = true\n[kafka]") + line)
    assert is_single_copy(settings)


def test_kafka_settings_do_not_matter_to_the_spool(tmp_path: Path) -> None:
    """The table may stand there, half filled in."""
    settings = load(tmp_path, "[kafka]\nreplication_factor = 1\nsecurity_protocol = 'SASL_SSL'")
    assert not is_single_copy(settings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bootstrap_servers = ['kafka']", "kafka.bootstrap_servers: given 'kafka'; allowed: HOST:PORT"),
        ("min_insync_replicas = 4", "kafka.min_insync_replicas is above"),
        ("outcome_topic = 'dicom-instances'", "kafka.instance_topic and kafka.outcome_topic"),
        ("security_protocol = 'SASL_SSL'\nsasl_username = 'a'", "kafka.sasl_password is empty"),
        ("security_protocol = 'SSL'\nssl_ca_file = '/none'", "kafka.ssl_ca_file: given '/none'"),
        ("security_protocol = 'SSL'\nssl_key_file = '/dev/null'", "kafka.ssl_certificate_file and"),
        ("instance_topic = 'a b'", "kafka.instance_topic (file "),
        ("bootstrap_servers = []", "kafka.bootstrap_servers (file "),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str, expected: str) -> None:
    (problem,) = problems(tmp_path, KAFKA + text)
    assert problem.startswith(expected)


def test_client_options_follow_the_protocol(tmp_path: Path) -> None:
    """TLS and SASL are given only where they are used."""
    text = f"sasl_username = 'a'\nsasl_password = '{SECRET}'\n"
    plain = client_options(load(tmp_path, KAFKA + text).kafka)
    assert plain == {
        "bootstrap_servers": ["127.0.0.1:9092"],
        "security_protocol": "PLAINTEXT",
        "reconnect_backoff_max_ms": 1000,
    }
    secure = client_options(load(tmp_path, KAFKA + text + "security_protocol = 'SASL_SSL'").kafka)
    assert secure["sasl_plain_password"] == SECRET
    assert secure["sasl_mechanism"] == "SCRAM-SHA-512"
    assert secure["ssl_cafile"] is None


def test_no_secret_is_shown(tmp_path: Path) -> None:
    """Neither by `config show`, nor by the settings' own text, nor by a message about another key."""
    text = KAFKA + f"sasl_password = '{SECRET}'\n"
    settings = load(tmp_path, text)
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()
    file = tmp_path / "settings.toml"
    for form in ((), ("--json",)):
        done = run(tmp_path, "config", "show", "--config", str(file), *form)
        assert done.code == 0
        assert SECRET not in done.out + done.err
        assert "sasl_password" in done.out
    assert json.loads(run(tmp_path, "config", "show", "--config", str(file), "--json").out)


def test_what_is_shown_is_a_file_to_start_from(tmp_path: Path) -> None:
    """What stands for a secret is no secret: with it the brokers would refuse us."""
    text = KAFKA + f"sasl_password = '{SECRET}'\nsasl_username = 'a'\n"
    settings = load(tmp_path, text)
    shown = load(tmp_path, run(tmp_path, "config", "show", "--config", str(tmp_path / "settings.toml")).out)
    assert not shown.kafka.sasl_password.get_secret_value()
    without = settings.kafka.model_copy(update={"sasl_password": shown.kafka.sasl_password})
    assert shown == settings.model_copy(update={"kafka": without, "data": tmp_path})


@pytest.mark.parametrize(
    "text",
    [
        f"[kafka]\nsasl_passwrd = '{SECRET}'",
        f"[kafka]\nsasl_password = ['{SECRET}']",
        f"[[kafka]]\nsasl_password = '{SECRET}'",
        f"kafka = '{SECRET}'",
        f"[kafka]\nreplication_factor = 0\nsasl_password = '{SECRET}'",
    ],
)
def test_no_secret_is_repeated_by_a_message(tmp_path: Path, text: str) -> None:
    """A wrong or misspelt key is named without its value where that may be a secret."""
    assert SECRET not in "\n".join(problems(tmp_path, text))
