"""Seeded instances of stated kinds: valid identity, pixels that compress like real images, any size in no memory.

A `Template` is one instance with a placeholder SOP Instance UID of fixed length, so that any number of distinct
instances costs a patch of a few bytes each. A multi-frame object cycles through a few distinct frames, so that
2 GB are never held. Everything is fictitious and follows from the seed.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
IMPLEMENTATION_CLASS_UID: Final = "2.25.181465012345678901234567890123456789"
_LONG_VRS: Final = frozenset({b"OB", b"OW", b"SQ", b"UN", b"UT"})  # PS3.5 7.1.2: 32-bit length
_DISTINCT_FRAMES: Final = 8  # of a multi-frame object: different enough for a codec, 4 MiB of CT in memory


@dataclass(frozen=True)
class Kind:
    """A sort of image, as a hospital sends it.

    ``noise`` is the standard deviation inside the object in grey levels; with it, JPEG 2000 Lossless reaches
    2:1 to 3:1 on 16 bits allocated, as on real images.
    """

    name: str
    sop_class_uid: str
    modality: str
    rows: int
    columns: int
    bits_stored: int
    noise: float
    frames: int = 1

    @property
    def label(self) -> str:
        """For reports."""
        size = self.pixel_size / 1024
        return f"{self.name.upper()} of {f'{size:.0f} KiB' if size < 1024 else f'{size / 1024:.0f} MiB'}"

    @property
    def frame_size(self) -> int:
        """Bytes of one frame; 16 bits are allocated in every kind."""
        return self.rows * self.columns * 2

    @property
    def pixel_size(self) -> int:
        """Bytes of Pixel Data."""
        return self.frame_size * self.frames


_CT: Final = "1.2.840.10008.5.1.4.1.1.2"
_MR: Final = "1.2.840.10008.5.1.4.1.1.4"
_DX: Final = "1.2.840.10008.5.1.4.1.1.1.1"
_MULTI_FRAME: Final = "1.2.840.10008.5.1.4.1.1.7.3"  # Multi-frame Grayscale Word Secondary Capture
KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("small", _MR, "MR", 160, 128, 12, 12.0),  # 40 KiB
        Kind("mr", _MR, "MR", 256, 256, 12, 14.0),  # 128 KiB
        Kind("ct", _CT, "CT", 512, 512, 12, 16.0),  # 512 KiB
        Kind("dx", _DX, "DX", 3072, 2560, 14, 20.0),  # 15 MiB
        Kind("cine", _MULTI_FRAME, "OT", 512, 512, 12, 16.0, frames=16),  # 8 MiB
        Kind("multi-frame", _MULTI_FRAME, "OT", 512, 512, 12, 16.0, frames=512),  # 256 MiB
        Kind("huge", _MULTI_FRAME, "OT", 512, 512, 12, 16.0, frames=4095),  # 2 GiB less one frame
    )
}


class UidSeries:
    """Distinct UIDs of 44 characters below 2.25 (PS3.5 B.2); ``run`` and ``sender`` keep series apart."""

    LENGTH: Final = 44

    def __init__(self, run: int, sender: int) -> None:
        self._prefix = f"2.25.1{run % 10**14:014d}{sender % 10**6:06d}"
        self._number = 0

    def next(self) -> bytes:
        """The next UID, as it stands in a data set."""
        self._number += 1
        return f"{self._prefix}{self._number:018d}".encode("ascii")


@dataclass(frozen=True)
class Template:
    """One instance of ``kind``: ``head`` is the data set up to the value of Pixel Data, then come the frames.

    ``uid_offset`` says where in ``head`` the SOP Instance UID stands, `UidSeries.LENGTH` bytes.
    """

    kind: Kind
    head: bytes
    uid_offset: int
    distinct_frames: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """Bytes of the data set."""
        return len(self.head) + self.kind.pixel_size

    def frames(self) -> Iterator[bytes]:
        """The frames in order; distinct objects repeat, nothing is copied."""
        for number in range(self.kind.frames):
            yield self.distinct_frames[number % len(self.distinct_frames)]

    def head_with(self, uid: bytes) -> bytes:
        """``head`` with another SOP Instance UID."""
        return self.head[: self.uid_offset] + uid + self.head[self.uid_offset + len(uid) :]


@lru_cache(maxsize=8)
def template(kind: Kind, seed: int = 1) -> Template:
    """The instance of ``kind`` that follows from ``seed``; study and series too are the seed's."""
    placeholder = UidSeries(0, 0).next()
    head = _head(kind, seed, placeholder)
    distinct = min(kind.frames, _DISTINCT_FRAMES)
    frames = tuple(grey_frame(kind, seed, number).astype("<u2").tobytes() for number in range(distinct))
    return Template(kind, head, head.index(placeholder), frames)


