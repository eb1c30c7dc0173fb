"""Requestors that break the standard in ways that DCMTK, pynetdicom and dcm4che bear: what they send is taken here, too."""

import struct
from collections.abc import Sequence

import pytest

from tests.support.memory_log import MemoryLog
from tests.support.receiving import receiver, run
from tests.support.scu import CT, Scu, ct_data_set, p_data

UID = "1.2.826.1"


def elements(*ordered: tuple[int, bytes]) -> bytes:
    """A command set of these elements as they are, by tag."""
    return b"".join(
        struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value for tag, value in ordered
    )


GROUP_LENGTH = (0x0000_0000, b"\x7c\0\0\0")
CLASS = (0x0000_0002, CT.encode() + b"\0")
FIELD = (0x0000_0100, b"\1\0")
MESSAGE_ID = (0x0000_0110, b"\7\0")
PRIORITY = (0x0000_0700, b"\0\0")
DATA_SET_TYPE = (0x0000_0800, b"\0\0")
INSTANCE = (0x0000_1000, UID.encode() + b"\0")


@pytest.mark.parametrize(
    "command",
    [
        (CLASS, FIELD, MESSAGE_ID, PRIORITY, DATA_SET_TYPE, INSTANCE),
        (GROUP_LENGTH, FIELD, MESSAGE_ID, PRIORITY, DATA_SET_TYPE, CLASS, INSTANCE),
        (CLASS, FIELD, MESSAGE_ID, PRIORITY, DATA_SET_TYPE, INSTANCE, GROUP_LENGTH),
        (GROUP_LENGTH, (0x0000_0001, bytes(4)), CLASS, FIELD, MESSAGE_ID, DATA_SET_TYPE, INSTANCE),
        (GROUP_LENGTH, CLASS, FIELD, MESSAGE_ID, PRIORITY, DATA_SET_TYPE, INSTANCE, (0x0009_0010, b"ACME")),
    ],
    ids=["no group length", "unsorted", "group length last", "length to end, no priority", "private"],
)
def test_command_sets(command: Sequence[tuple[int, bytes]]) -> None:
    """PS3.7 6.3.1 has the group length first and tags ascending; nothing that is done depends on either."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log) as (port, _):
            scu = await Scu.associated(port)
            await scu.send(p_data(elements(*command), command=True) + p_data(ct_data_set(UID), command=False))
            answer = await scu.response()
            assert (answer.status, answer.message_id_being_responded_to) == (0, 7)
            assert (answer.affected_sop_class_uid, answer.affected_sop_instance_uid) == (CT, UID)
            await scu.release()
        assert set(log.instances()) == {UID}

    run(scenario())
