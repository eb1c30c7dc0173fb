"""What sends records to a topic of Kafka, in the event loop, from where they are, without a copy.

The way of a record:
    ``topic_producer``   waits for a few and small ones; the receiver's log, which has instances, goes without
    ``partition_queue``  its place among those of its partition, in a ``record_batch``
    ``producer``         which leader it goes to, with which others, and what is tried again
    ``produce``          the request and its response       ``broker``  one connection
"""

from ingest.contract.producer.partition_queue import Sent
from ingest.contract.producer.producer import Producer
from ingest.contract.producer.topic_producer import Outgoing, TopicProducer

__all__ = ["Outgoing", "Producer", "Sent", "TopicProducer"]
