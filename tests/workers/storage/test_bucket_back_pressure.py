"""What waits for one store is bounded, and a store that does not answer is left alone for a while."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from tests.support.buckets import MiB, opened_bucket, store_settings
from workers.errors import Unavailable
from workers.storage.back_pressure import ByteBudget, Rest
from workers.storage.bucket import Silent
from workers.storage.layout import object_key


def failing(error: Exception, rest: Rest) -> None:
    with rest.trial():
        raise error


def test_bytes_on_their_way_are_bounded() -> None:
    """Whoever finds no room waits, and gives up in time."""
    budget = ByteBudget(10, 0.1)
    with budget.taken(8) as share:
        with pytest.raises(Unavailable, match="too many bytes"), budget.taken(3):
            pass
        share.shrink(4)
        with budget.taken(6):
            pass
    with budget.taken(10):
        pass


def test_room_that_comes_free_is_taken() -> None:
    """By one that waits for it."""
    budget = ByteBudget(10, 30)
    entered = threading.Event()

    def wait() -> None:
        with budget.taken(5):
            entered.set()

    with budget.taken(8):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not entered.wait(0.1)
    assert entered.wait(60)
    thread.join()


def test_a_silent_store_is_left_alone_and_tried_by_one() -> None:
    """All others are told at once; one answer brings everything back."""
    rest = Rest()
    with pytest.raises(Silent):
        failing(Silent("silence", 60.0), rest)
    with pytest.raises(Unavailable, match="left alone"), rest.trial():
        pass
    rest._until = 0.0
    with rest.trial(), pytest.raises(Unavailable, match="left alone"), rest.trial():
        pass
    with rest.trial(), rest.trial():
        pass


def test_rests_grow_and_refusals_that_are_answers_do_not_count() -> None:
    """A lane that another holds, or a budget that is full, says nothing of the store."""
    rest = Rest()
    with pytest.raises(Unavailable):
        failing(Unavailable("another works in the lane", 2.0), rest)
    with rest.trial():
        pass
    for _ in range(8):
        with pytest.raises(Silent):
            failing(Silent("silence", 0.1), rest)
        rest._until = 0.0
    assert rest._length == pytest.approx(12.8)


@pytest.mark.real
def test_a_reader_slower_than_the_store_holds_only_its_share(minio_url: str) -> None:
    """Two uploads that never end take their bytes, and a third still gets through."""
    settings = store_settings(
        bytes_in_flight=16 * MiB, single_put_limit=4 * MiB, part_size=5 * MiB, retry_timeout=5.0
    )
    stop = threading.Event()

    def endless() -> Iterator[bytes]:
        yield b"begun"
        stop.wait(120)
        raise OSError(5, "Input/output error")

    async def scenario() -> None:
        with opened_bucket(minio_url, settings) as store:
            slow = [
                asyncio.create_task(store.put_new(object_key(f"1.2.{number}"), endless()))
                for number in (1, 2)
            ]
            await asyncio.sleep(0.2)
            assert await store.put_new(object_key("1.2.3"), [b"x"])
            stop.set()
            for result in await asyncio.gather(*slow, return_exceptions=True):
                assert isinstance(result, Unavailable)
                assert not isinstance(result, Silent)

    asyncio.run(scenario())
