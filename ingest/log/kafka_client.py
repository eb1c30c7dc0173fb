"""kafka-python's producer, for topics of few and small records: made, and let go of.

kafka-python 3.0.12 blocks or waits without regard to deadlines while it looks for its brokers, and once a batch that it had
retried has expired it never sends anything again (it drops its producer id and asks for no other). So one that has lost a
record is let go, and another is opened. Instances go by a `producer` of our own.
"""

import contextlib
from typing import Final

from kafka import KafkaProducer
from kafka.errors import KafkaError

from ingest.contract.kafka import MAXIMUM_MESSAGE, KafkaUnreachable, client_options
from ingest.contract.kafka_selector import QuickSelector
from ingest.contract.settings import KafkaSettings

# For commitments any would do; the benchmarks' bare client, which sends instances by these options, is to be at its best.
# A request carries a batch of each partition, and a batch as many records as the topic takes at once: a record that
# finds no room is copied in vain, and brokers cost less for each byte of a larger batch.
_BATCH: Final = MAXIMUM_MESSAGE - 4096
_REQUEST: Final = 4 * MAXIMUM_MESSAGE
_IN_FLIGHT: Final = 5  # the most that idempotence allows
_REQUEST_TIMEOUT: Final = 10.0  # s; at most half of the delivery timeout, so that another broker can be asked
_LONGEST_SEND: Final = 1.0  # s; `send` waits for nothing but the metadata of a topic that has vanished


def open_producer(settings: KafkaSettings, timeout: float) -> KafkaProducer:
    """A producer of ours that has found a broker within ``timeout`` seconds; `end_producer` ends it. Blocks.

    Raises:
        KafkaUnreachable: no broker answers, or none lets us in.
    """
    bootstrap = int(timeout * 1000)
    try:
        return KafkaProducer(
            **producer_options(settings), bootstrap_timeout_ms=bootstrap, metrics_enabled=False
        )
    except KafkaError as error:
        raise KafkaUnreachable(settings, error) from None


def end_producer(producer: KafkaProducer, patience: float) -> None:
    """Let go of the brokers in about ``patience`` seconds; what they have not acknowledged by now fails. Blocks.

    `close` alone waits for all that was sent, and while a batch is lost may never end.
    """
    producer._sender.force_close()  # noqa: SLF001 - there is no other way
    with contextlib.suppress(KafkaError):
        producer.close(patience)
    producer._closed = True  # noqa: SLF001 - else its destructor waits for them once more, wherever it runs, and raises


def producer_options(settings: KafkaSettings) -> dict[str, object]:
    """A producer's keywords: every replica in sync acknowledges, no record twice, batches of our records' size."""
    timeout = min(_REQUEST_TIMEOUT, settings.delivery_timeout / 2 - settings.linger)
    return client_options(settings) | {
        "acks": "all",
        "enable_idempotence": True,  # said, so that a setting against it is refused and not obeyed
        "max_in_flight_requests_per_connection": _IN_FLIGHT,
        "max_request_size": _REQUEST,
        "batch_size": _BATCH,
        "linger_ms": settings.linger * 1000,
        "request_timeout_ms": int(timeout * 1000),
        "delivery_timeout_ms": int(settings.delivery_timeout * 1000),
        "max_block_ms": int(_LONGEST_SEND * 1000),
        "allow_auto_create_topics": False,
        "selector": QuickSelector,
    }
