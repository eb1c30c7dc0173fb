"""Prove: what a storage commitment (PS3.4 Annex J) may say of an instance; a success from proof alone.

A source deletes its only copy when it is told "committed", so each finding comes from the stores as they answer
now, in this order:

    1. the lanes   an unresolved entry of the UID: what the requester sent may not be what is stored;
                   content of the requester's that made way in a resolution: proved as what is stored is
    2. the object  there, of the class that was named, and proved as the policy wants
    3. absence     only where the one store that has the shard answers twice that nothing is there

The lanes come first: a conflict that is resolved, or a quarantined instance that is replayed, meanwhile leaves them
only after the object is in place. Once an administrator has decided (`conflicts resolve`, `quarantine replay`,
`quarantine discard`), the question is for everybody about what is stored under the UID. By the shard map a key is in
one store: whoever changes the map is alone (see `stores`), and an interrupted change lets nobody in.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Container, Coroutine, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import structlog

from ingest.contract.commitments import CommitAsked, Finding, Found, Policy, Reference
from ingest.contract.records import Place
from ingest.contract.settings import Settings
from ingest.contract.store_urls import StoreUrl
from workers.errors import Unavailable
from workers.storage.damage import (
    Damaged,
    check_blocks,
    find_checked_object,
    find_object,
    prove_object,
    set_aside_if_damaged,
)
from workers.storage.layout import Area, Key, object_key, shard_of
from workers.storage.manifest import Manifest
from workers.storage.object_store import ObjectStore
from workers.storage.shard_map import WrongStores
from workers.storage.stores import Stores
from workers.storage.unresolved import Claim, Unresolved, filled_lanes, unresolved

_TRIES: Final = 3  # only repairs and administrators' commands move objects beside us
_NOTHING: Final = Unresolved()

T = TypeVar("T")

logger = structlog.get_logger(__name__)


def refuse_unprovable(settings: Settings) -> None:
    """Refuse a policy that a store here can never serve, of whatever make it is; others are tried when opened.

    A folder keeps no checksum. Of buckets only those of S3 keep the SHA-256 that they checked at the PUT.

    Raises:
        WrongStores: the default or a source asks for `checksum`.
    """
    if not (keys := _wanting_checksums(settings)):
        return
    for place in settings.store_locations:
        if not isinstance(place, StoreUrl) or place.scheme != "s3" or settings.store.checksum != "sha256":
            sent = " as store.checksum is not sha256" if settings.store.checksum != "sha256" else ""
            raise WrongStores(
                f"{place} returns no SHA-256 that it checked itself{sent}, so {' and '.join(keys)} cannot be "
                "checksum: take read, which is stronger, or manifest, which sees neither flipped bits nor rot"
            )


def wants_checksums(settings: Settings) -> bool:
    """Whether a policy that is in force asks for the SHA-256 that stores checked themselves."""
    return bool(_wanting_checksums(settings))


def _wanting_checksums(settings: Settings) -> list[str]:
    """The settings that ask for it."""
    if not settings.commitment.enabled:
        return []
    wanted = {f"sources.{name}.proof": source.proof for name, source in settings.sources.items()}
    wanted["commitment.proof"] = settings.commitment.proof
    return sorted(key for key, proof in wanted.items() if proof == Policy.CHECKSUM.value)


class Prover:
    """Finds out what became of instances; ``at_once`` objects are looked at at a time, whoever asks.

    Most are there, and nothing in a lane speaks against them: these are read back first, many in a row. Each of the
    others is a question of its own.
    """

    def __init__(self, stores: Stores, at_once: int) -> None:
        self._stores = stores
        self._at_once = at_once
        self._slots = asyncio.Semaphore(at_once)

    async def prove(self, asked: CommitAsked, references: Sequence[Reference]) -> list[Found]:
        """One finding for each reference, in their order; what cannot be found out now is `UNAVAILABLE`."""
        stores = [self._stores.of(shard_of(reference.sop_instance_uid)) for reference in references]
        lanes = await filled_lanes(stores)
        questions = [_Question(asked, reference, lanes) for reference in references]
        sound = await self._sound(questions) if asked.policy is Policy.READ else {}
        findings: list[Finding] = [Finding.UNAVAILABLE] * len(references)
        numbered = iter(enumerate(questions))

        async def work() -> None:
            for number, question in numbered:
                manifest = sound.get(question.key)
                if manifest is not None:
                    findings[number] = question.proved(manifest)
                    continue
                async with self._slots:
                    findings[number] = await self._finding(question)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._at_once, len(references))):
                group.create_task(work())
        return [
            Found(reference.sop_class_uid, reference.sop_instance_uid, finding)
            for reference, finding in zip(references, findings, strict=True)
        ]

    async def _sound(self, questions: "Sequence[_Question]") -> dict[Key, Manifest]:
        """The manifests of those that are proved by reading them back and are durable; of the others nothing."""
        by_store: dict[str, dict[Key, None]] = {}
        for question in questions:
            store = self._stores.of(question.key)
            if not question.may_wait(store):
                by_store.setdefault(store.name, {})[question.key] = None
        found = await asyncio.gather(
            *(self._sound_in(self._stores.named(name), deque(keys)) for name, keys in by_store.items())
        )
        return {key: manifest for manifests in found for key, manifest in manifests.items()}

    async def _sound_in(self, store: ObjectStore, keys: deque[Key]) -> Mapping[Key, Manifest]:
        sound: dict[Key, Manifest] = {}

        def look(key: Key, size: int, blocks: Iterator[memoryview]) -> None:
            with contextlib.suppress(Damaged):  # which is looked at again, under the lock
                sound[key] = check_blocks(key, size, blocks).manifest

        async def work() -> None:
            try:
                while keys:
                    async with self._slots:
                        await store.read_back(keys, look)
            except Unavailable:
                keys.clear()  # each of them is asked about again, and says why
            except Exception:
                # A defect of ours; see `_finding`.
                keys.clear()
                logger.exception("proof failed")

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._at_once, len(keys))):
                group.create_task(work())
        try:
            async with self._slots:
                await store.sync()  # whoever stored the last of them may have died before its own
        except Unavailable:
            return {}
        return sound

    async def _finding(self, question: "_Question") -> Finding:
        try:
            store = self._stores.of(question.key)
            for _ in range(_TRIES):
                finding = await question.look(store)
                if finding is not None:
                    return finding
        except Unavailable as error:
            logger.warning("proof put off", reason=str(error))
        except Exception:
            # A defect of ours. If it ended the process, the next would meet the same question, and the next:
            # so this one instance is not committed, and all else goes on.
            logger.exception("proof failed", sop_instance_uid=question.uid)
        return Finding.UNAVAILABLE


class _Question:
    """One instance that is asked about."""

    def __init__(self, asked: CommitAsked, reference: Reference, lanes: Mapping[str, Container[str]]) -> None:
        """``lanes``: from `filled_lanes`."""
        self.uid = reference.sop_instance_uid
        self.key = object_key(self.uid)
        self._class = reference.sop_class_uid
        self._policy = asked.policy
        self._mine = frozenset(asked.ae_titles)
        self._lanes = lanes

    async def look(self, store: ObjectStore) -> Finding | None:
        """A finding; None where something else had the key by the time that it was reached.

        Raises:
            Unavailable: the store.
        """
        waiting = await self._waiting(store)
        try:
            current = await find_object(store, self.key) if waiting != _NOTHING else None
            stored = None if current is None else current.manifest
            if self._is_apart(waiting, stored):
                logger.warning("commitment refused: set apart", sop_instance_uid=self.uid)
                return Finding.SET_APART
            for kept in waiting.made_way:
                if kept.claim.may_be_of(self._mine) and not await self._is_kept(store, kept.key):
                    return Finding.DAMAGED
            manifest = await _proved(store, self.key, self._policy)
        except Damaged as damage:
            return await self._set_aside(store, str(damage))
        if manifest is None:
            return await self._absent(store, waiting)
        if stored is not None and stored.upload_id != manifest.upload_id:
            return None
        return self.proved(manifest)

    def proved(self, manifest: Manifest) -> Finding:
        """The finding of an object that is proved, and for which nothing waits."""
        return Finding.PROVED if manifest.sop_class_uid == self._class else Finding.CLASS_MISMATCH

    def may_wait(self, store: ObjectStore) -> bool:
        """Whether the lanes may have an entry; most shards have none, which was found out for all at once."""
        return self.key.shard in self._lanes.get(store.name, (self.key.shard,))

    async def _waiting(self, store: ObjectStore) -> Unresolved:
        return await unresolved(store, self.uid) if self.may_wait(store) else _NOTHING

    async def _is_kept(self, store: ObjectStore, key: Key) -> bool:
        """Whether what made way for other content is whole; it may be the only copy that its source left to us."""
        try:
            return await _proved(store, key, self._policy) is not None
        except Damaged as damage:
            await _to_its_end(set_aside_if_damaged(store, key, Place.CONFLICT, str(damage)))
            logger.error(  # noqa: TRY400 - of the store; the reason says all
                "damaged entry set aside", sop_instance_uid=self.uid, reason=str(damage)
            )
            return False

    def _is_apart(self, waiting: Unresolved, stored: Manifest | None) -> bool:
        """Whether what the requester sent may not be what is stored."""
        if stored is not None and any(self._was_lost(claim, stored) for claim in waiting.set_aside):
            return True
        # An upload that is stored by now has yet to leave the lane.
        claims = [claim for claim in waiting.claims if stored is None or claim.upload_id != stored.upload_id]
        if any(claim.may_be_of(self._mine) for claim in claims):
            return True
        return bool(claims) and stored is not None and stored.calling_ae_title not in self._mine

    def _was_lost(self, claim: Claim, stored: Manifest) -> bool:
        """Whether an object that was set aside may have been the requester's, and other content took its place."""
        if not claim.source_digest:  # whose it was, nobody can tell
            return stored.calling_ae_title not in self._mine
        return claim.may_be_of(self._mine) and claim.source_digest != stored.source_digest

    async def _set_aside(self, store: ObjectStore, why: str) -> Finding | None:
        """A damaged object makes way for the next good copy; None where one has taken its place already."""
        aside = await _to_its_end(set_aside_if_damaged(store, self.key, Place.STORED, why))
        if aside is None:
            return None
        logger.error("damaged object set aside", sop_instance_uid=self.uid, reason=why, key=str(aside))
        return Finding.DAMAGED

    async def _absent(self, store: ObjectStore, waiting: Unresolved) -> Finding | None:
        """Nothing is under the key; what was, until it was set aside, is not merely absent to who sent it."""
        # "Not found" may also come from what stands before a store, or of a bucket that is gone; a listing not.
        if any(
            listed.key == self.key for listed in await store.find(Area.OBJECTS, self.key.shard, self.key.name)
        ):
            return None
        if any(claim.may_be_of(self._mine) for claim in waiting.set_aside):
            return Finding.DAMAGED
        return Finding.ABSENT


async def _proved(store: ObjectStore, key: Key, policy: Policy) -> Manifest | None:
    """The manifest of the object, proved as the policy wants; None where there is no object.

    Raises:
        Damaged: it is not what was stored.
        Unavailable: the store.
    """
    if policy is Policy.MANIFEST:
        found = await find_object(store, key)
    elif policy is Policy.CHECKSUM:
        # What has no such checksum, as it was put in parts, and what has a wrong one: by the stronger proof.
        found = await find_checked_object(store, key) or await prove_object(store, key)
    else:
        found = await prove_object(store, key)
    return None if found is None else found.manifest


async def _to_its_end(work: Coroutine[None, None, T]) -> T:
    """Work that must not be given up half-way, as it holds a lock over what a thread does."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
