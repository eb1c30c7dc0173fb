"""The checkpoint file: it survives, it is replaced atomically, and damage is never taken for a position."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.checkpoint import (
    Checkpoint,
    CorruptCheckpoint,
    checkpoint_path,
    decode_checkpoint,
    encode_checkpoint,
    read_checkpoint,
    write_checkpoints,
)
from ingest.contract.records import Place

GOLDEN = Checkpoint(
    partition=3,
    low_water_mark=1 << 33,
    done={bytes(range(16)): (1 << 33) + 900},
    counters={Place.STORED: 70_000, Place.QUARANTINED: 1},
    attempts={bytes(range(16, 32)): 2},
    outcomes_end=4096,
)
GOLDEN_BYTES = bytes.fromhex(
    "4449434d434b5031"  # DICMCKP1
    "368f2138"  # CRC-32C
    "86a9706172746974696f6e03ae6c6f775f77617465725f6d61726bcf0000000200000000a4646f6e"
    "6581c410000102030405060708090a0b0c0d0e0fcf0000000200000384a8636f756e7465727382a6"
    "73746f726564ce00011170ab71756172616e74696e656401a8617474656d70747381c41010111213"
    "1415161718191a1b1c1d1e1f02ac6f7574636f6d65735f656e64cd1000"
)

checkpoints = st.builds(
    Checkpoint,
    partition=st.integers(0, 1023),
    low_water_mark=st.integers(0, 2**63),
    done=st.dictionaries(st.binary(min_size=16, max_size=16), st.integers(0, 2**63), max_size=5),
    counters=st.dictionaries(st.sampled_from(Place), st.integers(0, 2**40)),
    attempts=st.dictionaries(st.binary(min_size=16, max_size=16), st.integers(1, 9), max_size=3),
    outcomes_end=st.integers(0, 2**63),
)


@given(checkpoints)
def test_decoding_gives_what_was_encoded(checkpoint: Checkpoint) -> None:
    """decode(encode(x)) == x."""
    assert decode_checkpoint(encode_checkpoint(checkpoint)) == checkpoint


def test_yesterdays_bytes_still_decode() -> None:
    """The golden vector: these bytes were written by version 1 and are read for ever."""
    assert decode_checkpoint(GOLDEN_BYTES) == GOLDEN


@given(checkpoints, st.data())
def test_damage_is_found(checkpoint: Checkpoint, data: st.DataObject) -> None:
    """One changed byte or a cut gives CorruptCheckpoint, never another position or other counts."""
    encoded = bytearray(encode_checkpoint(checkpoint))
    at = data.draw(st.integers(0, len(encoded) - 1))
    flipped = bytearray(encoded)
    flipped[at] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(flipped), bytes(encoded[:at])):
        with pytest.raises(CorruptCheckpoint):
            decode_checkpoint(damaged)


def test_a_written_checkpoint_is_read_back(tmp_path: Path) -> None:
    """The last one written counts; none is no error."""
    path = checkpoint_path(tmp_path, 3)
    assert read_checkpoint(path) is None
    for mark in (10, 20):
        write_checkpoints(tmp_path, [Checkpoint(partition=3, low_water_mark=mark)])
    found = read_checkpoint(path)
    assert found is not None
    assert found.low_water_mark == 20
    assert [entry.name for entry in tmp_path.iterdir()] == ["3"]


def test_a_failed_write_leaves_the_former_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk while writing: the former checkpoint stands and nothing lies about."""
    path = checkpoint_path(tmp_path, 0)
    write_checkpoints(tmp_path, [Checkpoint(partition=0, low_water_mark=10)])

    def no_space(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match="no space"):
            write_checkpoints(tmp_path, [Checkpoint(partition=0, low_water_mark=20)])
    found = read_checkpoint(path)
    assert found is not None
    assert found.low_water_mark == 10
    assert [entry.name for entry in tmp_path.iterdir()] == ["0"]


def test_a_corrupt_file_is_named(tmp_path: Path) -> None:
    """The error names the file, so that an administrator finds it."""
    path = checkpoint_path(tmp_path, 0)
    path.write_bytes(b"DICMCKP1garbage")
    with pytest.raises(CorruptCheckpoint, match=str(path)):
        read_checkpoint(path)
