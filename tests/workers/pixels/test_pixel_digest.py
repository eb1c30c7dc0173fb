"""The pixel digest: one for an object native and in every lossless syntax, never that of anything else."""

import asyncio
import hashlib
import struct
import subprocess
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.pixels.encoders.base import EncodeRunner
from pydicom.pixels.encoders.native import _encode_frame as pydicom_rle
from pydicom.pixels.utils import pixel_array
from pydicom.uid import RLELossless

from ingest.contract.records import Instance
from tests.support.element_trees import El
from tests.support.pipeline import CORPUS
from tests.support.pixel_objects import (
    COLOUR,
    GRAY,
    Frame,
    corpus_data_set,
    corpus_examined,
    encapsulated,
    even,
    examined,
    fragments,
    native,
    native_value,
    noise,
)
from workers.pixels.codec import Codec
from workers.pixels.digest import PixelDigest, matches, pixel_digest
from workers.pixels.form import CodecFailed, FrameForm
from workers.stages.transcode import pixel_data_of

SIGNED = FrameForm(40, 48, 1, 16, 12, True)
FULL = FrameForm(40, 48, 1, 16, 16, True)
SYNTAX = "1.2.840.10008.1.2.4."
FORMS = {"gray": GRAY, "signed": SIGNED, "full": FULL, "colour": COLOUR}


def unsigned(frame: Frame, form: FrameForm, precision: int) -> Frame:
    """The bits as JPEG and JPEG-LS hold them: two's complement of so many bits."""
    values = frame.astype(np.int64) & (1 << precision) - 1
    return np.squeeze(values.astype("u1" if form.bits_allocated == 8 else "<u2"))


def jpeg_ls(frame: Frame, form: FrameForm) -> bytes:
    return bytes(imagecodecs.jpegls_encode(unsigned(frame, form, form.bits_allocated)))


def jpeg_lossless(frame: Frame, form: FrameForm) -> bytes:
    colours = "RGB" if form.samples_per_pixel == 3 else None
    return bytes(
        imagecodecs.jpeg8_encode(
            unsigned(frame, form, form.bits_stored), lossless=True, colorspace=colours, outcolorspace=colours,
            bitspersample=form.bits_stored,
        )
    )  # fmt: skip


def rle(frame: Frame, form: FrameForm) -> bytes:
    runner = EncodeRunner(RLELossless)
    for option in ("bits_allocated", "samples_per_pixel", "rows", "columns"):
        runner.set_option(option, getattr(form, option))
    return bytes(pydicom_rle(frame.tobytes(), runner))


CODINGS = {
    "jpeg-ls": ("1.2.840.10008.1.2.4.80", jpeg_ls),
    "jpeg-lossless": ("1.2.840.10008.1.2.4.70", jpeg_lossless),
    "rle": ("1.2.840.10008.1.2.5", rle),
    "uncompressed": ("1.2.840.10008.1.2.1.98", lambda frame, _: frame.tobytes()),
}


def digest(runner: asyncio.Runner, codec: Codec, data: bytes, instance: Instance) -> PixelDigest:
    pixels = pixel_data_of(examined(data, instance))
    assert pixels is not None
    found = runner.run(pixel_digest(pixels, codec))
    assert runner.run(matches(pixels, found, codec))
    assert not runner.run(matches(pixels, PixelDigest(found.kind, "0" * 64), codec))
    return found


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("kind", FORMS)
def test_lossless_is_native(runner: asyncio.Runner, codec: Codec, kind: str, coding: str) -> None:
    """Two frames in each lossless coding digest as the same frames sent native, in any order of planes."""
    form = FORMS[kind]
    frames = [noise(form, seed) for seed in (1, 2)]
    expected = digest(runner, codec, *native(form, frames))
    assert expected.kind == "native"
    syntax, encode = CODINGS[coding]
    value = fragments([even(encode(frame, form)) for frame in frames])
    assert digest(runner, codec, *encapsulated(form, value, syntax, frames=2)) == expected
    for mode in ("implicit", "big"):
        assert digest(runner, codec, *native(form, frames, mode)) == expected
    if form.samples_per_pixel > 1:
        assert digest(runner, codec, *native(form, frames, planar=1)) == expected


