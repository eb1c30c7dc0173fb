"""Manifests for tests."""

import hashlib

from workers.storage.manifest import SCHEMA, Manifest


def example(**changes: object) -> Manifest:
    """A manifest with what it must have, and ``changes``."""
    facts: dict[str, object] = {
        "schema": SCHEMA,
        "upload_id": "00" * 16,
        "source_digest": "1" * 64,
        "source_size": 10,
        "size": 10,
        "digest": "1" * 64,
    }
    return Manifest(**(facts | changes))  # type: ignore[arg-type]


def manifest_for(data_set: bytes, **changes: object) -> Manifest:
    """A manifest that proves ``data_set``."""
    digest = hashlib.sha256(data_set).hexdigest()
    facts: dict[str, object] = {
        "source_digest": digest,
        "digest": digest,
        "size": len(data_set),
        "source_size": len(data_set),
    }
    return example(**(facts | changes))
