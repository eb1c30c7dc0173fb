"""The seal: the bytes are those received, or the instance goes no further."""

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.instances import encoded, recorded
from workers.dataset.payload import MemoryPayload
from workers.errors import Reason, Rejected
from workers.stages.seal import check_seal


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_sound_bytes_give_their_source_digest(pieces: list[bytes]) -> None:
    """However the records cut it, a sound data set has the SHA-256 of its bytes."""
    whole = b"".join(pieces)
    assert check_seal(MemoryPayload(pieces), recorded(whole)) == hashlib.sha256(whole).hexdigest()


def test_one_bit_or_one_byte_breaks_the_seal() -> None:
    """A flipped bit, a missing byte and a wrong record are all noticed."""
    data, instance = encoded("explicit")
    flipped = bytearray(data)
    flipped[100] ^= 4
    wrong = msgspec.structs.replace(instance, seal=bytes(16))
    for damaged, record in (
        (flipped, instance),
        (data[:-1], instance),
        (data + b"\0", instance),
        (data, wrong),
    ):
        with pytest.raises(Rejected) as caught:
            check_seal(MemoryPayload([damaged]), record)
        assert caught.value.reason is Reason.SEAL
