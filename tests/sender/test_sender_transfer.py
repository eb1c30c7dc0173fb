"""Files and peers that fail while instances are sent: each costs what it must, and nothing waits for ever."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingest.association import (
    Accepted,
    AcceptorPolicy,
    AssociateRequest,
    AssociateRequested,
    Association,
    Fragment,
    ReleaseRequested,
    SendPdu,
    negotiate,
)
from ingest.association.pdu_items import PresentationContextResult
from ingest.dimse import CEchoRequest, CEchoResponse, CStoreRequest, MessageAssembler, MessageBegun
from ingest.errors import RemoteProtocolError
from ingest.sender import AssociationFailed, Peer, Requestor, Summary, send_files
from ingest.sender.contexts import contexts_of
from ingest.sender.files import DicomFile
from tests.support.asynchronous import asynchronous
from tests.support.memory_log import MemoryLog
from tests.support.receiving import receiver
from tests.support.scu import CT, EXPLICIT, ct_data_set

PIECE = bytes(1024 * 1024)


def peer(port: int, timeout: float = 60.0) -> Peer:
    return Peer("127.0.0.1", port, "DICOM-INGEST", "TESTER", timeout)


@asynchronous
async def test_a_file_that_is_gone_costs_itself_alone(tmp_path: Path) -> None:
    """Removed or cut since it was found: it is named with the reason, and the others go, however many are like it."""
    files = written(tmp_path, 2048, count=9)
    for file in files[:4]:
        file.path.unlink()
    for file in files[4:6]:
        os.truncate(file.path, file.size - 3)
    log, summary = MemoryLog(), Summary()
    async with receiver(log) as (port, _):
        await send_files(peer(port), files, summary, associations=1, progress=lambda _: None)
    assert (summary.sent, summary.failed) == (3, 6)
    assert set(log.instances()) == {"1.2.6", "1.2.7", "1.2.8"}
    assert [path.name for path, _ in summary.failures] == list("012345")
    assert summary.statuses == {
        "the file cannot be read any more: No such file or directory": 4,
        "the file has changed since it was found": 2,
        "0000H success": 3,
    }


@asynchronous
async def test_a_file_that_is_another_by_now_is_not_sent_under_its_name(tmp_path: Path) -> None:
    """As where exports go round in the same names: what is there now has other UIDs than the request says."""
    files = written(tmp_path, 2048)
    files[1].path.write_bytes(ct_data_set("1.3.1", 2048))
    changed_later(files[1].path)
    summary = await sent_to(Hasty, files)
    assert [file.path.name for file in summary.stored] == ["0", "2", "3"]
    assert summary.failures == [(files[1].path, "the file has changed since it was found")]


@asynchronous
async def test_a_file_that_is_written_while_it_is_sent_never_arrives(tmp_path: Path) -> None:
    """Half of one content and half of another would be an instance that nobody has made."""
    (file,) = written(tmp_path, 3 * len(PIECE), count=1)

    def change(_size: int) -> None:
        with file.path.open("r+b") as written_to:
            written_to.seek(2 * len(PIECE))
            written_to.write(b"\xee" * 1024)
        changed_later(file.path)

    log, summary = MemoryLog(), Summary()
    async with receiver(log) as (port, _):
        await send_files(peer(port), [file], summary, associations=1, progress=change)
    assert (summary.sent, summary.failures) == (0, [(file.path, "the file has changed since it was found")])
    assert not log.instances()


def changed_later(path: Path) -> None:
    """As if it had been written a while later: a file system's clock may be coarse."""
    later = path.stat().st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(later, later))


@asynccontextmanager
async def deaf() -> AsyncIterator[int]:
    """A peer that accepts an association, and reads no more."""
    over = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        association = Association()
        association.transport_opened()
        answered = False
        while not answered:
            association.receive_data(memoryview(await reader.read(65536)))
            while (event := association.next_event()) is not None:
                if isinstance(event, AssociateRequested):
                    association.answer(negotiate(event.request, AcceptorPolicy("DICOM-INGEST")))
                elif isinstance(event, SendPdu):
                    writer.write(event.pdu)
                    answered = True
        await over.wait()
        writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        over.set()
        server.close()
        await server.wait_closed()


class Hasty:
    """A peer that aborts in the same segment as its acceptance, its response, or one before the data set is whole, if at all."""

    def __init__(self, after: str) -> None:
        self._after = after
        self._association, self._assembler = Association(), MessageAssembler()
        self._association.transport_opened()
        self._request: CStoreRequest | None = None

    def answer(self, data: bytes) -> bytes:
        """What it sends, in one piece."""
        association, out = self._association, b""
        association.receive_data(memoryview(data))
        while (event := association.next_event()) is not None:
            if isinstance(event, AssociateRequested):
                association.answer(self._accept(event.request))
                if self._after == "acceptance":
                    association.abort()
            elif isinstance(event, SendPdu):
                out += event.pdu
            elif isinstance(event, Fragment):
                self._take(event)
            elif isinstance(event, ReleaseRequested):
                association.release_response()
        return out

    def _accept(self, request: AssociateRequest) -> Accepted:
        accepted = negotiate(request, AcceptorPolicy("DICOM-INGEST"))
        assert isinstance(accepted, Accepted)
        return accepted

    def _take(self, fragment: Fragment) -> None:
        found = self._assembler.receive(fragment)
        if isinstance(found, MessageBegun):
            assert isinstance(found.message, CStoreRequest)
            self._request = found.message
        early = self._after == "early response"
        if self._request is not None and (early or (fragment.is_last and not fragment.is_command)):
            self._association.send_command(1, self._request.respond(0xA700 if early else 0).encode())
            if self._after:
                self._association.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(16384):
                    writer.write(self.answer(data))
        finally:
            writer.close()


