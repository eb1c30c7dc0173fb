"""What the conformance statement says of the Storage service: section 5.2.5."""

from collections.abc import Iterator

from ingest.contract.kafka import is_single_copy
from ingest.contract.settings import Settings


def storage(settings: Settings) -> Iterator[str]:
    """Section 5.2.5."""
    yield "#### 5.2.5 Storage"
    yield ""
    yield "What is received is kept whole, private and unknown elements, too (Level 2, full, of PS3.4 B.4.1). No element is"
    yield "coerced. SOP Instance UIDs are never changed."
    yield from _transcoding(settings)
    yield "The same content again is one instance. Other content under a known SOP Instance UID is kept beside it, and the"
    yield "first stays until an administrator decides. What cannot be read or identified is kept in quarantine. All of these"
    yield "are answered with success, since they are found out after the answer; 7.3.2 has every status."


def _transcoding(settings: Settings) -> Iterator[str]:
    if not settings.transcode.enabled:
        yield "Instances are stored in the transfer syntax that they were received in."
        return
    compressed = "".join(f", {name}" for name in settings.transcode.decode_lossless)
    yield f"Pixel data in these forms become JPEG 2000 Lossless: native{compressed}. Each result is decoded again and"
    yield "compared bit by bit; where it is not proved to be the same, the instance is stored as received."


def durability(settings: Settings) -> str:
    """What success of a C-STORE means with this log."""
    kafka = settings.kafka
    if settings.log.kind == "spool":
        return (
            "The log is a spool on this machine's disk: what is acknowledged has been synced to it, in one copy, and is "
            "as safe as that disk until a worker has stored it."
        )
    text = (
        f"The log is Apache Kafka: what is acknowledged is held by {kafka.min_insync_replicas} brokers at least, of "
        f"{kafka.replication_factor}."
    )
    return (
        f"{text} This is a single copy: the loss of one broker may lose it."
        if is_single_copy(settings)
        else text
    )
