"""What is fed with anything: each parser that reads what a stranger wrote, and the errors that it documents.

Each says whether it took the input: a seed that is not taken leads nowhere.
"""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import msgspec
import numpy as np
from kafka.errors import KafkaProtocolError
from kafka.protocol.metadata import MetadataResponse
from kafka.protocol.producer import InitProducerIdResponse, ProduceResponse
from kafka.protocol.sasl import SaslAuthenticateResponse, SaslHandshakeResponse

from ingest.association import (
    Accepted,
    AcceptorPolicy,
    AssociateRequest,
    AssociateRequested,
    Association,
    Fragment,
    FragmentRun,
    PresentationContext,
    ReleaseRequested,
    UserInformation,
    negotiate,
)
from ingest.association.pdu import decode_pdu
from ingest.contract.commitments import Finding, Found, Reference, commitment_of, found_of, references_of
from ingest.contract.identifiers import UploadId
from ingest.contract.producer.broker import decode_message as decode_kafka_message
from ingest.contract.producer.produce import Malformed, decode_response
from ingest.contract.records import (
    MAX_METADATA,
    CorruptRecord,
    Kind,
    decode,
    encode_header,
    instance_of,
    outcome_of,
)
from ingest.contract.settings_sources import WrongSettings, load_settings
from ingest.dimse import (
    CEchoRequest,
    CStoreRequest,
    MessageAssembler,
    MessageBegun,
    NActionRequest,
    NEventReportRequest,
    UnknownRequest,
)
from ingest.dimse.command_set import decode_command_set
from ingest.dimse.commitment_report import encode_report, parse_report, report_of
from ingest.dimse.commitment_request import encode_request, parse_request
from ingest.dimse.messages import decode_message
from ingest.errors import LocalProtocolError, Refused, RemoteProtocolError
from ingest.instance.identity import Incomplete, TooManyElements, Unreadable, read_identity
from tests.fuzz import segments
from tests.support.instances import SYNTAXES, encoded, recorded
from tests.support.scu import (
    COMMITMENT,
    COMMITMENT_INSTANCE,
    CT,
    EXPLICIT,
    IMPLICIT,
    RELEASE_RQ,
    VERIFICATION,
    associate,
    c_echo,
    c_store,
    commitment_association,
    ct_data_set,
    n_action,
)
from workers.dataset.payload import MemoryPayload
from workers.errors import Rejected
from workers.pixels.codestream import read_jpeg, read_jpeg_2000
from workers.pixels.form import CodecFailed
from workers.stages.validate import validate
from workers.storage.manifest import UnreadableManifest, decode_manifest, encode_manifest, received

UPLOAD = UploadId.of(7, 1, 1)
ANSWERED = CEchoRequest | CStoreRequest | NActionRequest | NEventReportRequest | UnknownRequest


class Target(NamedTuple):
    """A parser, and inputs that it takes, for what is fed to begin with."""

    feed: Callable[[bytes], bool]
    seeds: tuple[bytes, ...]


def association(data: bytes) -> bool:
    """All that comes before an acceptor, in two pieces, as a receiver handles it; the peer's faults become aborts."""
    acceptor = Association()
    acceptor.transport_opened()
    assembler = MessageAssembler(CStoreRequest, NActionRequest)
    policy = AcceptorPolicy("DICOM-INGEST", commitment_scp=True)
    accepted = False
    middle = sum(data[-2:]) * len(data) // 512
    for piece in (data[:middle], data[middle:]):
        acceptor.receive_data(memoryview(bytearray(piece)))
        while (event := acceptor.next_event()) is not None:
            if isinstance(event, AssociateRequested):
                answer = negotiate(event.request, policy)
                accepted = isinstance(answer, Accepted)
                acceptor.answer(answer)
            elif isinstance(event, ReleaseRequested):
                acceptor.release_response()
            elif isinstance(event, Fragment):
                try:
                    item = assembler.receive(event)
                    if (
                        isinstance(item, MessageBegun)
                        and not item.has_data_set
                        and isinstance(item.message, ANSWERED)
                    ):
                        with contextlib.suppress(LocalProtocolError):
                            acceptor.send_command(item.context_id, item.message.respond().encode())
                except RemoteProtocolError as fault:
                    acceptor.abort(fault)
            elif isinstance(event, FragmentRun):
                try:
                    assembler.receive_run(event)
                except RemoteProtocolError as fault:
                    acceptor.abort(fault)
    acceptor.transport_closed()
    while acceptor.next_event() is not None:
        pass
    return accepted and acceptor.fault is None


