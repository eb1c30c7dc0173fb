"""One instance on its way from the association to the log.

Steps that make it durable: fragments are copied into chunks; a full chunk is published as a part; the end
publishes the instance whole, or its last part and the END record with size and seal; the answer is given
when the log has acknowledged every record of it.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import numpy as np
import xxhash

from ingest.association.events import Rows
from ingest.contract.failpoints import Failpoint, reach
from ingest.contract.identifiers import UploadId, partition_of
from ingest.contract.records import HASHED_LOCKED, MAX_PAYLOAD, Instance, Kind, encode_header
from ingest.dimse.status import CANNOT_UNDERSTAND, DATA_SET_DOES_NOT_MATCH_SOP_CLASS, OUT_OF_RESOURCES
from ingest.errors import InstanceTooLong, LogUnavailable, Refused
from ingest.instance.chunks import ChunkPool
from ingest.instance.identity import (
    DEFLATED,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    Absent,
    Identity,
    Incomplete,
    TooManyElements,
    Unreadable,
    read_identity,
)
from ingest.instance.shares import Share

# Parts of one instance with the log at once. Two keep disk and network busy together; four ride out one slow
# sync, and leave most of the budget to other associations.
PARTS_IN_FLIGHT = 4
# What an upload may put aside, outside the byte budget, while it has no chunk: of a data set that has not come to its SOP
# Instance UID, to which honest ones come within a few hundred bytes; and where no chunk is free. Else peers that drip, more
# of them than there are chunks, would take one from another for each few bytes, and a record in the log with it.
PARKED_MAX = 8 * 1024

# Bytes that xxhash hashes without letting go of the interpreter's lock; see `HASHED_LOCKED`.
_KEEPS_LOCK = 64 * 1024

# The head of a record, or what makes it: seal and CRC are then computed in the log's own thread.
Header = bytes | Callable[[], bytes]


class RecordLog(Protocol):
    """What an upload needs of the log."""

    @property
    def partitions(self) -> int:
        """How many partitions the log has."""

    def publish(self, partition: int, header: Header, payload: Sequence[memoryview]) -> asyncio.Future[None]:
        """Append one record, behind those of its partition before it; to be called from the event loop's thread.

        A header that is a function is called once, in the order of the calls. The future is done when the record is
        durable, and only then may ``payload`` be reused. Where a PART is lost, no END of its upload becomes durable.
        It fails with `OutOfResources` where there is no room, with `LogUnavailable` where the log
        cannot tell that it is durable; the log tries neither again.
        """


class Upload:
    """Takes the fragments of one data set; `finish` seals it and reports when it is durable.

    ``instance`` has size 0 and an empty seal; both are filled in at the end. ``resume`` is called when a
    `write` that took less than it was given may be tried again. A data set of more than ``maximum`` bytes is
    refused, at the latest when it is complete; 0 is no limit.
    """

    def __init__(
        self,
        log: RecordLog,
        pool: ChunkPool | Share,
        upload_id: UploadId,
        instance: Instance,
        resume: Callable[[], None],
        *,
        maximum: int = 0,
    ) -> None:
        self._log = log
        self._pool = pool
        self._resume = resume
        self._maximum = maximum
        self.upload_id = upload_id
        self.instance = instance
        self._partition = partition_of(instance.sop_instance_uid, log.partitions)
        self._seal = xxhash.xxh3_128()
        self._chunk: memoryview | None = None
        self._filled = 0
        self._parked = b""
        self._parts = 0
        self._parts_seen = 0  # by `keep_alive`, and when
        self._seen_at = 0.0
        self._outstanding = 0
        self._waiting = False
        self._checked = instance.transfer_syntax_uid == DEFLATED
        self._failure: Exception | None = None
        self._done: Callable[[Exception | None], None] | None = None
        self.size = 0

    @property
    def room(self) -> int:
        """Bytes that go into the chunk at hand, and into the next one where that can be had."""
        if self._failure is not None:
            return sys.maxsize  # of what is drained
        left, ahead = (0, 0) if self._chunk is None else (MAX_PAYLOAD - self._filled, 1)
        return left + MAX_PAYLOAD if self._outstanding + ahead < PARTS_IN_FLIGHT and self._pool.free else left

    def write(self, data: memoryview) -> int:
        """Copy a fragment; the number of bytes taken is less than given when the budget is used up."""
        if self._failure is not None:
            return len(data)  # the rest of a refused data set is drained, and the association goes on
        taken = 0
        while taken < len(data):
            chunk = self._chunk
            if chunk is None:
                if self._park(data[taken:]):
                    taken = len(data)
                    break
                chunk = self._take_chunk()
                if chunk is None:
                    break
            elif self._filled == MAX_PAYLOAD:
                self._publish_part()
                if self._failure is not None:
                    return len(data)
                continue
            count = min(MAX_PAYLOAD - self._filled, len(data) - taken)
            chunk[self._filled : self._filled + count] = data[taken : taken + count]
            self._filled += count
            taken += count
        self.size += taken
        if self._chunk is not None:
            self._pool.used(self)
        return taken

    def write_run(self, rows: Rows) -> int:
        """Copy the rows of a run that fit into the chunk at hand, in one operation."""
        if self._failure is not None:
            return len(rows)
        chunk = self._chunk
        if chunk is None:
            chunk = self._take_chunk()
            if chunk is None:
                return 0
        width: int = rows.shape[1]
        count = min(len(rows), (MAX_PAYLOAD - self._filled) // width)
        size = count * width
        if count:
            target = np.frombuffer(chunk, np.uint8, size, self._filled)
            target.reshape(count, width)[:] = rows[:count]
            self._filled += size
            self.size += size
            self._pool.used(self)
        return count

    def finish(self, done: Callable[[Exception | None], None]) -> None:
        """The data set is complete; ``done`` is called once with ``None`` when it is durable, else why not."""
        self._done = done
        if self._failure is None:
            self._publish_rest()
        self._settle()

    def abandon(self) -> None:
        """The data set will not be completed: nothing of it may appear."""
        self._done = None
        self._fail(Refused(CANNOT_UNDERSTAND, "association ended within the data set"))

    def keep_alive(self, now: float, limit: float) -> None:
        """Publish what is there as a part when the last one is ``limit`` seconds old.

        The log may give an upload up that pauses; a peer that is slow within its limits does not. To be called
        every now and then.
        """
        if self._parts != self._parts_seen:
            self._parts_seen, self._seen_at = self._parts, now
        elif self._parts and now - self._seen_at > limit:
            if self._filled:
                self._publish_part()
            elif self._parked:
                self._publish_parked_part()

    def yield_chunk(self) -> bool:
        """See `chunks.Holder`."""
        if self._chunk is None or not self._filled or self._failure is not None:
            return False
        if not self._checked and not self._identify(self._chunk[: self._filled], final=False):
            if self._filled > PARKED_MAX:
                self._fail(Refused(OUT_OF_RESOURCES, "memory is short"))
                return True
            self._parked = bytes(self._chunk[: self._filled])
            self._drop_chunk()
            return True
        if self._failure is None:
            self._publish_part()
        return True

    def _park(self, data: memoryview) -> bool:
        """Put little aside where no chunk is free; whether it was."""
        if self._pool.free or len(self._parked) + len(data) > PARKED_MAX:
            return False
        self._parked += data
        return True

    def _take_chunk(self) -> memoryview | None:
        chunk = None
        if self._outstanding < PARTS_IN_FLIGHT:
            chunk = self._pool.acquire(self)
            if chunk is None:
                self._pool.wait(self._resume)
        else:
            self._waiting = True
        if chunk is not None:
            self._chunk = chunk
            self._filled = len(self._parked)
            chunk[: self._filled] = self._parked
            self._parked = b""
        return chunk

    def _drop_chunk(self) -> None:
        if self._chunk is not None:
            chunk, self._chunk, self._filled = self._chunk, None, 0
            self._pool.submitted(self)
            self._pool.release(chunk)

    def _publish_part(self) -> None:
        chunk = self._chunk
        assert chunk is not None
        payload = chunk[: self._filled]
        if not self._checked:
            self._identify(payload, final=True)
        self._check_size()
        if self._failure is not None:
            return
        self._parts += 1
        self._append(Kind.PART, self._parts - 1, chunk, payload)
        reach(Failpoint.PART_PUBLISHED)

    def _check_size(self) -> None:
        """Looked at for each part and at the end: what is beyond by then is not yet published whole."""
        if self._failure is None and self._maximum and self.size > self._maximum:
            self._fail(InstanceTooLong(OUT_OF_RESOURCES, f"instance is longer than {self._maximum} bytes"))

    def _publish_rest(self) -> None:
        self._check_size()
        if self._failure is not None:
            return
        if self._chunk is None and self._parked and not self._parts:
            self._publish_parked()
            return
        chunk = self._chunk
        payload = chunk[: self._filled] if chunk is not None else memoryview(b"")
        if not self._checked:
            self._identify(payload, final=True)
        if self._failure is not None:
            return
        if self._parts == 0:
            self._append(Kind.INSTANCE, 1, chunk, payload)
            return
        if self._filled:
            self._publish_part()
        elif self._parked:
            self._publish_parked_part()
        # A log may refuse the last part at once; behind the ABORT that follows, an END would tell workers of a loss.
        if self._failure is None:
            self._append(Kind.END, self._parts, None, memoryview(b""))

    def _publish_parked(self) -> None:
        payload = memoryview(self._parked)
        if not self._checked:
            self._identify(payload, final=True)
        if self._failure is None:
            self._append(Kind.INSTANCE, 1, None, payload)

    def _publish_parked_part(self) -> None:
        payload, self._parked = memoryview(self._parked), b""
        self._parts += 1
        self._append(Kind.PART, self._parts - 1, None, payload)

    def _header(self, kind: Kind, index: int, pieces: Sequence[memoryview]) -> bytes:
        """Take the pieces into the seal, and make the record's head; called in the order of the records."""
        for piece in pieces:
            step = _KEEPS_LOCK if len(piece) <= HASHED_LOCKED else len(piece)
            for start in range(0, len(piece), step):
                self._seal.update(piece[start : start + step])
        return encode_header(
            kind, self.upload_id, index, None if kind is Kind.PART else self._sealed(), pieces
        )

    def _sealed(self) -> Instance:
        """What is known of the instance once all of it is published."""
        known = self.instance
        return Instance(
            known.sop_class_uid,
            known.sop_instance_uid,
            known.transfer_syntax_uid,
            self.size,
            self._seal.digest(),
            known.calling_ae_title,
            known.called_ae_title,
            known.peer_address,
            known.received_at,
            known.unknown_source,
            known.association_id,
        )

    def _append(self, kind: Kind, index: int, chunk: memoryview | None, payload: memoryview) -> None:
        if chunk is not None:
            self._chunk, self._filled = None, 0
            self._pool.submitted(self, len(payload))
        pieces = (payload,) if len(payload) else ()
        self._outstanding += 1
        future = self._log.publish(self._partition, partial(self._header, kind, index, pieces), pieces)
        if future.done():  # a turn of the event loop would do no more than delay the answer
            self._acknowledged(chunk, future)
        else:
            future.add_done_callback(partial(self._acknowledged, chunk))

    def _acknowledged(self, chunk: memoryview | None, future: asyncio.Future[None]) -> None:
        self._outstanding -= 1
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is not None and self._failure is None:
            self._fail(error if isinstance(error, Exception) else LogUnavailable("the log was closed"))
        if chunk is not None:
            self._pool.release(chunk)
        if self._waiting:
            self._waiting = False
            self._resume()
        self._settle()

    def _settle(self) -> None:
        if self._done is not None and (self._outstanding == 0 or self._failure is not None):
            done, self._done = self._done, None
            done(self._failure)

    def _fail(self, failure: Exception) -> None:
        self._failure = failure
        self._parked = b""
        self._drop_chunk()
        if self._pool.forget(self._resume):
            self._resume()  # what is left is drained, and needs no chunk
        if self._parts:
            # Best effort: without it the parts stay dead weight until the next epoch, never an instance.
            future = self._log.publish(self._partition, encode_header(Kind.ABORT, self.upload_id), ())
            future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _identify(self, head: memoryview, *, final: bool) -> bool:
        """Check the data set against its command; ``False`` when more bytes are needed to do so."""
        try:
            self._compare(read_identity(head, self.instance.transfer_syntax_uid))
        except Incomplete as incomplete:
            if not final:
                return False
            if isinstance(incomplete, Absent):
                self._compare(Identity(None, None))
            else:
                self._fail(Refused(CANNOT_UNDERSTAND, "data set ends before SOP Instance UID"))
        except Unreadable:
            self._fail(Refused(CANNOT_UNDERSTAND, "data set is not in its transfer syntax"))
        except TooManyElements:
            self._fail(Refused(CANNOT_UNDERSTAND, "too many elements before SOP Instance UID"))
        self._checked = True
        return True

    def _compare(self, identity: Identity) -> None:
        if identity.sop_instance_uid is None:
            self._fail(
                Refused(
                    DATA_SET_DOES_NOT_MATCH_SOP_CLASS, "data set has no SOP Instance UID", SOP_INSTANCE_UID
                )
            )
        elif identity.sop_instance_uid != self.instance.sop_instance_uid:
            self._fail(
                Refused(
                    DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
                    "SOP Instance UID differs from the command",
                    SOP_INSTANCE_UID,
                )
            )
        elif identity.sop_class_uid not in (None, self.instance.sop_class_uid):
            self._fail(
                Refused(
                    DATA_SET_DOES_NOT_MATCH_SOP_CLASS, "SOP Class UID differs from the command", SOP_CLASS_UID
                )
            )
