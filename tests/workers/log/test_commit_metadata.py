"""The account beside a committed offset: golden vectors, any account there and back, and foreign strings."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Place
from workers.log.commit_metadata import (
    LIMIT,
    ForeignCommit,
    OffsetCheckpoint,
    Range,
    decode_metadata,
    encode_metadata,
)

UPLOAD = bytes(UploadId.of(7, 1_700_000_000_000, 3))

# Strings that a release has written: these must be readable for ever.
GOLDEN = {
    "dicom-ingest/1 {}": OffsetCheckpoint(partition=2, low_water_mark=1000),
    'dicom-ingest/1 {"starts":1}': OffsetCheckpoint(partition=2, low_water_mark=1000, starts=1),
    'dicom-ingest/1 {"done":"BACsAqAG","counters":{"duplicate":1,"stored":5},"reasons":{"stored/lossy":2},'
    '"attempts":{"AAAABwGLz+VoAAAAAAAAAw==":2},"remains":{"AAAABwGLz+VoAAAAAAAAAw==":1007},"starts":2,"lost":9}': (
        OffsetCheckpoint(
            partition=2,
            low_water_mark=1000,
            done_ranges=(Range(1004, 1004), Range(1305, 2105)),
            done={UPLOAD: 1007},
            counters={Place.STORED: 5, Place.DUPLICATE: 1},
            reasons={"stored/lossy": 2},
            attempts={UPLOAD: 2},
            starts=2,
            lost=9,
        )
    ),
}


@pytest.mark.parametrize("text", GOLDEN)
def test_what_was_committed_is_read_for_ever(text: str) -> None:
    """Golden vectors, both ways."""
    assert decode_metadata(2, 1000, text) == GOLDEN[text]
    assert encode_metadata(GOLDEN[text]) == text


upload_ids = st.binary(min_size=UploadId.SIZE, max_size=UploadId.SIZE)
counts = st.integers(0, 2**40)


@st.composite
def checkpoints(draw: st.DrawFn) -> OffsetCheckpoint:
    behind = mark = draw(st.integers(0, 2**60))
    ranges = []
    for distance, length in draw(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 2**20)))):
        ranges.append(Range(behind + distance, behind + distance + length))
        behind = ranges[-1].last + 1
    return OffsetCheckpoint(
        partition=draw(st.integers(0, 1023)),
        low_water_mark=mark,
        done_ranges=tuple(ranges),
        done=draw(st.dictionaries(upload_ids, counts)),
        attempts=draw(st.dictionaries(upload_ids, counts)),
        counters=draw(st.dictionaries(st.sampled_from(Place), counts)),
        reasons=draw(st.dictionaries(st.text("abc/-", max_size=20), counts)),
        starts=draw(counts),
        lost=draw(counts),
    )


@given(checkpoints())
def test_any_account_comes_back(checkpoint: OffsetCheckpoint) -> None:
    """What is committed is what the next owner reads, and it is plain ASCII."""
    text = encode_metadata(checkpoint)
    assert text.isascii()
    assert decode_metadata(checkpoint.partition, checkpoint.low_water_mark, text) == checkpoint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "set by hand"),
        ("someone else's", "another's"),
        ("dicom-ingest/2 {}", "version '2'; this release reads 1"),
        ("dicom-ingest/1", "damaged"),
        ('dicom-ingest/1 {"counters":{"nowhere":1}}', "damaged"),
        ('dicom-ingest/1 {"done":"B"}', "damaged"),
        ('dicom-ingest/1 {"done":"gA=="}', "a number has no end"),
        ('dicom-ingest/1 {"done":"BA=="}', "a range has no end"),
        ('dicom-ingest/1 {"attempts":{"BA==":1}}', "size"),
    ],
)
def test_a_foreign_string_stops_the_start(text: str, said: str) -> None:
    """A commit that cannot be read is an administrator's to judge: the error names the partition and the offset."""
    with pytest.raises(ForeignCommit, match=said) as caught:
        decode_metadata(3, 77, text)
    assert "partition 3" in str(caught.value)
    assert "77" in str(caught.value)


@given(st.text(max_size=60), st.integers(0, 100))
def test_nothing_but_the_documented_error_escapes(noise: str, at: int) -> None:
    """Whatever stands there."""
    text = next(reversed(GOLDEN))
    for candidate in (noise, "dicom-ingest/1 " + noise, text[:at] + noise + text[at:]):
        try:
            decode_metadata(0, 0, candidate)
        except ForeignCommit:
            continue


def test_every_reason_and_a_pinned_mark_fit() -> None:
    """The most that an account holds in practice is below the broker's limit, with room."""
    checkpoint = OffsetCheckpoint(
        partition=1000,
        low_water_mark=2**50,
        done_ranges=tuple(Range(2**50 + at, 2**50 + at + 100) for at in range(0, 257 * 180, 180)),
        counters=dict.fromkeys(Place, 10**11),
        reasons={f"{place}/reason-of-some-length-{n}": 10**9 for place in Place for n in range(5)},
        attempts={bytes([n]) * 16: 6 for n in range(8)},
        starts=9,
        lost=10**9,
    )
    assert len(encode_metadata(checkpoint)) < LIMIT
    assert msgspec.structs.asdict(checkpoint)["done_ranges"]
