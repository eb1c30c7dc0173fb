"""Deflated data sets (PS3.5 A.5), inflated within a limit: a few kilobytes may claim to be gigabytes."""

import os
import tempfile
import zlib
from pathlib import Path

from workers.dataset.payload import FilePayload, MemoryPayload, Payload
from workers.errors import Reason, Rejected

IN_MEMORY = 8 * 1024 * 1024  # bytes inflated; beyond it a scratch file takes over
_STEP = 1024 * 1024  # bytes inflated at once
RAW = -15  # RFC 1951 without a zlib header, window of 32 KiB


def inflate(payload: Payload, limit: int, scratch: Path) -> Payload:
    """The data set of a deflated one; a nameless file in ``scratch`` holds it where it is large.

    Raises:
        Rejected: INFLATE, the stream is damaged, or TRUNCATED, it does not end; LIMIT, over ``limit`` bytes.
    """
    inflater = zlib.decompressobj(RAW)
    with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY, dir=str(scratch)) as output:
        position = size = 0
        for block in payload.blocks():
            waiting: bytes | memoryview = block
            while not inflater.eof:
                try:
                    inflated = inflater.decompress(waiting, _STEP)
                except zlib.error:
                    raise Rejected(Reason.INFLATE, position, "the deflated stream is damaged") from None
                size += len(inflated)
                if size > limit:
                    raise Rejected(Reason.LIMIT, position, f"inflates to more than {limit} bytes")
                output.write(inflated)
                waiting = inflater.unconsumed_tail
                if not waiting and len(inflated) < _STEP:
                    break  # a full step may have left output inside the inflater
            position += len(block)
        if not inflater.eof:
            raise Rejected(Reason.TRUNCATED, position, "the deflated stream does not end")
        output.seek(0)
        if size <= IN_MEMORY:
            return MemoryPayload([output.read()])
        return FilePayload(os.dup(output.fileno()), size=size)