def pdu(data: bytes) -> bool:
    with contextlib.suppress(RemoteProtocolError):
        found = decode_pdu(data[0] if data else 0, memoryview(data)[1:])
        return bool(found.encode())
    return False


def command_set(data: bytes) -> bool:
    with contextlib.suppress(RemoteProtocolError):
        return bool(decode_message(decode_command_set(data)))
    return False


def commitment_data_set(data: bytes) -> bool:
    taken = False
    for explicit in (True, False):
        for parse in (parse_request, parse_report):
            with contextlib.suppress(Refused):
                taken |= bool(parse(bytearray(data), explicit=explicit, maximum=100))
    return taken


def identity(data: bytes) -> bool:
    taken = False
    for syntax in SYNTAXES.values():
        with contextlib.suppress(Incomplete, TooManyElements, Unreadable):
            taken |= read_identity(memoryview(data), syntax).sop_instance_uid is not None
    return taken


def data_set(data: bytes) -> bool:
    taken = False
    for syntax in SYNTAXES.values():
        with contextlib.suppress(Rejected):
            taken |= bool(validate(MemoryPayload([data]), recorded(data, syntax)))
    return taken


def record(data: bytes) -> bool:
    taken = False
    with contextlib.suppress(CorruptRecord):
        found = decode(data)
        for read in (instance_of, outcome_of, commitment_of, references_of, found_of):
            with contextlib.suppress(CorruptRecord):
                taken |= bool(read(found))
    return taken


def record_metadata(data: bytes) -> bool:
    """Metadata and payload behind a CRC that is right: what another release might write."""
    metadata, _, payload = data.partition(b"--")
    taken = False
    for kind in Kind:
        header = encode_header(kind, UPLOAD, 0, msgspec.Raw(metadata[:MAX_METADATA]), [memoryview(payload)])  # type: ignore[arg-type]  # none that we would write
        taken |= record(bytes(header) + payload)
    return taken


def manifest(data: bytes) -> bool:
    with contextlib.suppress(UnreadableManifest):
        return bool(decode_manifest(data))
    return False


def broker(data: bytes) -> bool:
    """A response of a Kafka broker, behind a byte for what it was asked: what to produce, or what the client's messages say."""
    messages = (
        MetadataResponse[5],
        InitProducerIdResponse[1],
        SaslHandshakeResponse[1],
        SaslAuthenticateResponse[1],
    )
    asked = data[0] % (1 + len(messages)) if data else 0
    with contextlib.suppress(KafkaProtocolError, Malformed):
        if not asked:
            return bool(decode_response(memoryview(data)[1:]))
        return bool(decode_kafka_message(messages[asked - 1], data[1:]))
    return False


def codestream(data: bytes) -> bool:
    taken = False
    for read in (read_jpeg_2000, read_jpeg):
        with contextlib.suppress(CodecFailed):
            taken |= bool(read(memoryview(data)))
    return taken


def settings_file(data: bytes) -> bool:
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(WrongSettings):
            return bool(load_settings(Path(file.name)))
    return False


REQUEST = AssociateRequest(
    "DICOM-INGEST",
    "TESTER",
    (PresentationContext(1, CT, (EXPLICIT, IMPLICIT)), PresentationContext(3, VERIFICATION, (IMPLICIT,))),
    UserInformation(maximum_length=16384, implementation_class_uid="1.2.3"),
).encode()
ACTION = n_action(["1.2.3.4", "1.2.3.5"])
SETTINGS = b"""
data = "d"
[receiver]
port = 11112
transfer_syntax_preference = ["1.2.840.10008.1.2"]
[listeners.a]
certificate_file = "c"
key_file = "k"
client_ca_file = "a"
[sources.ct1]
ae_titles = ["CT1"]
addresses = ["10.0.0.0/8", "::1"]
certificates = ["san:ct1"]
maximum_rate = 1000000
"""