@pytest.mark.parametrize("mode", ["explicit", "big"])
def test_native_frames_in_fragments_may_be_planar(runner: asyncio.Runner, codec: Codec, mode: str) -> None:
    """PS3.5 A.4.11 changes no frame: planes digest as pixels, as they do without fragments, words of OW turned or not."""
    form = FrameForm(5, 7, 3, 8, 8, False)
    frames = [noise(form, seed) for seed in (1, 2)]
    expected = digest(runner, codec, *native(form, frames))
    planes = [np.ascontiguousarray(np.moveaxis(frame, -1, 0)).tobytes() for frame in frames]
    value = fragments([even(frame) for frame in planes])
    planar = El(0x0028_0006, "US", b"\1\0")
    uncompressed = encapsulated(form, value, "1.2.840.10008.1.2.1.98", frames=2, x00280006=planar)
    assert digest(runner, codec, *uncompressed) == expected
    words = El(0x7FE0_0010, "OW", native_value(frames, 1))
    assert digest(runner, codec, *native(form, frames, mode, planar=1, x7FE00010=words)) == expected


def in_boxes(codestream: bytes) -> bytes:
    """A JP2 file (ISO/IEC 15444-1 Annex I) around a codestream, with the boxes that are read here."""
    boxes = ((b"jP  ", b"\r\n\x87\n"), (b"ftyp", b"jp2 \0\0\0\0jp2 "), (b"jp2c", codestream))
    return b"".join(struct.pack(">I", 8 + len(content)) + kind + content for kind, content in boxes)


@pytest.mark.parametrize("frames", [1, 3])
def test_one_bit_in_fragments_is_native(runner: asyncio.Runner, codec: Codec, frames: int) -> None:
    """Native frames of one bit follow each other without a gap, in fragments each begins with a byte."""
    form = FrameForm(5, 7, 1, 1, 1, False)
    samples = np.random.default_rng(1).integers(0, 2, (frames, 35), dtype=np.uint8)
    value = even(np.packbits(samples.reshape(-1), bitorder="little").tobytes())
    plain = native(form, [samples] * frames, x7FE00010=El(0x7FE0_0010, "OB", value))
    pieces = [even(np.packbits(frame, bitorder="little").tobytes()) for frame in samples]
    one = encapsulated(form, fragments(pieces), "1.2.840.10008.1.2.1.98", frames=frames)
    assert digest(runner, codec, *one) == digest(runner, codec, *plain)


@pytest.mark.parametrize("coding", [*CODINGS, "jpeg-2000", "jpeg-2000 in boxes"])
def test_frames_that_nobody_counted_are_not_passed_over(
    runner: asyncio.Runner, codec: Codec, coding: str
) -> None:
    """Without Number of Frames a decoder would read the first of two: a change in the second must tell them apart."""
    form = FrameForm(40, 48, 1, 8, 8, False)
    blank, spotted = np.zeros((40, 48, 1), np.uint8), np.zeros((40, 48, 1), np.uint8)
    spotted[5, 7, 0] = 1
    syntax, encode = CODINGS.get(coding, ("1.2.840.10008.1.2.4.90", None))

    def encoded(frame: Frame) -> bytes:
        found = (
            runner.run(codec.encode_proved(frame.tobytes(), form)) if encode is None else encode(frame, form)
        )
        return even(in_boxes(found) if "boxes" in coding else found)

    found = []
    for second in (blank, spotted):
        pieces = [encoded(blank), encoded(second)]
        found.append(digest(runner, codec, *encapsulated(form, fragments(pieces), syntax)))
        # Without a table, too, which leaves the first frame in its place.
        found.append(digest(runner, codec, *encapsulated(form, fragments(pieces[:1], pieces[1]), syntax)))
    assert [one.kind for one in found] == ["encoded"] * 4
    assert len(set(found)) >= 3
    assert found[0] != found[2]
    assert found[1] != found[3]


