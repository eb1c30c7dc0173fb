"""``python -m tests.support.poisoned_worker ARGUMENTS``: `dicom-ingest`, which one instance ends.

Its SOP Instance UID is in POISON; it kills the process outright, or with POISON_RAISES by an error that nobody expects.
After the tries that an upload has, it goes through, as one without codec would.
"""

import os
import signal
import sys

from ingest.cli.group import main
from workers.pipeline import Pipeline, Work
from workers.storage.lanes import Settled

_settle = Pipeline.settle


async def settle(self: Pipeline, work: Work) -> Settled:
    poisonous = work.upload.instance.sop_instance_uid == os.environ["POISON"]
    if poisonous and work.tries.count < self._settings.worker.attempts:
        if "POISON_RAISES" in os.environ:
            raise RuntimeError("a defect")
        os.kill(os.getpid(), signal.SIGKILL)
    return await _settle(self, work)


if __name__ == "__main__":
    Pipeline.settle = settle  # type: ignore[method-assign]
    main(sys.argv[1:])
