"""What is found of an instance that is in a lane, was, or made way: whom a conflict or a rejection concerns, and when it ends."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.contract.commitments import Finding, Policy
from ingest.contract.records import Place
from tests.support.asynchronous import asynchronous
from tests.support.bad_place import BadPlace
from tests.support.proving import A2, KEY, UID, A, B, C, archive
from workers.errors import Unavailable
from workers.storage.layout import Area, conflict_key


@asynchronous
async def test_what_was_set_aside_stays_damaged_until_it_is_repaired(tmp_path: Path, url: str) -> None:
    """Asked again after a crash, or later, the answer is the same; the next good copy is proved for everybody."""
    async with archive(tmp_path, url) as one:
        await one.receive(A)
        one.flip()
        assert await one.find(A) is Finding.DAMAGED
        assert await one.find(A) is Finding.DAMAGED
        assert await one.find(B) is Finding.ABSENT, "B may still send it"
        assert (await one.receive(B)).reason == "repaired"
        for ae_title in (A, B, C):
            assert await one.find(ae_title) is Finding.PROVED


@asynchronous
async def test_an_object_whose_head_is_gone_may_be_anybodys(tmp_path: Path, url: str) -> None:
    """Set aside from the store, it is damage for whoever asks, and no entry of a lane once it is repaired."""
    async with archive(tmp_path, url) as one:
        await one.receive(A)
        one.flip(300)
        assert await one.find(A) is Finding.DAMAGED
        assert await one.find(B) is Finding.DAMAGED
        await one.receive(A)
        assert await one.find(A) is Finding.PROVED
        assert await one.find(B) is Finding.SET_APART, "what was lost may have been B's, and other content"


@asynchronous
async def test_an_object_whose_head_cannot_be_read_is_no_endless_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad place of the disk is damage, before and after it is set aside."""
    async with archive(tmp_path) as one:
        await one.receive(A)
        BadPlace(tmp_path / "store" / str(KEY), 0, monkeypatch)
        assert await one.find(A) is Finding.DAMAGED
        assert await one.find(A) is Finding.DAMAGED
        assert (await one.receive(A)).reason == "repaired"
        assert await one.find(A) is Finding.PROVED


@asynchronous
async def test_other_content_in_the_place_of_what_was_damaged(tmp_path: Path, url: str) -> None:
    """A's is lost to damage, and B's takes the key without a conflict: A is not told that A's is safe."""
    async with archive(tmp_path, url) as one:
        await one.receive(A, b"ID 1")
        one.flip()
        assert await one.find(A) is Finding.DAMAGED
        assert (await one.receive(B, b"ID 2")).reason == "repaired"
        assert await one.find(A) is Finding.SET_APART
        assert await one.find(B) is Finding.PROVED


@asynchronous
async def test_a_conflict_is_told_to_those_whom_it_concerns(tmp_path: Path, url: str) -> None:
    """A's is stored, B's in the lane: A is safe, B is not, and C, who sent neither, cannot know which is meant."""
    async with archive(tmp_path, url) as one:
        await one.receive(A, b"ID 1")
        assert (await one.receive(B, b"ID 2")).place is Place.CONFLICT
        assert await one.find(A) is Finding.PROVED
        assert await one.find(B) is Finding.SET_APART
        assert await one.find(C) is Finding.SET_APART
        assert await one.find(A, ae_titles=[B]) is Finding.SET_APART, "both are of one source"
        assert (await one.receive(C, b"ID 2")).place is Place.CONFLICT  # a repeat of B's
        assert await one.find(C) is Finding.SET_APART
        assert await one.find(A) is Finding.PROVED
        await one.resolved(b"ID 2")
        for ae_title in (A, B, C):
            assert await one.find(ae_title) is Finding.PROVED
        assert len(await one.keys(Area.CONFLICTS)) == 1, "A's is kept, and decided about"


@asynchronous
async def test_content_that_made_way_must_be_whole_for_its_source(tmp_path: Path, url: str) -> None:
    """A lost the conflict and may delete its copy: only while ours, in the lane, is proved. B's never was there."""
    async with archive(tmp_path, url) as one:
        await one.receive(A, b"ID 1")
        await one.receive(B, b"ID 2")
        await one.resolved(b"ID 2")
        assert await one.find(A) is Finding.PROVED
        one.flip(-10, conflict_key(UID, one.digest(b"ID 1")))
        assert await one.find(B) is Finding.PROVED
        assert await one.find(A, Policy.MANIFEST) is Finding.PROVED, "which sees no flipped bits"
        assert await one.find(A) is Finding.DAMAGED
        assert not await one.keys(Area.CONFLICTS), "set aside"
        assert await one.find(A) is Finding.SET_APART
        assert await one.find(B) is Finding.PROVED


@asynchronous
async def test_what_was_discarded_is_no_question_any_more(tmp_path: Path, url: str) -> None:
    """An administrator gave it up: it is absent, and once another copy is stored, that is what is under the UID."""
    async with archive(tmp_path, url) as one:
        await one.quarantined(A)
        assert await one.find(A) is Finding.SET_APART
        await one.discarded()
        assert await one.find(A) is Finding.ABSENT
        await one.receive(B, b"ID 2")
        assert await one.find(A) is Finding.PROVED
        await one.quarantined(A)
        assert await one.find(A) is Finding.SET_APART, "one more, of which nobody has decided"