@pytest.mark.parametrize("coding", ["jpeg-ls", "jpeg-lossless", "rle"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_cut_codestream_is_not_made_up(
    runner: asyncio.Runner, codec: Codec, coding: str, kept: float
) -> None:
    """Some libraries fill what is missing and call it decoded: what is no frame digests as it is."""
    syntax, encode = CODINGS[coding]
    codestream = encode(noise(GRAY), GRAY)
    value = fragments([even(codestream[: int(kept * len(codestream))])])
    assert digest(runner, codec, *encapsulated(GRAY, value, syntax)).kind == "encoded"


@pytest.mark.parametrize("frames", [1, 200_000])
@pytest.mark.parametrize("last", ["50", "90"])
def test_many_fragments_hold_nobody_up(runner: asyncio.Runner, codec: Codec, last: str, frames: int) -> None:
    """Of two million empty ones, in 15 MB, the event loop had no turn for ten seconds: others go on meanwhile."""
    data, instance = encapsulated(GRAY, fragments([b""] * 200_000), SYNTAX + last, frames=frames)
    pixels = pixel_data_of(examined(data, instance))
    assert pixels is not None
    turns = 0

    async def scenario() -> PixelDigest:
        nonlocal turns
        digesting = asyncio.create_task(pixel_digest(pixels, codec))
        while not digesting.done():
            turns += 1
            await asyncio.sleep(0)
        return await digesting

    assert runner.run(scenario()).kind == "encoded"
    assert turns > 100


@pytest.mark.parametrize("pieces", [[], [b"\0\0\1\xb3" + bytes(60)]])
@pytest.mark.parametrize("start", [b"\xff\xd8\xff\xe0", b"\0\0\1\xb3", b"\x47\x40\0\x10"])
def test_what_is_in_the_place_of_the_table_counts(
    runner: asyncio.Runner, codec: Codec, start: bytes, pieces: list[bytes]
) -> None:
    """Senders that leave the Basic Offset Table out have pixel data there; a table itself changes nothing."""
    found = set()
    for last in (b"\1\0", b"\2\0"):
        value = fragments(pieces, start + bytes(58) + last)
        found.add(digest(runner, codec, *encapsulated(GRAY, value, "1.2.840.10008.1.2.4.50")))
    assert len(found) == 2
    tables = [b"", b"\0\0\0\0", b"\7\0\0\0", b"\0\0\0\0\7\0\0\0"] if pieces else [b""]
    same = {
        digest(runner, codec, *encapsulated(GRAY, fragments(pieces, table), "1.2.840.10008.1.2.4.50"))
        for table in tables
    }
    assert len(same) == 1


def test_planes_or_pixels_of_an_unfit_length(runner: asyncio.Runner, codec: Codec) -> None:
    """The same bytes, planes in one object and pixels in the other, are two images, also where nothing can be decoded."""
    long = El(0x7FE0_0010, "OB", native_value([noise(COLOUR)]) + b"\1\2")
    short = fragments([b"\3\0\1\2"])
    for one, other in (
        [native(COLOUR, [noise(COLOUR)], planar=planar, x7FE00010=long) for planar in (0, 1)],
        [
            encapsulated(COLOUR, short, "1.2.840.10008.1.2.1.98", x00280006=El(0x0028_0006, "US", planar))
            for planar in (b"\0\0", b"\1\0")
        ],
        [
            encapsulated(COLOUR, short, "1.2.840.10008.1.2.8.1", x00280006=El(0x0028_0006, "US", planar))
            for planar in (b"\0\0", b"\1\0")
        ],
    ):
        assert digest(runner, codec, *one) != digest(runner, codec, *other)


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("last", ["90", "91"])
def test_jpeg_2000_is_native(runner: asyncio.Runner, codec: Codec, kind: str, last: str) -> None:
    """Reversible JPEG 2000 digests as native, in .91 too, however its fragments are cut."""
    form = FORMS[kind]
    frame = noise(form)
    expected = digest(runner, codec, *native(form, [frame]))
    codestream = runner.run(codec.encode_proved(frame.tobytes(), form, transform=form is COLOUR))
    pieces = [codestream[:100], even(codestream[100:])]
    syntax = "1.2.840.10008.1.2.4." + last
    assert digest(runner, codec, *encapsulated(form, fragments(pieces), syntax)) == expected


def test_marked_lossy(runner: asyncio.Runner, codec: Codec) -> None:
    """.91 may hide a loss behind a reversible wavelet, so an instance that says 01 is not taken for exact."""
    frame = noise(GRAY).tobytes()
    value = fragments([even(runner.run(codec.encode_proved(frame, GRAY)))])
    lossy = El(0x0028_2110, "CS", b"01")
    data, instance = encapsulated(GRAY, value, "1.2.840.10008.1.2.4.91", x00282110=lossy)
    assert digest(runner, codec, data, instance).kind == "encoded"
    # .90 is lossless whatever had happened to the image before.
    data, instance = encapsulated(GRAY, value, "1.2.840.10008.1.2.4.90", x00282110=lossy)
    assert digest(runner, codec, data, instance).kind == "native"


def test_lossy_never_matches_what_it_decodes_to(runner: asyncio.Runner, codec: Codec) -> None:
    """Kinds keep a lossy original and its decompressed copy apart; JPEG-LS with a NEAR is lossy in .80 too."""
    form = FrameForm(40, 48, 1, 8, 8, False)
    frame = np.squeeze(noise(form))
    for syntax, codestream in (
        ("1.2.840.10008.1.2.4.50", imagecodecs.jpeg8_encode(frame, level=90)),
        ("1.2.840.10008.1.2.4.81", imagecodecs.jpegls_encode(frame, level=3)),
        ("1.2.840.10008.1.2.4.80", imagecodecs.jpegls_encode(frame, level=3)),
        ("1.2.840.10008.1.2.4.90", imagecodecs.jpeg2k_encode(frame, level=30, codecformat="j2k")),
        ("1.2.840.10008.1.2.4.91", imagecodecs.jpeg2k_encode(frame, level=30, codecformat="j2k")),
    ):
        lossy = encapsulated(form, fragments([even(bytes(codestream))]), syntax)
        assert digest(runner, codec, *lossy).kind == "encoded", syntax


def test_one_changed_bit(runner: asyncio.Runner, codec: Codec) -> None:
    """Any bit of any frame changes the digest, unused and trailing ones included."""
    form = GRAY
    frames = [noise(form, seed) for seed in (1, 2)]
    digests = {digest(runner, codec, *native(form, frames))}
    for frame, bit in ((0, 0), (0, 15), (1, 0), (1, 13)):
        changed = [each.copy() for each in frames]
        changed[frame][17, 5, 0] ^= 1 << bit
        digests.add(digest(runner, codec, *native(form, changed)))
    digests.add(digest(runner, codec, *native(form, frames[::-1])))
    assert len(digests) == 6


def test_float_pixels(runner: asyncio.Runner, codec: Codec) -> None:
    """Float Pixel Data digests by its bytes, little endian from big endian too."""
    form = FrameForm(4, 6, 1, 32, 32, False)
    value = El(0x7FE0_0008, "OF", np.linspace(-1, 1, 24, dtype="<f4").tobytes())
    found = [digest(runner, codec, *native(form, [noise(form)], mode, x7FE00010=None, x7FE00008=value)) for mode in ("explicit", "implicit", "big")]  # fmt: skip
    assert len(set(found)) == 1
    assert found[0].kind == "native"


def test_damaged_on_disk(runner: asyncio.Runner, codec: Codec) -> None:
    """A stored codestream that no longer decodes, or decodes to something else, does not match."""
    frame = noise(GRAY).tobytes()
    codestream = even(runner.run(codec.encode_proved(frame, GRAY)))
    sound = encapsulated(GRAY, fragments([codestream]), "1.2.840.10008.1.2.4.90")
    expected = digest(runner, codec, *sound)
    data, instance = sound
    position = data.index(codestream)
    for offset in (3, 40, len(codestream) // 2, len(codestream) - 9):
        damaged = bytearray(data)
        damaged[position + offset] ^= 0x10
        pixels = pixel_data_of(examined(bytes(damaged), instance))
        assert pixels is not None
        assert not runner.run(matches(pixels, expected, codec))


def test_a_codec_that_cannot_is_no_proof_of_damage() -> None:
    """Where the codec is killed or meets its limit, `matches` says that it does not know."""
    form = FrameForm(3000, 3000, 1, 16, 12, False)

    async def scenario() -> None:
        async with Codec(memory=2 << 30, timeout=120) as codec:
            codestream = even(await codec.encode_proved(bytes(form.size), form))
        data, instance = encapsulated(form, fragments([codestream]), "1.2.840.10008.1.2.4.90")
        pixels = pixel_data_of(examined(data, instance))
        assert pixels is not None
        async with Codec(memory=2 << 30, timeout=0.001) as codec:
            with pytest.raises(CodecFailed) as caught:
                await matches(pixels, PixelDigest("native", "0" * 64), codec)
            assert caught.value.again
            assert (await pixel_digest(pixels, codec)).kind == "encoded"

    asyncio.run(scenario())


FILES = sorted(path.name for path in CORPUS.glob("*.dcm"))
LOSSY_SYNTAXES = ("4.50", "4.51", "4.81")
# Of the reversible syntaxes, by pydicom and DCMTK too: 966 is truncated, the others in .91 use the 9/7 wavelet.
ENCODED = {
    "JPEG2000Lossless_966.dcm", "JPEG2000_693_J2KI.dcm", "JPEG2000_JPEG2000.dcm", "RG1_J2KI.dcm",
    "JPEG2000_MAROTECH_CT_JP2Lossy.dcm", "MR2_J2KI.dcm", "JLSN_RGB_ILV0.dcm",
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_the_corpus(
    runner: asyncio.Runner, codec: Codec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Each real file: native wherever its syntax is lossless, and equal to what DCMTK or pydicom decompress it to."""
    path = CORPUS / name
    examination = corpus_examined(path, monkeypatch)
    pixels = pixel_data_of(examination)
    if pixels is None:
        return
    found = runner.run(pixel_digest(pixels, codec))
    lossy = name in ENCODED or examination.transfer_syntax_uid.endswith(LOSSY_SYNTAXES)
    assert found.kind == ("encoded" if lossy else "native")
    if not pixels.description.encapsulated:
        return
    for command in (["dcmdjpeg", "+cn"], ["dcmdjpls"], ["dcmdrle"]):
        target = tmp_path / f"{command[0]}.dcm"
        if subprocess.run([*command, path, target], capture_output=True, check=False).returncode:
            continue
        data_set, syntax = corpus_data_set(target)
        if syntax == examination.transfer_syntax_uid:
            continue
        other = pixel_data_of(corpus_examined(target, monkeypatch))
        assert other is not None
        assert (runner.run(pixel_digest(other, codec)) == found) is not lossy
        assert data_set


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in FILES if "J2K" in name or "2000" in name or "j2k" in name])
def test_the_corpus_by_pydicom(
    runner: asyncio.Runner, codec: Codec, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """DCMTK has no JPEG 2000: what pydicom decodes has our digest."""
    pixels = pixel_data_of(corpus_examined(CORPUS / name, monkeypatch))
    assert pixels is not None
    found = runner.run(pixel_digest(pixels, codec))
    if found.kind == "encoded":
        assert name in ENCODED
        return
    data_set = pydicom.dcmread(CORPUS / name, force=True)
    samples = pixel_array(data_set, raw=True)
    assert found.hex == hashlib.sha256(samples.tobytes()).hexdigest()
