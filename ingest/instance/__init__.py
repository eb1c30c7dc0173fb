"""One C-STORE becomes one sealed instance: checked against its command, cut into records, published.

``identity``  reads of a data set only as far as (0008,0018)
``chunks``    the process-wide byte budget: the buffers that fragments are copied into, once
``shares``    which source gets the next chunk where several want one
``upload``    one instance on its way: fragments in, records out, one answer when all are durable
"""

from ingest.instance.chunks import ChunkPool, joined
from ingest.instance.shares import Share, Shares
from ingest.instance.upload import Header, RecordLog, Upload

__all__ = ["ChunkPool", "Header", "RecordLog", "Share", "Shares", "Upload", "joined"]
