"""The producer of the instance topic: records go from where they were received to the brokers without a copy.

The way of a record:
    ``partition_queue``  its place among those of its partition, in a ``record_batch``
    ``producer``         which leader it goes to, with which others, and what is tried again
    ``produce``          the request and its response       ``broker``  one connection
"""

from ingest.log.producer.partition_queue import Sent
from ingest.log.producer.producer import Producer

__all__ = ["Producer", "Sent"]
