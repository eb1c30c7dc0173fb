"""Move records: an upload is no longer where its worker counted it.

``moves/SSS/<upload id>.json`` says from which place to which. Counters in checkpoints never change after the
fact; the account is their sum and the moves. A worker that replays an upload after a crash and finds a move
for it counts it where it was before the move.
"""

import time
from typing import Final

import msgspec

from ingest.contract.records import Place
from workers.errors import Unavailable
from workers.storage.layout import Key, move_key
from workers.storage.object_store import ObjectStore

_MAXIMUM: Final = 64 * 1024  # bytes; a record has under 1 KiB
_KEPT: Final = 32  # earlier moves of one upload that its record remembers
_TEXT: Final = 512  # characters of an administrator's reason
_DAMAGED_RECORD: Final = 60.0  # seconds until the next look; an administrator must mend it


class Step(msgspec.Struct, frozen=True):
    """One move of an upload."""

    place: Place  # where it went
    key: str  # where it is there, or was if it was discarded
    reason: str
    at: int  # nanoseconds since 1970-01-01 UTC


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """Where an upload was counted, and where it is now."""

    upload_id: str  # 32 hex digits
    source: Place = msgspec.field(name="from")
    target: Place = msgspec.field(name="to")
    key: str
    reason: str
    at: int  # nanoseconds since 1970-01-01 UTC
    earlier: tuple[Step, ...] = ()


async def find_move(store: ObjectStore, shard: str, upload_id: bytes) -> Move | None:
    """The move of an upload, if there is one.

    Raises:
        Unavailable: the store, or the record is damaged: only an administrator can decide what follows.
    """
    start = await store.start(move_key(shard, upload_id), _MAXIMUM)
    if start is None:
        return None
    try:
        return msgspec.json.decode(start.data, type=Move)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Unavailable(
            f"the move record of upload {upload_id.hex()} is damaged", _DAMAGED_RECORD
        ) from None


async def record_move(
    store: ObjectStore, upload_id: bytes, places: tuple[Place, Place], key: Key, reason: str
) -> None:
    """Record, durably, that an upload goes from the first of ``places`` to the second; once more changes nothing.

    ``key``: where it will be, or was if it is discarded. The caller holds the lock of the shard.

    Raises:
        Unavailable: the store.
    """
    shard = key.shard
    source, target = places
    before = await find_move(store, shard, upload_id)
    earlier: tuple[Step, ...] = ()
    now = time.time_ns()
    if before is not None:
        if (before.target, before.key) == (target, str(key)):
            return
        source = before.source
        earlier = (*before.earlier, Step(before.target, before.key, before.reason, before.at))[-_KEPT:]
        # The ledger takes the later one, and the machine that recorded the one before may have a clock ahead.
        now = max(now, before.at + 1)
    move = Move(
        upload_id=upload_id.hex(),
        source=source,
        target=target,
        key=str(key),
        reason=reason[:_TEXT],
        at=now,
        earlier=earlier,
    )
    await store.replace(move_key(shard, upload_id), [msgspec.json.encode(move) + b"\n"])