@asynchronous
async def test_a_source_in_conflict_with_itself(tmp_path: Path, url: str) -> None:
    """A technologist corrected the patient and sent the same UIDs again, under another AE title of the console."""
    async with archive(tmp_path, url) as one:
        await one.receive(A, b"ID 1")
        await one.receive(A2, b"ID 2")
        assert await one.find(A, ae_titles=[A2]) is Finding.SET_APART
        assert await one.find(A2, ae_titles=[A]) is Finding.SET_APART
        await one.resolved(b"ID 2")
        assert await one.find(A, ae_titles=[A2]) is Finding.PROVED


@asynchronous
async def test_an_interrupted_resolution_says_nothing_too_early(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the key has B's content B is not safe, whatever is recorded; as soon as it has, B is."""
    async with archive(tmp_path, url) as one:
        await one.receive(A, b"ID 1")
        await one.receive(B, b"ID 2")
        store = one.stores.of(KEY)
        for name, expected in (("replace", Finding.SET_APART), ("remove", Finding.PROVED)):
            original = getattr(store, name)

            async def fails(key: object, *rest: object, original: Callable[..., object] = original) -> None:
                if key in (KEY, conflict_key(UID, one.digest(b"ID 2"))):
                    raise Unavailable("stopped", 0)
                await original(key, *rest)  # type: ignore[misc] # it is async

            with monkeypatch.context() as patch:
                patch.setattr(store, name, fails)
                with pytest.raises(Unavailable):
                    await one.resolved(b"ID 2")
            assert await one.find(B) is expected


@asynchronous
async def test_what_is_in_quarantine_is_not_committed_to_its_source(tmp_path: Path, url: str) -> None:
    """Until it is replayed; to others it is simply not there."""
    async with archive(tmp_path, url) as one:
        await one.quarantined(A)
        assert await one.find(A) is Finding.SET_APART
        assert await one.find(A2, ae_titles=[A]) is Finding.SET_APART
        assert await one.find(B) is Finding.ABSENT
        await one.quarantined(B)  # the same bytes: a repeat
        assert await one.find(B) is Finding.SET_APART
        assert await one.replayed() is Place.STORED
        assert not await one.keys(Area.QUARANTINE)
        assert await one.find(A) is Finding.PROVED
        assert await one.find(B) is Finding.PROVED


@asynchronous
async def test_a_replay_that_has_yet_to_remove_the_entry_is_over(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the new place and the removal, the entry says nothing any more, nor do its repeats."""
    async with archive(tmp_path, url) as one:
        await one.quarantined(A)
        await one.quarantined(B)

        async def stopped(key: object) -> None:
            raise Unavailable("stopped", 0)

        with monkeypatch.context() as patch:
            patch.setattr(one.stores.of(KEY), "remove", stopped)
            with pytest.raises(Unavailable):
                await one.replayed()
        assert len(await one.keys(Area.QUARANTINE)) == 2
        assert await one.find(A) is Finding.PROVED
        assert await one.find(B) is Finding.PROVED


@asynchronous
async def test_beside_a_good_object_anothers_rejected_copy_does_not_count(tmp_path: Path, url: str) -> None:
    """A's is stored; what B sent under the same UID could not be read: B is told so, and A is safe."""
    async with archive(tmp_path, url) as one:
        await one.receive(A, b"ID 1")
        await one.quarantined(B, b"ID 2")
        assert await one.find(A) is Finding.PROVED
        assert await one.find(B) is Finding.SET_APART
        assert await one.find(C) is Finding.SET_APART


@pytest.mark.parametrize("part", ["entry", "repeat"])
@asynchronous
async def test_what_nobody_can_read_any_more_may_be_anybodys(tmp_path: Path, url: str, part: str) -> None:
    """A success for the wrong one is worse than a failure that an administrator must look at."""
    async with archive(tmp_path, url) as one:
        await one.receive(A, b"ID 1")
        await one.receive(B, b"ID 2")
        await one.receive(C, b"ID 2")
        key = conflict_key(UID, one.digest(b"ID 2"))
        if part == "repeat":
            key = next(found for found in await one.keys(Area.CONFLICTS) if found != key)
        one.write(b"no longer what it was", key)
        assert await one.find(A) is Finding.SET_APART


@asynchronous
async def test_a_damaged_entry_that_was_set_aside_still_waits(tmp_path: Path, url: str) -> None:
    """What B sent was in the lane, and rotted there: it is in quarantine now, and B is not told that it is safe."""
    async with archive(tmp_path, url) as one:
        await one.receive(A, b"ID 1")
        await one.receive(B, b"ID 2")
        one.flip(-10, conflict_key(UID, one.digest(b"ID 2")))
        one.write(
            one.content(conflict_key(UID, one.digest(b"ID 2")))[:-1], conflict_key(UID, one.digest(b"ID 2"))
        )
        assert (await one.receive(B, b"ID 2")).place is Place.CONFLICT  # which sets the first aside
        for key in await one.keys(Area.CONFLICTS):
            one.delete(key)
        assert await one.find(B) is Finding.SET_APART
        assert await one.find(A) is Finding.PROVED
