"""Turns: few at once, one of each SOP Instance UID, in order, and the suspect alone."""

import asyncio
import random

import pytest

from workers.turns import Turns


def test_uploads_of_one_uid_go_in_order_and_never_together() -> None:
    """Whatever the others do, the first of a UID stays the first; never more at once than slots."""

    async def scenario(seed: int) -> None:
        rng = random.Random(seed)
        turns = Turns(3)
        finished: dict[str, list[int]] = {}
        busy: set[str] = set()
        working = 0

        async def upload(number: int, uid: str, alone: bool) -> None:
            nonlocal working
            async with turns.of(uid), turns.slot(alone=alone):
                assert uid not in busy
                assert working < 3
                assert not (alone and working)
                busy.add(uid)
                working += 1
                for _ in range(rng.randint(0, 5)):
                    await asyncio.sleep(0)
                    assert not alone or working == 1
                busy.discard(uid)
                working -= 1
                finished.setdefault(uid, []).append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(upload(number, f"1.{rng.randint(0, 4)}", rng.random() < 0.2))
        assert all(numbers == sorted(numbers) for numbers in finished.values())
        assert sum(map(len, finished.values())) == 40

    for seed in range(50):
        asyncio.run(scenario(seed))


def test_a_cancelled_turn_lets_the_next_go() -> None:
    """An upload given up while waiting or working frees its UID and its slots."""

    async def scenario() -> None:
        turns = Turns(1)
        entered = asyncio.Event()

        async def upload(forever: bool) -> None:
            async with turns.of("1.2"), turns.slot(alone=False):
                entered.set()
                if forever:
                    await asyncio.Event().wait()

        first = asyncio.create_task(upload(forever=True))
        second = asyncio.create_task(upload(forever=True))
        third = asyncio.create_task(upload(forever=False))
        await entered.wait()
        second.cancel()
        first.cancel()
        await third
        for task in (first, second):
            with pytest.raises(asyncio.CancelledError):
                await task
        await asyncio.wait_for(upload(forever=False), 60)

    asyncio.run(scenario())


def test_what_has_no_uid_waits_for_nobody() -> None:
    """Damaged uploads without identity are not taken for copies of each other."""

    async def scenario() -> None:
        turns = Turns(2)
        async with turns.of(""), turns.of(""):
            pass

    asyncio.run(scenario())
