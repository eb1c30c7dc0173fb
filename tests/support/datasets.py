"""PS3.10 files as the tests see them, read by pydicom: what went in, and what came out."""

import warnings
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, ExplicitVRLittleEndian

PIXEL_KEYWORDS = ("PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths")
# PS3.5 and PS3.3 make these follow from the transfer syntax: YBR_RCT is how JPEG 2000 says RGB, and Planar
# Configuration has no meaning within a codestream.
FOLLOWS_FROM_SYNTAX = ("PhotometricInterpretation", "PlanarConfiguration")


def read(path: Path) -> FileDataset:
    """A file as pydicom reads it; files without preamble too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path, force=True)


def transfer_syntax(path: Path) -> UID:
    """What the file meta says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return UID(read(path).file_meta.get("TransferSyntaxUID", ExplicitVRLittleEndian))


def has_file_meta(path: Path) -> bool:
    """Whether the file is PS3.10: preamble, prefix and meta group."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def data_set_bytes(path: Path) -> bytes:
    """The data set of a PS3.10 file, byte for byte, without its file meta."""
    meta = read_file_meta_info(path)
    start = 132 + 12 + meta.FileMetaInformationGroupLength
    return path.read_bytes()[start:]


def pixels(ds: Dataset) -> np.ndarray | None:
    """Raw decoded samples, no colour conversion; ``None`` where no decoder here can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pixel_array(ds, raw=True)
    except Exception:  # noqa: BLE001 - whatever a decoder raises, there is nothing to compare
        return None


def differing_elements(source: Dataset, stored: Dataset) -> list[str]:
    """Tags whose values differ, pixel data and what follows from the transfer syntax left aside."""
    aside = {pydicom.tag.Tag(keyword) for keyword in (*PIXEL_KEYWORDS, *FOLLOWS_FROM_SYNTAX)}
    tags = {tag for tag in (*source.keys(), *stored.keys()) if tag not in aside and tag.element != 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [str(tag) for tag in sorted(tags) if source.get(tag) != stored.get(tag)]
