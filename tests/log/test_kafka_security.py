"""TLS with certificates on both sides, and SASL/SCRAM above it: who is let in, and that no secret is told."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.contract.identifiers import UploadId
from ingest.contract.kafka import KafkaUnreachable
from ingest.contract.records import Kind, encode_header
from ingest.contract.settings import Settings
from ingest.log.kafka_writer import KafkaWriter
from tests.support.certificates import Authority
from tests.support.kafka_log import environment, instances, kafka_settings
from tests.support.kafka_records import Publisher
from tests.support.kafka_servers import KafkaServers
from tests.support.receiver_process import ReceiverProcess
from tests.support.scu import Scu, ct_data_set, run_closing
from workers.log.entries import Entry, LogRecord
from workers.log.kafka_consumer import KafkaReader

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("kafka")]

PASSWORD = "correct-horse-battery"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[KafkaServers]:
    """A broker that asks for a certificate of the authority, and a password."""
    folder = tmp_path_factory.mktemp("secure")
    certificate, key = authority.certificate("broker")
    keystore = folder / "broker.pem"
    keystore.write_text(key.read_text() + certificate.read_text())
    properties = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keystore),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.ca),
        "listener.name.secure.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "connections.max.reauth.ms": "4000",
        "listener.name.secure.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
    }
    scram = [f"SCRAM-SHA-512=[name=receiver,password={PASSWORD}]"]
    with KafkaServers(folder / "kafka", secure="SASL_SSL", properties=properties, scram=scram) as servers:
        yield servers


@pytest.fixture(scope="module")
def settings(secure: KafkaServers, authority: Authority) -> Settings:
    certificate, key = authority.certificate("receiver")
    return kafka_settings(
        secure,
        bootstrap_servers=secure.secure_bootstrap_servers,
        security_protocol="SASL_SSL",
        sasl_username="receiver",
        sasl_password=PASSWORD,
        ssl_ca_file=str(authority.ca),
        ssl_certificate_file=str(certificate),
        ssl_key_file=str(key),
    )


def test_receiver_by_tls_and_scram(secure: KafkaServers, settings: Settings, tmp_path: Path) -> None:
    """The whole receiver, with its secret in the environment alone, which nothing repeats."""
    data_set = ct_data_set("1.2.3", 3_000_000)

    async def send(port: int) -> int:
        scu = await Scu.associated(port)
        status = (await scu.store("1.2.3", data_set)).status
        await scu.release()
        return status

    loud = {"DICOM_INGEST_TELEMETRY__LEVEL": "debug"}
    with ReceiverProcess(tmp_path, environment(settings) | loud) as running:
        assert run_closing(send(running.port)) == 0
        assert running.stop() == 0
        assert PASSWORD not in running.log.read_text()
    ((_, received),) = instances(secure, settings)["1.2.3"]
    assert received == data_set


def test_a_session_that_ends_is_followed_by_another(secure: KafkaServers, settings: Settings) -> None:
    """Brokers close what outlives its time (KIP-368): another connection takes its place before, and nothing fails."""

    async def scenario() -> None:
        writer = KafkaWriter(settings)
        await writer.start()
        brokers: set[object] = set()
        until = time.monotonic() + 10
        number = 0
        while time.monotonic() < until:
            payload = memoryview(b"x" * 1000)
            upload_id = UploadId.of(7, 7, number)
            await writer.publish(0, encode_header(Kind.PART, upload_id, 0, None, [payload]), [payload])
            brokers.update(writer._producer._brokers.values())
            number += 1
        await writer.close()
        assert len(brokers) > 2

    asyncio.run(scenario())


def test_worker_by_tls_and_scram(settings: Settings) -> None:
    """It reads what is many records of TLS."""
    data_set = ct_data_set("1.2.4", 900_000)
    publisher = Publisher(settings)
    upload_id = publisher.upload("1.2.4", data_set)
    publisher.flush()
    publisher.close()

    def found(entries: list[Entry]) -> bytes | None:
        records = [entry.record for entry in entries if isinstance(entry, LogRecord)]
        return next((bytes(record.payload) for record in records if record.upload_id == upload_id), None)

    async def read() -> bytes:
        entries: list[Entry] = []
        reader = KafkaReader(settings, lambda _: None, lambda _: None)
        await reader.start()
        async with asyncio.timeout(120):
            while (payload := found(entries)) is None:
                await reader.wait(1)
                entries += reader.read()
        await reader.close()
        return payload

    assert asyncio.run(read()) == data_set


@pytest.mark.parametrize(
    "wrong",
    [
        {"sasl_password": "wrong"},
        {"ssl_certificate_file": "", "ssl_key_file": ""},
        {"ssl_ca_file": ""},
        {"security_protocol": "PLAINTEXT"},
    ],
    ids=["password", "no certificate", "unknown authority", "plain text"],
)
def test_who_is_not_let_in(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    wrong: dict[str, Any],
) -> None:
    """One clear error in bounded time."""
    monkeypatch.setattr("ingest.log.kafka_writer._START", 2.0)
    data = settings.model_dump()
    data["kafka"] |= {"sasl_password": PASSWORD, "ssl_key_password": ""} | wrong

    async def start() -> None:
        await KafkaWriter(Settings.model_validate(data)).start()

    with pytest.raises(KafkaUnreachable) as caught:
        asyncio.run(start())
    said = capfd.readouterr()
    assert PASSWORD not in str(caught.value) + said.out + said.err
