"""What a data set passes after the association: the assembler, and the copy into a record."""

from collections.abc import Callable

from benchmarks.data import EXPLICIT_VR_LITTLE_ENDIAN, KINDS, UidSeries, template
from benchmarks.messages import CONTEXT_ID, DEFAULT_PDU_LENGTH, store_message
from benchmarks.micro.association import established
from benchmarks.noop_receiver import NoopLog
from ingest.association import AcceptedContext, Fragment
from ingest.contract.settings import ReceiverSettings
from ingest.dimse import CStoreRequest, MessageAssembler, MessageBegun
from ingest.instance import ChunkPool
from ingest.receiver.storage import Peer, StorageService


def operations() -> dict[str, Callable[[int], None]]:
    """Name to what does it so many times."""
    found = template(KINDS["ct"])
    message = store_message(found).own()
    message.patch(UidSeries(1, 1).next())
    fragments = _fragments(b"".join((message.first, *message.rest)))
    data = [fragment.data for fragment in fragments if not fragment.is_command]
    context = AcceptedContext(CONTEXT_ID, found.kind.sop_class_uid, EXPLICIT_VR_LITTLE_ENDIAN)
    begun = MessageAssembler().receive(fragments[0])
    assert isinstance(begun, MessageBegun)
    request = begun.message
    assert isinstance(request, CStoreRequest)

    def assemble(count: int) -> None:
        assembler = MessageAssembler()
        for _ in range(count):
            for fragment in fragments:
                assembler.receive(fragment)

    def write(count: int) -> None:
        storage = StorageService(NoopLog(), ChunkPool(ReceiverSettings().buffer_budget))
        for _ in range(count):
            receiving = storage.begin(request, context, Peer("A", "B", "127.0.0.1"), _never)
            for piece in data:
                receiving.write(piece)
            receiving.abandon()

    pieces = f"{len(data)} fragments of {DEFAULT_PDU_LENGTH // 1024} KiB"
    return {f"dimse: pass {pieces}": assemble, f"instance: copy {pieces} into a record": write}


def _fragments(pdus: bytes) -> list[Fragment]:
    association = established()
    association.receive_data(memoryview(pdus))
    found = []
    while (event := association.next_event()) is not None:
        assert isinstance(event, Fragment)
        found.append(event)
    return found


def _never() -> None:
    raise AssertionError("the budget is never used up here")
