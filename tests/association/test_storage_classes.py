"""The list of storage classes and transfer syntaxes against pydicom's dictionary of PS3.6."""

import runpy

import pydicom._uid_dict
from pynetdicom.presentation import AllStoragePresentationContexts

from ingest.association.storage_classes import STORAGE_CLASSES
from ingest.association.transfer_syntaxes import BUILT_IN_PREFERENCE
from workers.dataset.transfer_syntax import encoding_of

# Read anew: pynetdicom adds to the imported one, and pydicom's own is what workers know.
UID_dictionary = runpy.run_path(pydicom._uid_dict.__file__)["UID_dictionary"]
# PS3.4 Table GG.3-1: the Non-Patient Object Storage Service Class, as far as it shares the branch.
NON_PATIENT = {f"1.2.840.10008.5.1.4.1.1.{suffix}" for suffix in ("200.1", "200.3", "200.7", "201.1")}
YOUNGER = {  # than pydicom's table, of PS3.6 2026
    f"1.2.840.10008.5.1.4.1.1.{suffix}"
    for suffix in ("2.3", "2.4", "2.5", "9.100.1", "9.100.2", "66.7", "66.8", "601.3", "601.4", "601.5")
}
BRANCHES = ("1.2.840.10008.5.1.4.1.1.", "1.2.840.10008.5.1.4.34.", "1.2.840.10008.5.1.1.")


def test_all_storage_classes() -> None:
    """What PS3.6 calls storage in the branches of storage classes, and nothing else."""
    assert (
        set(STORAGE_CLASSES)
        == {
            uid
            for uid, (name, kind, *_) in UID_dictionary.items()
            if kind == "SOP Class"
            and "Storage" in name
            and uid.startswith(BRANCHES)
            and uid not in NON_PATIENT
        }
        | YOUNGER
    )


def test_what_pynetdicom_stores() -> None:
    """Its release of the day proposes label and height maps, which pydicom's table does not know."""
    assert {str(context.abstract_syntax) for context in AllStoragePresentationContexts} <= set(
        STORAGE_CLASSES
    )


def test_names() -> None:
    """Each UID has its own name, retired ones marked."""
    assert len(set(STORAGE_CLASSES.values())) == len(STORAGE_CLASSES)
    for uid in STORAGE_CLASSES.keys() & UID_dictionary.keys():
        name = STORAGE_CLASSES[uid]
        assert name.removesuffix(" (Retired)") == UID_dictionary[uid][0]
        assert name.endswith(" (Retired)") == (UID_dictionary[uid][3] == "Retired")


def test_retired_classes_still_sent() -> None:
    """Old ultrasound and nuclear medicine, standalone overlay, curve, LUTs."""
    for suffix in ("3", "5", "6", "8", "9", "10", "11", "129"):
        assert f"1.2.840.10008.5.1.4.1.1.{suffix}" in STORAGE_CLASSES
    for hardcopy in ("29", "30"):  # pages for a printer, kept as images
        assert f"1.2.840.10008.5.1.1.{hardcopy}" in STORAGE_CLASSES


def test_all_transfer_syntaxes() -> None:
    """Every transfer syntax of PS3.6 once, but for those that must not or cannot be received."""
    refused = {
        "1.2.840.10008.1.2.4.94",  # JPIP
        "1.2.840.10008.1.2.4.95",
        "1.2.840.10008.1.2.4.204",
        "1.2.840.10008.1.2.4.205",
        "1.2.840.10008.1.2.6.1",  # MIME and XML: no data sets
        "1.2.840.10008.1.2.6.2",
        "1.2.840.10008.1.2.7.1",  # SMPTE ST 2110: real-time video beside DICOM
        "1.2.840.10008.1.2.7.2",
        "1.2.840.10008.1.2.7.3",
        "1.2.840.10008.1.20",  # Papyrus 3, withdrawn
    }
    younger = {  # than pydicom's table: JPEG XL, Deflated Image Frame Compression
        "1.2.840.10008.1.2.4.110",
        "1.2.840.10008.1.2.4.111",
        "1.2.840.10008.1.2.4.112",
        "1.2.840.10008.1.2.8.1",
    }
    known = {uid for uid, (_, kind, *_) in UID_dictionary.items() if kind == "Transfer Syntax"}
    assert set(BUILT_IN_PREFERENCE) == (known | younger) - refused
    assert len(set(BUILT_IN_PREFERENCE)) == len(BUILT_IN_PREFERENCE)


def test_workers_read_what_is_accepted() -> None:
    """No instance is acknowledged in a transfer syntax that its worker does not know."""
    assert all(encoding_of(uid) for uid in BUILT_IN_PREFERENCE)
