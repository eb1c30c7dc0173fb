"""Requestors that break the standard in ways that DCMTK, pynetdicom and dcm4che bear: what they send is taken here, too."""

import struct
from collections.abc import Sequence

import pytest

from ingest.association.pdu import AssociateAccept, decode_pdu
from ingest.contract.settings import MiB
from ingest.dimse.data_set import encode_element
from tests.support.memory_log import MemoryLog
from tests.support.receiving import receiver, run
from tests.support.scu import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Scu,
    associate,
    c_store,
    ct_data_set,
    explicit,
    p_data,
)
from tests.vectors.pdus import APPLICATION_CONTEXT, item, pdu, text

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


def context(context_id: int, abstract_syntax: str, transfer_syntax: str = text(EXPLICIT)) -> str:
    return item("20", f"{context_id:02x}000000", item("30", abstract_syntax), item("40", transfer_syntax))


USER = item("50", item("51", "00004000"), item("52", text("1.2.3")))


async def associated(port: int, *items: str) -> tuple[Scu, dict[int, int]]:
    """Connected, with an association of these items; the result of each of its contexts."""
    scu = await Scu.connect(port)
    await scu.send(pdu("01", associate()[6:74].hex(), *items))
    kind, body = await scu.pdu()
    reply = decode_pdu(kind, memoryview(body))
    assert isinstance(reply, AssociateAccept), reply
    return scu, {context.context_id: context.result for context in reply.contexts}


def test_ae_titles_of_c_strings() -> None:
    """What stands behind a NUL in a field of PS3.8 9.3.2 is whatever was there before, and no part of the title."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log) as (port, _):
            scu = await Scu.connect(port)
            request = bytearray(associate())
            request[10:42] = b"DICOM-INGEST\0\xcd\xcd\xcd" + b"TESTER\0STORESCU\0"
            await scu.send(bytes(request))
            kind, _ = await scu.pdu()
            assert kind == 2
            assert (await scu.store(UID)).status == 0
            await scu.release()
        instance, _ = log.instances()[UID]
        assert (instance.calling_ae_title, instance.called_ae_title) == ("TESTER", "DICOM-INGEST")

    run(scenario())


@pytest.mark.parametrize(
    ("items", "results"),
    [
        ((APPLICATION_CONTEXT * 2, context(1, text(CT)), USER * 2), {1: 0}),
        ((APPLICATION_CONTEXT, context(1, text(CT)), item("50", item("51", "00004000") * 2)), {1: 0}),
        ((APPLICATION_CONTEXT, context(1, text(CT)), context(3, "312ee4"), context(5, text(CT), "e4"), USER), {1: 0, 3: 3, 5: 4}),
        ((APPLICATION_CONTEXT, context(1, text(CT) + "00cdcd", text(EXPLICIT) + "00cd"), USER), {1: 0}),
    ],
    ids=["items twice", "maximum length twice", "no UIDs", "UIDs of C strings"],
)  # fmt: skip
def test_association_items(items: Sequence[str], results: dict[int, int]) -> None:
    """What is odd in one item costs that item, and never all that the association is for."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log) as (port, _):
            scu, found = await associated(port, *items)
            assert found == results
            assert (await scu.store(UID)).status == 0
            await scu.release()
        assert log.instances()[UID][0].transfer_syntax_uid == EXPLICIT

    run(scenario())


MR = "1.2.840.10008.5.1.4.1.1.4"
PRIVATE = "1.3.12.2.1107.5.9.1"


def identified(sop_class: str) -> bytes:
    """A data set in Implicit VR that says no more than what it is."""
    uids = ((0x0008_0016, sop_class), (0x0008_0018, UID))
    return b"".join(encode_element(tag, b"UI", uid.encode(), explicit=False) for tag, uid in uids)


@pytest.mark.parametrize(
    ("sop_class", "status"), [(MR, 0), (PRIVATE, 0x0122), (VERIFICATION, 0x0122), ("1.2.3", 0x0122)]
)
def test_a_class_in_the_context_of_another(sop_class: str, status: int) -> None:
    """Some choose a context by transfer syntax alone: what is stored is what both classes were accepted for, as it was sent."""

    async def scenario() -> None:
        log = MemoryLog()
        async with receiver(log) as (port, _):
            scu, found = await associated(
                port,
                APPLICATION_CONTEXT,
                context(1, text(CT), text(IMPLICIT)),
                context(3, text(MR)),
                context(5, text(PRIVATE)),
                context(7, text(VERIFICATION), text(IMPLICIT)),
                USER,
            )
            assert found == {1: 0, 3: 0, 5: 3, 7: 0}
            await scu.send(c_store(UID, identified(sop_class), sop_class=sop_class))
            assert (await scu.response()).status == status
            await scu.send(c_store(UID, identified(CT), sop_class=MR))
            assert (await scu.response()).status == 0xA900
            await scu.release()
        kept = [(each.sop_class_uid, each.transfer_syntax_uid) for each, _ in log.instances().values()]
        assert kept == ([(MR, IMPLICIT)] if status == 0 else [])

    run(scenario())


@pytest.mark.parametrize("pixels", [b"", explicit(0x7FE0, 0x10, b"OW", bytes(2 * MiB))], ids=["none", "many"])
def test_a_data_set_out_of_order(pixels: bytes) -> None:
    """PS3.5 7.1 has tags ascending; where (0008,0018) stands before the pixels does not matter."""

    async def scenario() -> None:
        log = MemoryLog()
        others = explicit(0x08, 0x60, b"CS", b"CT") + explicit(0x10, 0x20, b"LO", b"4711")
        uids = explicit(0x08, 0x18, b"UI", UID.encode()) + explicit(0x08, 0x16, b"UI", CT.encode())
        async with receiver(log) as (port, _):
            scu = await Scu.associated(port)
            assert (await scu.store(UID, others + uids + pixels)).status == 0
            await scu.release()
        assert log.instances()[UID][1] == others + uids + pixels

    run(scenario())