REFERENCES = [Reference(CT, "1.2.3.4"), Reference(CT, "1.2.3.5")]
FOUND = [Found(CT, "1.2.3.4", Finding.PROVED)]
FAILED = [Found(CT, "1.2.3.5", Finding.DAMAGED)]
FRAME = np.arange(64, dtype=np.uint16).reshape(8, 8)
PIXELS = bytes(8)
INSTANCE = recorded(PIXELS)
HEADER = bytes(encode_header(Kind.INSTANCE, UPLOAD, 1, INSTANCE, [memoryview(PIXELS)]))


def asked(*, explicit: bool) -> bytes:
    return encode_request("2.25.1", REFERENCES, explicit=explicit)


def reported(*, explicit: bool) -> bytes:
    return encode_report(report_of("2.25.1", FOUND, FAILED, "US"), explicit=explicit)


def broker_responses() -> tuple[bytes, ...]:
    produced, node, topic = (
        ProduceResponse.TopicProduceResponse,
        MetadataResponse.MetadataResponseBroker,
        MetadataResponse.MetadataResponseTopic,
    )
    result = produced.PartitionProduceResponse(index=1, base_offset=7, log_append_time_ms=9)
    led = topic.MetadataResponsePartition(partition_index=1, leader_id=2)
    messages = (
        MetadataResponse[5](
            brokers=[node(node_id=2, host="kafka", port=9092)],
            topics=[topic(name="instances", partitions=[led])],
        ),
        InitProducerIdResponse[1](producer_id=7, producer_epoch=1),
        SaslHandshakeResponse[1](mechanisms=["PLAIN"]),
        SaslAuthenticateResponse[1](auth_bytes=b"v=", session_lifetime_ms=9),
    )
    answer = ProduceResponse[7](responses=[produced(name="instances", partition_responses=[result])])
    return (
        b"\0" + bytes(answer.encode()),
        *(bytes([number]) + bytes(4) + bytes(message.encode()) for number, message in enumerate(messages, 1)),
    )


TARGETS = {
    "association": Target(
        association,
        (
            associate() + c_echo() + RELEASE_RQ,
            associate() + c_store("1.2.3", ct_data_set("1.2.3", 1000)) + RELEASE_RQ,
            commitment_association() + ACTION,
        ),
    ),
    "pdu": Target(pdu, tuple(each[:1] + each[6:] for each in (REQUEST, RELEASE_RQ, c_echo()))),
    "command_set": Target(
        command_set,
        (
            CEchoRequest(1, VERIFICATION).encode(),
            CStoreRequest(1, CT, "1.2.3").encode(),
            NActionRequest(1, COMMITMENT, COMMITMENT_INSTANCE, 1).encode(),
        ),
    ),
    "commitment": Target(
        commitment_data_set,
        tuple(made(explicit=explicit) for explicit in (True, False) for made in (asked, reported)),
    ),
    "identity": Target(identity, tuple(encoded(mode)[0][:300] for mode in SYNTAXES)),
    "data_set": Target(data_set, tuple(encoded(mode)[0] for mode in SYNTAXES)),
    "segments": Target(segments.read, (segments.written(HEADER, PIXELS),)),
    "record": Target(record, (HEADER + PIXELS,)),
    "record_metadata": Target(record_metadata, (msgspec.msgpack.encode(INSTANCE) + b"--" + PIXELS,)),
    "manifest": Target(manifest, (encode_manifest(received(UPLOAD, INSTANCE, "0" * 64)),)),
    "broker": Target(broker, broker_responses()),
    "codestream": Target(
        codestream,
        (
            bytes(imagecodecs.jpeg2k_encode(FRAME, codecformat="j2k", reversible=True)),
            bytes(imagecodecs.ljpeg_encode(FRAME)),
        ),
    ),
    "settings": Target(settings_file, (SETTINGS,)),
}
