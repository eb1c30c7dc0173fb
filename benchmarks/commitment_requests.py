"""A modality that asks for commitment of the same instances, again as soon as it has its report; until SIGTERM.

    python -m benchmarks.commitment_requests HOST PORT SOP_CLASS_UID UID...

Prints how many instances were committed, a line for each report.
"""

import asyncio
import sys

from ingest.contract.commitments import Reference
from ingest.sender import Peer
from ingest.sender.commitment import commit

_TIMEOUT = 120.0  # s


async def _ask(peer: Peer, references: list[Reference]) -> None:
    while True:
        outcome = await commit(peer, references, seconds=_TIMEOUT)
        if len(outcome.committed) != len(references):
            raise SystemExit(f"not committed: {outcome.problem or outcome.failed}")
        print(len(outcome.committed), flush=True)


if __name__ == "__main__":
    host, port, sop_class_uid, *uids = sys.argv[1:]
    modality = Peer(host, int(port), "DICOM-INGEST", "MODALITY", _TIMEOUT)
    asyncio.run(_ask(modality, [Reference(sop_class_uid, uid) for uid in uids]))