def grey_frame(kind: Kind, seed: int, number: int) -> npt.NDArray[np.uint16]:
    """A frame: an oval body on a dark ground, organs with soft edges, slow shading, noise of the detector."""
    generator = np.random.default_rng([seed, number])
    y = np.linspace(-1, 1, kind.rows, dtype=np.float32)[:, np.newaxis]
    x = np.linspace(-1, 1, kind.columns, dtype=np.float32)[np.newaxis, :]
    full = float(2**kind.bits_stored - 1)
    body = _oval(y, x, (0, 0), (0.85, 0.75), softness=0.02)
    image = 0.35 * body * (1 + 0.1 * np.sin(2 * y + number / 7) * np.cos(3 * x))
    for _ in range(12):
        cy, cx = generator.uniform(-0.55, 0.55, 2)
        ry, rx = generator.uniform(0.04, 0.25, 2)
        image += generator.uniform(-0.12, 0.2) * body * _oval(y, x, (cy, cx), (ry, rx), softness=0.05)
    noise = generator.standard_normal((kind.rows, kind.columns), dtype=np.float32)
    grey = image * full + noise * (0.15 + body) * kind.noise
    clipped: npt.NDArray[np.uint16] = np.clip(np.rint(grey), 0, full).astype(np.uint16)
    return clipped


def _oval(
    y: npt.NDArray[np.float32],
    x: npt.NDArray[np.float32],
    centre: tuple[float, float],
    radii: tuple[float, float],
    *,
    softness: float,
) -> npt.NDArray[np.float32]:
    """1 inside an ellipse, 0 outside, and a ramp of ``softness`` at its edge."""
    (cy, cx), (ry, rx) = centre, radii
    distance = np.sqrt(((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2)
    ramp: npt.NDArray[np.float32] = np.clip((1 - distance) / softness * min(ry, rx) + 0.5, 0, 1)
    return ramp.astype(np.float32)


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    """One element in Explicit VR Little Endian (PS3.5 7.1.2), its value padded to even length."""
    return element_header(group, number, vr, len(value) + len(value) % 2) + _padded(vr, value)


def element_header(group: int, number: int, vr: bytes, length: int) -> bytes:
    """What stands before a value of ``length`` bytes."""
    if vr in _LONG_VRS:
        return struct.pack("<HH2sHI", group, number, vr, 0, length)
    return struct.pack("<HH2sH", group, number, vr, length)


def _padded(vr: bytes, value: bytes) -> bytes:
    return value if len(value) % 2 == 0 else value + (b"\0" if vr in {b"UI", b"OB"} else b" ")


def _head(kind: Kind, seed: int, uid: bytes) -> bytes:
    def us(value: int) -> bytes:
        return struct.pack("<H", value)

    study = UidSeries(seed, 999_998).next()
    series = UidSeries(seed, 999_999).next()
    elements = [
        (0x0008, 0x0008, b"CS", b"ORIGINAL\\PRIMARY\\AXIAL"),
        (0x0008, 0x0016, b"UI", kind.sop_class_uid.encode("ascii")),
        (0x0008, 0x0018, b"UI", uid),
        (0x0008, 0x0020, b"DA", b"20240101"),
        (0x0008, 0x0030, b"TM", b"120000"),
        (0x0008, 0x0050, b"SH", b""),
        (0x0008, 0x0060, b"CS", kind.modality.encode("ascii")),
        (0x0008, 0x0070, b"LO", b"Synthetic"),
        (0x0008, 0x0090, b"PN", b""),
        (0x0010, 0x0010, b"PN", b"Nobody^Benchmark"),
        (0x0010, 0x0020, b"LO", b"BENCH%d" % seed),
        (0x0010, 0x0030, b"DA", b""),
        (0x0010, 0x0040, b"CS", b"O"),
        (0x0018, 0x0050, b"DS", b"1.25"),
        (0x0020, 0x000D, b"UI", study),
        (0x0020, 0x000E, b"UI", series),
        (0x0020, 0x0010, b"SH", b"1"),
        (0x0020, 0x0011, b"IS", b"1"),
        (0x0020, 0x0013, b"IS", b"1"),
        (0x0028, 0x0002, b"US", us(1)),
        (0x0028, 0x0004, b"CS", b"MONOCHROME2"),
        *([(0x0028, 0x0008, b"IS", b"%d" % kind.frames)] if kind.frames > 1 else []),
        (0x0028, 0x0010, b"US", us(kind.rows)),
        (0x0028, 0x0011, b"US", us(kind.columns)),
        (0x0028, 0x0030, b"DS", b"0.7\\0.7"),
        (0x0028, 0x0100, b"US", us(16)),
        (0x0028, 0x0101, b"US", us(kind.bits_stored)),
        (0x0028, 0x0102, b"US", us(kind.bits_stored - 1)),
        (0x0028, 0x0103, b"US", us(0)),
        (0x0028, 0x1052, b"DS", b"-1024" if kind.modality == "CT" else b"0"),
        (0x0028, 0x1053, b"DS", b"1"),
    ]
    return b"".join(element(*parts) for parts in elements) + element_header(
        0x7FE0, 0x0010, b"OW", kind.pixel_size
    )
