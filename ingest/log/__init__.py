"""The ingest side of the log; ``spool_writer`` keeps it on one machine.

writer = SpoolWriter(settings)            # an `ingest.receiver.storage.InstanceLog`
await writer.start()                      # recovered; epoch and receiver_id are set
if (why := writer.refusal()): ...         # answer A700H to a new instance
await writer.publish(partition, records.encode_header(...), [payload])   # durable when it returns
await writer.failed                       # a sync failed: end the process, the next start recovers
await writer.close()
"""

from ingest.log.spool_writer import SpoolWriter

__all__ = ["SpoolWriter"]
