"""The ingest side of the log: ``spool_writer`` keeps it on one machine, ``kafka_writer`` on many.

::

    writer = log_of(settings)                 # a `Log`, and nothing else knows which
    await writer.start()                      # recovered or connected; epoch and receiver_id are set
    if (why := writer.refusal()): ...         # answer A700H to a new instance
    await writer.publish(partition, records.encode_header(...), [payload])   # durable when it returns
    await writer.failed                       # nothing can be acknowledged: end the process, the next start recovers
    await writer.close()

``interface``    what a log is; ``choice``, which one runs    ``epoch``  the number of a start
``spool_writer`` with ``segment_supply``, which has the next segment ready, and ``partitions``, their number
``kafka_writer`` over the ``producer`` of ``contract``, which sends records from where they are
``measures``     what metrics read: ``spool_backlog`` by the workers' ``marks``, ``kafka_backlog``, ``kafka_retention``

Storage commitment has a log of its own: ``commitment_log`` says what it is. On one machine it is ``commitment_spool``,
read through ``commitment_segments``, with ``commitment_handover``, what workers and administrators leave for it. On many
it is ``commitment_topic``, read by ``commitment_reader``, where ``commitment_claimant`` tells receivers apart.
"""

from ingest.log.choice import commitment_log_of, log_of
from ingest.log.commitment_log import CommitmentLog
from ingest.log.interface import InstanceLog, Log
from ingest.log.spool_writer import SpoolWriter

__all__ = ["CommitmentLog", "InstanceLog", "Log", "SpoolWriter", "commitment_log_of", "log_of"]
