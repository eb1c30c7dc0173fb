"""What a data set passes after the association: the assembler, and the copy into a record."""

from collections.abc import Callable

from benchmarks.data import EXPLICIT_VR_LITTLE_ENDIAN, KINDS, UidSeries, template
from benchmarks.messages import CONTEXT_ID, DEFAULT_PDU_LENGTH, store_message
from benchmarks.micro.association import established
from benchmarks.noop_receiver import NoopLog
from ingest.association import AcceptedContext, Fragment, FragmentRun
from ingest.contract.settings import ReceiverSettings
from ingest.dimse import CStoreRequest, MessageAssembler, MessageBegun
from ingest.instance import ChunkPool, Shares
from ingest.receiver.receiving import Peer
from ingest.receiver.sources import Grant
from ingest.receiver.storage import StorageService


def operations() -> dict[str, Callable[[int], None]]:
    """Name to what does it so many times."""
    found = template(KINDS["ct"])
    message = store_message(found).own()
    message.patch(UidSeries(1, 1).next())
    command, *items = _items(b"".join((message.first, *message.rest)))
    assert isinstance(command, Fragment)
    context = AcceptedContext(CONTEXT_ID, found.kind.sop_class_uid, EXPLICIT_VR_LITTLE_ENDIAN)
    begun = MessageAssembler().receive(command)
    assert isinstance(begun, MessageBegun)
    request = begun.message
    assert isinstance(request, CStoreRequest)

    def assemble(count: int) -> None:
        assembler = MessageAssembler()
        for _ in range(count):
            assembler.receive(command)
            for item in items:
                if isinstance(item, FragmentRun):
                    assembler.receive_run(item)
                else:
                    assembler.receive(item)

    def write(count: int) -> None:
        limits = ReceiverSettings()
        storage = StorageService(NoopLog())
        shares = Shares(ChunkPool(limits.buffer_budget), limits.fair_window, limits.fair_memory)
        grant = Grant("", shares.of("", 1))
        contexts, peer = {CONTEXT_ID: context}, Peer("A", "B", "127.0.0.1")
        for _ in range(count):
            receiving = storage.begin(request, context, contexts, peer, grant, resume=_never)
            for item in items:
                if isinstance(item, FragmentRun):
                    receiving.write_run(item.rows)
                else:
                    receiving.write(item.data)
            receiving.abandon()

    pieces = f"a CT in fragments of {DEFAULT_PDU_LENGTH // 1024} KiB"
    return {f"dimse: pass {pieces}": assemble, f"instance: copy {pieces} into a record": write}


def _items(pdus: bytes) -> list[Fragment | FragmentRun]:
    association = established()
    association.receive_data(memoryview(pdus))
    found: list[Fragment | FragmentRun] = []
    while (event := association.next_event()) is not None:
        assert isinstance(event, Fragment | FragmentRun)
        found.append(event)
    return found


def _never() -> None:
    raise AssertionError("the budget is never used up here")
