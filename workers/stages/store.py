"""Store: the manifest of an instance, and the one conditional create that gives it its place."""

import time
from collections.abc import Iterator
from importlib.metadata import version

import msgspec

from ingest.contract.failpoints import Failpoint, reach
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Place
from workers.dataset.payload import Payload, sha256
from workers.errors import Rejected
from workers.stages.deduplicate import Difference, Fresh, proof_of, stored_reason
from workers.stages.transcode import PassedThrough, Transcoded
from workers.stages.validate import Examination
from workers.storage.damage import Damaged, find_object
from workers.storage.lanes import Settled
from workers.storage.layout import object_key
from workers.storage.manifest import Manifest, received
from workers.storage.part10 import pieces_of
from workers.storage.stores import Stores

# What made the object: a defect found in one of these later tells which objects to look at again.
_VERSIONS = {name: version(name) for name in ("dicom-ingest", "pylibjpeg-openjpeg")}


def received_manifest(upload_id: UploadId, instance: Instance, source_digest: str) -> Manifest:
    """What is known before the data set has been examined; all that quarantine has."""
    return msgspec.structs.replace(received(upload_id, instance, source_digest), versions=_VERSIONS)


def examined_manifest(manifest: Manifest, examination: Examination) -> Manifest:
    """With what the examination found."""
    identity, digests, pixels = examination.identity, examination.digests, examination.pixels
    return msgspec.structs.replace(
        manifest,
        study_instance_uid=identity.study_instance_uid,
        series_instance_uid=identity.series_instance_uid,
        identity_digest=digests.identity if digests else "",
        elements_digest=digests.elements if digests else "",
        photometric_interpretation=pixels.photometric_interpretation if pixels else "",
        planar_configuration=pixels.planar_configuration if pixels else None,
        findings=examination.findings,
    )


def rejected_manifest(manifest: Manifest, rejected: Rejected) -> Manifest:
    """With why it goes to quarantine."""
    return msgspec.structs.replace(
        manifest, reason=str(rejected.reason), position=rejected.position, detail=rejected.detail
    )


def conflict_manifest(manifest: Manifest, difference: Difference) -> Manifest:
    """With why it goes to the conflict lane; the reason is the loudest class."""
    return msgspec.structs.replace(
        manifest,
        reason=difference.classes[0],
        classes=difference.classes,
        differing_tags=difference.tags,
        pixels=proof_of(difference.pixels),
        detail=f"other content than the stored instance, whose source digest is {difference.first.source_digest}",
    )


async def store(
    stores: Stores, manifest: Manifest, payload: Payload, result: Transcoded | PassedThrough, fresh: Fresh
) -> Settled | None:
    """Create the object; None where another has taken the key meanwhile: deduplicate again.

    ``manifest``: from `examined_manifest`; ``payload``: the data set as received.

    Raises:
        Unavailable: the store.
        Spoiled: ``payload`` is not what it was when its seal was checked.
    """
    manifest = msgspec.structs.replace(
        manifest, pixels=proof_of(result.pixels), repaired=fresh.repaired, placed_at=time.time_ns()
    )
    source = payload
    if isinstance(result, Transcoded):
        payload = result.payload
        manifest = msgspec.structs.replace(
            manifest,
            transfer_syntax_uid=result.transfer_syntax_uid,
            size=payload.size,
        )
    else:
        manifest = msgspec.structs.replace(manifest, passed_through=str(result.reason))
    key = object_key(manifest.sop_instance_uid)
    store_of_key = stores.of(key)
    settled = Settled(Place.STORED, stored_reason(manifest), store_of_key.name, key)
    reach(Failpoint.BEFORE_PUT)
    created = await store_of_key.put_new(key, _pieces(manifest, payload, source))
    reach(Failpoint.AFTER_PUT)
    if created:
        return settled
    try:
        found = await find_object(store_of_key, key)
    except Damaged:
        return None
    # A store over a network may report our own write, whose answer was lost, as somebody else's.
    return settled if found is not None and found.manifest.upload_id == manifest.upload_id else None


def _pieces(manifest: Manifest, payload: Payload, source: Payload) -> Iterator[bytes | memoryview]:
    """The object, its digest made here: whoever takes the pieces blocks anyway, and another thread need not.

    What it was made of comes to its end before the object is complete, so that none is made of what is `Spoiled`.
    """
    if not manifest.passed_through:
        manifest = msgspec.structs.replace(manifest, digest=sha256(payload))
    yield from pieces_of(manifest, payload)
    if payload is not source:
        for _ in source.blocks():
            pass
