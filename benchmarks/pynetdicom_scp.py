"""pynetdicom as a storage SCP that writes files: `python -m benchmarks.pynetdicom_scp PORT FOLDER`.

At its best: the data set is written as received (`encoded_dataset` does not decode it), one file
an instance, no sync.
"""

import sys
from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from benchmarks.data import EXPLICIT_VR_LITTLE_ENDIAN


def main(port: int, folder: Path) -> None:
    """Serve until killed."""

    def store(event: Event) -> int:
        assert isinstance(event.request, C_STORE)
        path = folder / f"{event.request.AffectedSOPInstanceUID}.dcm"
        with path.open("wb") as file:
            file.write(event.encoded_dataset())
        return 0x0000

    entity = AE("DICOM-INGEST")
    for context in AllStoragePresentationContexts:
        assert context.abstract_syntax is not None
        entity.add_supported_context(context.abstract_syntax, EXPLICIT_VR_LITTLE_ENDIAN)
    entity.maximum_pdu_size = 0  # no limit
    entity.maximum_associations = 256
    entity.start_server(("127.0.0.1", port), block=True, evt_handlers=[(evt.EVT_C_STORE, store)])


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
