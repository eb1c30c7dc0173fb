"""What tests download or build once: kept in the user's cache folder, outside the tree, shared by every checkout.

It is ``$XDG_CACHE_HOME/dicom-ingest``, else ``~/.cache/dicom-ingest``; a second run needs neither compiler nor network.
"""

import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def cached(name: str, make: Callable[[Path], object]) -> Path:
    """The file or folder of this name, complete; another process that makes it now is waited for.

    Args:
        name: A path within the cache.
        make: Makes it at the path that it is given, whose folder is empty and goes afterwards.
    """
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dicom-ingest" / name
    if kept.exists():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (kept.parent / f"{kept.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
                new = Path(folder) / kept.name
                make(new)
                new.rename(kept)  # only what is complete has the name
    return kept
