"""What a worker holds is counted as uploads come, are put by, and go; the budget is judged by these counts."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from ingest.contract.identifiers import UploadId
from workers.dataset.payload import MemoryPayload
from workers.log.scratch import ScratchPayload
from workers.log.upload import Upload, unknown
from workers.unsettled import Unsettled

if TYPE_CHECKING:
    from workers.partition import OwnedPartition

OWNER = cast("OwnedPartition", None)  # nothing here asks it
SIZE = 100


def upload(number: int, *, file: bool = False) -> Upload:
    payload = ScratchPayload("name", Path("/nowhere"), SIZE) if file else MemoryPayload([bytes(SIZE)])
    return Upload(
        upload_id=UploadId(number.to_bytes(UploadId.SIZE, "big")),
        partition=0,
        instance=unknown(SIZE),
        payload=payload,
        first_position=0,
        end_position=1,
        file=payload if isinstance(payload, ScratchPayload) else None,
    )


def is_full(unsettled: Unsettled, *, memory: int = SIZE, files: int = 1) -> bool:
    return unsettled.are_full(memory=memory, waiting=9, files=files)


@pytest.mark.parametrize("file", [False, True])
@pytest.mark.parametrize("put_by", [False, True])
def test_what_has_gone_or_is_put_by_takes_no_room(*, file: bool, put_by: bool) -> None:
    async def scenario() -> None:
        unsettled = Unsettled(asyncio.Event())
        end = asyncio.Event()
        task = asyncio.create_task(end.wait())
        unsettled.begin(task, upload(1, file=file), OWNER)
        assert is_full(unsettled)
        assert not is_full(unsettled, memory=SIZE + 1, files=2)
        if put_by:
            unsettled.put_by(task)
            assert not is_full(unsettled)
        end.set()
        await task
        await asyncio.sleep(0)
        assert not is_full(unsettled, memory=1)
        # Nothing is held, and not less than nothing.
        assert is_full(unsettled, memory=0)
        assert is_full(unsettled, files=0)

    asyncio.run(scenario())


def test_several_share_the_room() -> None:
    async def scenario() -> None:
        unsettled = Unsettled(asyncio.Event())
        end = asyncio.Event()
        tasks = [asyncio.create_task(end.wait()) for _ in range(3)]
        for number, task in enumerate(tasks):
            assert not is_full(unsettled, memory=3 * SIZE)
            unsettled.begin(task, upload(number), OWNER)
        assert is_full(unsettled, memory=3 * SIZE)
        end.set()
        await asyncio.wait(tasks)

    asyncio.run(scenario())
