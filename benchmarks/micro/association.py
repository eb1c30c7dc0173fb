"""The association core on P-DATA-TF PDUs of 16 KiB, from bytes to fragments."""

from collections.abc import Callable
from typing import Final

from benchmarks.data import EXPLICIT_VR_LITTLE_ENDIAN, KINDS
from benchmarks.messages import DEFAULT_PDU_LENGTH, associate_request, encode_fragments
from ingest.association import AcceptorPolicy, AssociateRequested, Association, negotiate

_PDUS: Final = 16  # what one read of 256 KiB brings


def established() -> Association:
    """An acceptor's association, ready for data."""
    association = Association()
    association.transport_opened()
    request = associate_request("DICOM-INGEST", KINDS["ct"].sop_class_uid)
    association.receive_data(memoryview(request))
    while (event := association.next_event()) is not None:
        if isinstance(event, AssociateRequested):
            association.answer(negotiate(event.request, AcceptorPolicy(ae_title="DICOM-INGEST")))
    assert association.contexts[1].transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN
    return association


def operations() -> dict[str, Callable[[int], None]]:
    """Name to what does it so many times."""
    data = bytes((DEFAULT_PDU_LENGTH - 6) * _PDUS)
    pdus = memoryview(encode_fragments(data, DEFAULT_PDU_LENGTH, 0, 0))
    target = memoryview(bytearray(len(pdus)))

    def copy(count: int) -> None:
        for _ in range(count):
            target[:] = pdus

    def receive(count: int) -> None:
        association = established()
        for _ in range(count):
            association.receive_data(pdus)
            while association.next_event() is not None:
                pass

    def associate(count: int) -> None:
        for _ in range(count):
            established()

    return {
        "copy 256 KiB (the least for comparison)": copy,
        f"association: {_PDUS} PDUs of 16 KiB to fragments": receive,
        "association: request to accept": associate,
    }
