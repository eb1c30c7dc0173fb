"""The ingest side of the log: ``spool_writer`` keeps it on one machine, ``kafka_producer`` on many.

writer = log_of(settings)                 # a `Log`, and nothing else knows which
await writer.start()                      # recovered or connected; epoch and receiver_id are set
if (why := writer.refusal()): ...         # answer A700H to a new instance
await writer.publish(partition, records.encode_header(...), [payload])   # durable when it returns
await writer.failed                       # nothing can be acknowledged: end the process, the next start recovers
await writer.close()

Storage commitment has a log of its own: ``commitment_log`` says what it is, ``commitment_spool`` and
``commitment_topic`` are its two forms.
"""

from ingest.log.choice import commitment_log_of, log_of
from ingest.log.commitment_log import CommitmentLog
from ingest.log.interface import InstanceLog, Log
from ingest.log.spool_writer import SpoolWriter

__all__ = ["CommitmentLog", "InstanceLog", "Log", "SpoolWriter", "commitment_log_of", "log_of"]
