"""Whoever sends again adds nothing to the store, whatever lossless encoding he sends in this time."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.encaps import generate_frames

from tests.support.acceptance import QUICK, Status, gained, send_files, settle, source_digest
from tests.support.datasets import has_file_meta, read, transfer_syntax
from tests.support.pipeline import CORPUS, Pipeline

pytestmark = [
    pytest.mark.real,
    pytest.mark.xdist_group("resend"),
    pytest.mark.filterwarnings("ignore:::pydicom"),  # the corpus is malformed on purpose
]

# Their file meta and so the command name another instance than the data set: refused.
REFUSED = {"JPEGLossless_JPEGLossless_1s_1f_i_16_16_bad", "bad_sequence"}
UNIDENTIFIED = {"HTJ2KLossless_08_RGB", "JLSL_08_07_0_1F"}  # no Study Instance UID
# Other images under the UID of an earlier file, as their authors left them.
OTHER_CONTENT = {
    "JPEG2000Lossless_966_fixed", "JPEGExtended_RG2_JPLY_fixed", "OBXXXX1A_expb_2frame", "OBXXXX1A_rle_2frame",
    "RLELossless_SC_rgb_rle_16bit_2frame", "RLELossless_SC_rgb_rle_32bit_2frame", "SC_rgb", "SC_rgb_32bit_2frame",
    "SC_rgb_dcmtk_ebcr_dcmd", "SC_rgb_expb", "SC_rgb_expb_32bit", "SC_ybr_full_uncompressed",
}  # fmt: skip
# The same image as an earlier file in another transfer syntax, or with other planes.
OTHER_ENCODING = {
    "JPEGLSLossless_MR_small_jpeg_ls_lossless", "RLELossless_MR_small_RLE", "OBXXXX1A_expb", "OBXXXX1A_rle",
    "color-px", "emri_small_jpeg_ls_lossless", "gdcm-US-ALOKA-16_big", "liver_expb",
}  # fmt: skip
# What neither DCMTK nor pydicom decodes: a damaged codestream, one without its UIDs, near-lossless JPEG-LS
# (which is lossy), one bit in RLE.
NOT_CONVERTED = {"JPEG2000Lossless_966", "JLSL_08_07_0_1F", "JPEGLS_RG2_JLSN", "liver_rle"}

# HTJ2K is not known to this DCMTK, and of a UID whose VR is UN it makes another one for its command.
NOT_BY_DCMSEND = {"HTJ2KLossless_08_RGB", "RLELossless_rtdose_rle", "explicit_VR-UN"}

FILES = [path for path in sorted(CORPUS.glob("*.dcm")) if has_file_meta(path)]
SENT = [path for path in FILES if path.stem not in REFUSED]

LOSSY = {f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91)}
DECODER = {
    "1.2.840.10008.1.2.4.50": "dcmdjpeg",
    "1.2.840.10008.1.2.4.51": "dcmdjpeg",
    "1.2.840.10008.1.2.4.57": "dcmdjpeg",
    "1.2.840.10008.1.2.4.70": "dcmdjpeg",
    "1.2.840.10008.1.2.4.80": "dcmdjpls",
    "1.2.840.10008.1.2.5": "dcmdrle",
}
ENCODINGS = {"explicit": "+te", "implicit": "+ti"}


def is_lossy(path: Path) -> bool:
    """Whether decoding cannot give back what was encoded; JPEG 2000 in .91 tells by its wavelet."""
    syntax = str(transfer_syntax(path))
    if syntax != "1.2.840.10008.1.2.4.91":
        return syntax in LOSSY
    ds = read(path)
    codestream = next(generate_frames(ds.PixelData, number_of_frames=1))
    at = codestream.index(b"\xff\x52")  # COD, ISO/IEC 15444-1 A.6.1; its transformation: 1 is reversible
    return codestream[at + 13] != 1 or str(ds.get("LossyImageCompression")) == "01"


def converted(path: Path, target: Path, option: str) -> bool:
    """Write the file natively in the encoding that ``option`` tells DCMTK; False where no tool can."""
    syntax = str(transfer_syntax(path))
    tool = DECODER.get(syntax, "dcmconv")
    if tool == "dcmconv" and syntax.startswith("1.2.840.10008.1.2.4."):
        ds = read(path)
        try:
            ds.decompress(generate_instance_uid=False)
        except (RuntimeError, NotImplementedError):
            return False
        path = target.with_suffix(".native")
        ds.save_as(path, enforce_file_format=True)
    done = subprocess.run([tool, option, str(path), str(target)], check=False, capture_output=True)
    return done.returncode == 0


def send_by_dcmsend(port: int, files: list[Path]) -> int:
    """Send files as DCMTK writes them; the number acknowledged."""
    done = subprocess.run(
        ["dcmsend", "-v", "-dn", "-nh", "-aec", "DICOM-INGEST", "127.0.0.1", str(port), *map(str, files)],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return (done.stdout + done.stderr).count("Received C-STORE Response (Success)")


class Kept:
    """A pipeline that has the corpus, and what its lanes held then."""

    def __init__(self, pipeline: Pipeline, status: Status) -> None:
        self.pipeline = pipeline
        self.status = status
        self.objects = {uid: path.read_bytes() for uid, path in pipeline.objects().items()}
        self.lanes = self.files_in_lanes()

    def files_in_lanes(self) -> set[Path]:
        store = self.pipeline.data / "store"
        return {
            path
            for lane in ("conflicts", "quarantine")
            for path in (store / lane).rglob("*")
            if path.is_file() and path.suffix != ".json"
        }

    def conflicts(self) -> dict[str, dict[str, object]]:
        return {str(entry["source_digest"]): entry for entry in self.pipeline.run_list("conflicts", "list")}

    def next_status(self) -> Status:
        """What was added since the last look; the store has the same objects, byte for byte."""
        before, self.status = self.status, settle(self.pipeline)
        assert {uid: path.read_bytes() for uid, path in self.pipeline.objects().items()} == self.objects
        return gained(before, self.status)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    with Pipeline(tmp_path_factory.mktemp("resend") / "data", workers=2, environment=QUICK) as pipeline:
        statuses = send_files(pipeline.port, FILES)
        assert {path.stem for path, status in statuses.items() if status == 0xA900} == REFUSED
        yield Kept(pipeline, settle(pipeline))


@pytest.fixture(autouse=True)
def _count_from_here(kept: Kept) -> None:
    kept.status = settle(kept.pipeline)


def expected(stems: list[str]) -> Status:
    """What files of these names add to the counters once the corpus is known."""
    conflicts = sum(stem in OTHER_CONTENT for stem in stems)
    quarantined = sum(stem in UNIDENTIFIED for stem in stems)
    counts = {
        "received": len(stems),
        "duplicates": len(stems) - conflicts - quarantined,
        "conflicts": conflicts,
        "quarantined": quarantined,
    }
    return {name: count for name, count in counts.items() if count}


def test_one_object_for_each_instance(kept: Kept) -> None:
    """Of the whole corpus, each UID has one object; other encodings of it are duplicates, other images conflicts."""
    stems = {path.stem for path in SENT}
    stored = len(stems - OTHER_CONTENT - OTHER_ENCODING - UNIDENTIFIED)
    assert kept.status == {
        "received": len(stems),
        "stored": stored,
        "duplicates": len(OTHER_ENCODING),
        "conflicts": len(OTHER_CONTENT),
        "quarantined": len(UNIDENTIFIED),
        "discarded": 0,
        "backlog": 0,
    }
    assert len(kept.objects) == stored
    entries = kept.conflicts()
    assert set(entries) == {source_digest(path) for path in SENT if path.stem in OTHER_CONTENT}
    for entry in entries.values():
        assert "pixels" in entry["classes"]  # type: ignore[operator]


def test_the_same_bytes_again_make_nothing_new(kept: Kept) -> None:
    """Every file once more, byte for byte: counted where its content is, and no file more in store or lanes."""
    assert set(send_files(kept.pipeline.port, SENT).values()) == {0}
    assert kept.next_status() == expected([path.stem for path in SENT])
    assert kept.files_in_lanes() == kept.lanes
    assert sum(entry["repeats"] for entry in kept.conflicts().values()) == len(OTHER_CONTENT)  # type: ignore[misc]


def test_the_same_from_another_sender_makes_nothing_new(kept: Kept) -> None:
    """The corpus from DCMTK, which writes lengths and padding its own way, is the same corpus."""
    files = [path for path in SENT if path.stem not in NOT_BY_DCMSEND]
    assert send_by_dcmsend(kept.pipeline.port, files) == len(files)
    assert kept.next_status() == expected([path.stem for path in files])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_other_encodings_make_nothing_new(kept: Kept, tmp_path: Path, encoding: str) -> None:
    """Native and losslessly coded files come back decoded by others: duplicates. Decoded lossy ones are conflicts."""
    sent: dict[Path, Path] = {}
    for source in SENT:
        target = tmp_path / source.name
        if converted(source, target, ENCODINGS[encoding]):
            sent[target] = source
        else:
            assert source.stem in NOT_CONVERTED
    assert set(send_files(kept.pipeline.port, sent).values()) == {0}
    lossy = [target for target, source in sent.items() if is_lossy(source)]
    assert len(lossy) == 14
    counts = expected([source.stem for target, source in sent.items() if target not in lossy])
    already = sum(sent[target].stem in OTHER_CONTENT for target in lossy)
    assert already == 1
    counts["received"] += len(lossy)
    counts["conflicts"] += len(lossy)
    assert kept.next_status() == counts
    entries = kept.conflicts()
    for target in lossy:
        assert "pixels" in entries[source_digest(target)]["classes"]  # type: ignore[operator]
        assert pydicom.dcmread(target).SOPInstanceUID == entries[source_digest(target)]["sop_instance_uid"]