class Repeating(Hasty):
    """A peer that takes the first file of an association, says so once more within the next, and refuses that."""

    def _take(self, fragment: Fragment) -> None:
        found, before = self._assembler.receive(fragment), self._request
        if isinstance(found, MessageBegun):
            assert isinstance(found.message, CStoreRequest)
            self._request = found.message
            if before is not None:
                self._association.send_command(1, before.respond().encode())
        elif fragment.is_last and before is not None:
            status = 0x0000 if before.message_id == 1 else 0xA700
            self._association.send_command(1, before.respond(status).encode())


class Asking(Hasty):
    """A peer that asks for a C-ECHO as soon as a data set begins, and refuses one that the answer comes within."""

    _asked = False

    def _take(self, fragment: Fragment) -> None:
        begins = self._request is not None and not self._asked
        try:
            found = self._assembler.receive(fragment)
        except RemoteProtocolError as fault:
            self._association.abort(fault)
            return
        if isinstance(found, MessageBegun) and isinstance(found.message, CStoreRequest):
            self._request = found.message
        elif isinstance(found, MessageBegun):
            assert isinstance(found.message, CEchoResponse)
            assert self._request is not None
            self._association.send_command(1, self._request.respond().encode())
        elif begins:
            self._asked = True
            self._association.send_command(1, CEchoRequest(7, CT).encode())


class Talkative(Hasty):
    """A peer that answers one presentation context twice, and others that nobody has proposed; it takes all files."""

    def _accept(self, request: AssociateRequest) -> Accepted:
        accepted = super()._accept(request)
        more = (PresentationContextResult(1, 3, ""), PresentationContextResult(99, 0, EXPLICIT))
        contexts = (*accepted.reply.contexts, *more, PresentationContextResult(101, 4, ""))
        return replace(accepted, reply=replace(accepted.reply, contexts=contexts))


@asynccontextmanager
async def hasty(*, after: str, peer: type[Hasty] = Hasty) -> AsyncIterator[int]:
    """Listens; each association is a new one."""
    associations: list[asyncio.Task[None]] = []

    def accept(*streams: Any) -> None:
        associations.append(asyncio.create_task(peer(after).accept(*streams)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
        # Whoever sends has left each; what ends here later would find the loop closed.
        await asyncio.gather(*associations)
    finally:
        server.close()
        await server.wait_closed()


def written(folder: Path, size: int, count: int = 4) -> list[DicomFile]:
    """Files to send."""
    files = []
    for number in range(count):
        path = folder / str(number)
        path.write_bytes(data_set := ct_data_set(f"1.2.{number}", size))
        written_at = path.stat().st_mtime_ns
        files.append(DicomFile(path, CT, f"1.2.{number}", EXPLICIT, 0, len(data_set), written_at))
    return files


def opened_in(folder: Path) -> list[Path]:
    """The files there that this process holds open."""
    opened = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            opened.append(descriptor.readlink())
    return [path for path in opened if folder in path.parents]


@asynchronous
@pytest.mark.parametrize("after", ["acceptance", "response", "early response"])
async def test_a_peer_that_aborts_right_behind_an_answer(tmp_path: Path, after: str) -> None:
    """It costs what it must: what was answered counts, the next file has another association, and nothing is a defect."""
    files = written(tmp_path, 4 * len(PIECE) if after == "early response" else 2048)
    summary = Summary()
    async with hasty(after=after) as port:
        await send_files(peer(port), files, summary, associations=1, progress=lambda _: None)
        assert not opened_in(tmp_path), "left to the interpreter"
    assert (summary.sent, summary.failed) == ((4, 0) if after == "response" else (0, 4))
    assert not [
        why
        for _, why in summary.failures
        if "ended: the peer sent A-ABORT" not in why and "not tried" not in why
    ]


async def sent_to(kind: type[Hasty], files: list[DicomFile]) -> Summary:
    """What becomes of files that such a peer is sent."""
    summary = Summary()
    async with hasty(after="", peer=kind) as port:
        await send_files(peer(port), files, summary, associations=1, progress=lambda _: None)
    return summary


@asynchronous
async def test_an_answer_to_another_request_is_none(tmp_path: Path) -> None:
    """A second response to the file before, as from a peer that repeats itself, makes none of a file that is refused."""
    summary = await sent_to(Repeating, written(tmp_path, 2048))
    assert [file.path.name for file in summary.stored] == ["0", "2"]
    assert {why for _, why in summary.failures} == {"the peer answered another request"}


@asynchronous
async def test_no_answer_comes_within_a_data_set(tmp_path: Path) -> None:
    """PS3.8 Annex E: what a peer asks while an instance is sent to it is answered behind the instance."""
    summary = await sent_to(Asking, written(tmp_path, 4 * len(PIECE))[:1])
    assert (summary.sent, summary.failures) == (1, [])


@asynchronous
async def test_answers_to_what_was_not_proposed(tmp_path: Path) -> None:
    """A peer may answer more than it was asked, as to DCMTK and pynetdicom; of a context the first answer counts."""
    summary = await sent_to(Talkative, written(tmp_path, 2048))
    assert (summary.sent, summary.failures) == (4, [])


async def endless() -> AsyncIterator[memoryview]:
    while True:
        yield memoryview(PIECE)


@asynchronous
async def test_a_peer_that_does_not_read_keeps_nobody() -> None:
    """What was sent last can not reach it: the connection is dropped with the association, not closed in order."""
    async with deaf() as port, asyncio.timeout(60):
        with pytest.raises(AssociationFailed, match="cannot send to"):
            async with Requestor(peer(port, timeout=0.5), contexts_of([(CT, EXPLICIT)])) as requestor:
                await requestor.store(1, CT, "1.2.3", endless())
