"""The client of a topic: one at a time, and none left behind."""

import asyncio
import threading
from typing import Any

import pytest

from ingest.contract.settings import KafkaSettings
from tests.support.asynchronous import asynchronous, until
from workers.log import topic_producer
from workers.log.topic_producer import Outgoing, TopicProducer


@asynchronous
async def test_a_client_that_nobody_waits_for_any_more_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a partition goes while its proof waits for brokers: each client has a thread and connections."""
    answers = threading.Event()
    opened: list[Any] = []
    closed: list[Any] = []

    class Client:
        """What kafka-python's does is not the question here."""

        def __init__(self, **_: Any) -> None:
            opened.append(self)
            answers.wait(60)

        def partitions_for(self, _: str) -> None:
            """Known."""

    monkeypatch.setattr(topic_producer, "KafkaProducer", Client)
    monkeypatch.setattr(topic_producer, "_close", closed.append)
    producer = TopicProducer(KafkaSettings(), "topic", "topic")
    sending = asyncio.create_task(producer.send([Outgoing(0, b"")]))
    await until(lambda: opened)
    sending.cancel()
    await asyncio.wait({sending})
    answers.set()
    async with asyncio.timeout(5):
        await until(lambda: closed == opened)
