"""A storage SCU made of bytes: says exactly what a test wants said, right or wrong."""

import asyncio
import contextlib
import struct
from collections.abc import Coroutine, Iterator, Sequence
from typing import ClassVar, TypeVar

from ingest.association import AssociateRequest, PresentationContext, UserInformation
from ingest.contract.commitments import Reference
from ingest.dimse import CEchoRequest, CStoreRequest, CStoreResponse, Message, NActionRequest
from ingest.dimse.command_set import decode_command_set
from ingest.dimse.commitment_request import encode_request
from ingest.dimse.messages import Response, decode_message, has_data_set

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
COMMITMENT = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
RELEASE_RQ = struct.pack(">BxIxxxx", 5, 4)
PATIENCE = 60.0  # s, however busy the machine is
ABORT = struct.pack(">BxIxxxx", 7, 4)
T = TypeVar("T")


def explicit(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    """One element in Explicit VR Little Endian."""
    value += (b"\0" if vr in (b"UI", b"OB") else b" ") * (len(value) & 1)
    if vr in (b"OB", b"OW", b"UN", b"SQ"):
        return struct.pack("<HH2sxxI", group, element, vr, len(value)) + value
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def ct_data_set(uid: str, size: int = 2048, sop_class: str = CT) -> bytes:
    """A CT image of about ``size`` bytes, Explicit VR Little Endian, with pixels that fit its header."""
    rows = max(1, size // 128)
    numbers = {0x0002: 1, 0x0010: rows, 0x0011: 64, 0x0100: 16, 0x0101: 16, 0x0102: 15, 0x0103: 0}
    image = b"".join(
        explicit(0x28, element, b"US", struct.pack("<H", numbers[element]))
        if element in numbers
        else explicit(0x28, element, b"CS", b"MONOCHROME2")
        for element in (0x0002, 0x0004, 0x0010, 0x0011, 0x0100, 0x0101, 0x0102, 0x0103)
    )
    return (
        explicit(0x08, 0x16, b"UI", sop_class.encode())
        + explicit(0x08, 0x18, b"UI", uid.encode())
        + explicit(0x08, 0x60, b"CS", b"CT")
        + explicit(0x10, 0x10, b"PN", b"Doe^Jane")
        + explicit(0x10, 0x20, b"LO", b"4711")
        + explicit(0x20, 0x0D, b"UI", b"1.2.3.4")
        + explicit(0x20, 0x0E, b"UI", b"1.2.3.4.5")
        + image
        + explicit(0x7FE0, 0x10, b"OW", bytes(range(256)) * (rows * 128 // 256) + bytes(rows * 128 % 256))
    )


def associate(
    contexts: tuple[tuple[str, tuple[str, ...]], ...] = ((CT, (EXPLICIT,)), (VERIFICATION, (IMPLICIT,))),
    called: str = "DICOM-INGEST",
    maximum_length: int = 16384,
    calling: str = "TESTER",
) -> bytes:
    """An A-ASSOCIATE-RQ with context IDs 1, 3, 5 ..."""
    return AssociateRequest(
        called_ae_title=called,
        calling_ae_title=calling,
        contexts=tuple(
            PresentationContext(2 * number + 1, abstract, syntaxes)
            for number, (abstract, syntaxes) in enumerate(contexts)
        ),
        user_information=UserInformation(maximum_length=maximum_length, implementation_class_uid="1.2.3"),
    ).encode()


def pdv(data: bytes, *, command: bool, last: bool, context_id: int = 1) -> bytes:
    """One P-DATA-TF with one PDV."""
    return struct.pack(">BxIIBB", 4, len(data) + 6, len(data) + 2, context_id, command | last << 1) + data


def p_data(data: bytes, *, command: bool, context_id: int = 1, size: int = 16378) -> bytes:
    """A whole command or data set in P-DATA-TF PDUs."""
    starts = range(0, max(len(data), 1), size)
    return b"".join(
        pdv(data[at : at + size], command=command, last=at + size >= len(data), context_id=context_id)
        for at in starts
    )


def c_store(
    uid: str, data_set: bytes, *, message_id: int = 1, sop_class: str = CT, context_id: int = 1
) -> bytes:
    """A C-STORE-RQ with its data set."""
    command = CStoreRequest(message_id, sop_class, uid).encode()
    return p_data(command, command=True, context_id=context_id) + p_data(
        data_set, command=False, context_id=context_id
    )


def n_action(
    uids: Sequence[str] = (),
    *,
    data_set: bytes | None = None,
    transaction_uid: str = "2.25.1",
    message_id: int = 1,
    context_id: int = 5,
    explicit: bool = True,
    command: bytes | None = None,
) -> bytes:
    """An N-ACTION-RQ for CT images, in the commitment context of `commitment_association`."""
    if command is None:
        command = NActionRequest(message_id, COMMITMENT, COMMITMENT_INSTANCE, 1).encode()
    if data_set is None:
        data_set = encode_request(transaction_uid, [Reference(CT, uid) for uid in uids], explicit=explicit)
    return p_data(command, command=True, context_id=context_id) + p_data(
        data_set, command=False, context_id=context_id
    )


def commitment_association(maximum_length: int = 16384) -> bytes:
    """Contexts for images (1), echo (3), and commitment in Explicit (5) and Implicit VR (7)."""
    return associate(
        (
            (CT, (EXPLICIT,)),
            (VERIFICATION, (IMPLICIT,)),
            (COMMITMENT, (EXPLICIT,)),
            (COMMITMENT, (IMPLICIT,)),
        ),
        maximum_length=maximum_length,
    )


def c_echo(message_id: int = 1, context_id: int = 3) -> bytes:
    """A C-ECHO-RQ."""
    return p_data(CEchoRequest(message_id, VERIFICATION).encode(), command=True, context_id=context_id)


class Scu:
    """One connection of a test; `close_all` ends those that a scenario left open."""

    _open: ClassVar[list["Scu"]] = []

    @classmethod
    async def close_all(cls) -> None:
        while cls._open:
            scu = cls._open.pop()
            scu.writer.close()
            with contextlib.suppress(OSError):
                await scu.writer.wait_closed()

    @classmethod
    def forget(cls, scu: "Scu") -> None:
        """Its owner ends it."""
        if scu in cls._open:
            cls._open.remove(scu)

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.append(self)
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int) -> "Scu":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def read_nothing(self) -> None:
        """What the peer sends fills the buffers of both until `read_again`."""
        assert isinstance(self.writer.transport, asyncio.ReadTransport)
        self.writer.transport.pause_reading()

    def read_again(self) -> None:
        assert isinstance(self.writer.transport, asyncio.ReadTransport)
        self.writer.transport.resume_reading()

    @classmethod
    async def associated(cls, port: int, calling: str = "TESTER") -> "Scu":
        """Connected, with an association."""
        scu = await cls.connect(port)
        await scu.send(associate(calling=calling))
        kind, _ = await scu.pdu()
        assert kind == 2, kind
        return scu

    @classmethod
    async def committing(cls, port: int, maximum_length: int = 16384) -> "Scu":
        """Connected, with the association of `commitment_association`."""
        scu = await cls.connect(port)
        await scu.send(commitment_association(maximum_length))
        kind, _ = await scu.pdu()
        assert kind == 2, kind
        return scu

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def pdu(self, seconds: float = PATIENCE) -> tuple[int, bytes]:
        """Type and body of the next PDU."""
        async with asyncio.timeout(seconds):
            header = await self.reader.readexactly(6)
            return header[0], await self.reader.readexactly(int.from_bytes(header[2:], "big"))

    async def response(self, seconds: float = PATIENCE) -> CStoreResponse:
        """The next C-STORE-RSP."""
        kind, body = await self.pdu(seconds)
        assert kind == 4, (kind, body)
        return CStoreResponse.decode(decode_command_set(body[6:]))

    async def message(self, seconds: float = PATIENCE) -> tuple[Message, bytes, list[int]]:
        """The next message whole, its data set, and the lengths of its PDUs (each of one PDV)."""
        command, data_set, lengths = bytearray(), bytearray(), []
        while True:
            kind, body = await self.pdu(seconds)
            assert kind == 4, (kind, body)
            lengths.append(len(body))
            (command if body[5] & 1 else data_set).extend(body[6:])
            if body[5] & 2 and not (body[5] & 1 and has_data_set(decode_command_set(command))):
                return decode_message(decode_command_set(command)), bytes(data_set), lengths

    async def answer(self, seconds: float = PATIENCE) -> Response:
        """The next message, which is a response."""
        message, _, _ = await self.message(seconds)
        assert isinstance(message, Response), message
        return message

    async def store(self, uid: str, data_set: bytes | None = None) -> CStoreResponse:
        """Send an instance and await its response."""
        await self.send(c_store(uid, ct_data_set(uid) if data_set is None else data_set))
        return await self.response()

    async def release(self) -> None:
        """Release, and close."""
        await self.send(RELEASE_RQ)
        kind, _ = await self.pdu()
        assert kind == 6, kind
        await self.close()

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def closing(scenario: Coroutine[None, None, T]) -> T:
    """What a scenario returns; what it leaves open is closed, also where it fails, or the next test would fail for it."""
    try:
        return await scenario
    except BaseException:
        for scu in Scu._open:
            scu.writer.transport.abort()  # a peer that does not read is not waited for
        raise
    finally:
        await Scu.close_all()


def run_closing(scenario: Coroutine[None, None, T]) -> T:
    """Run it in an event loop of its own."""
    return asyncio.run(closing(scenario))


def uids(root: str = "1.2.826.0.1") -> Iterator[str]:
    """Fresh SOP Instance UIDs."""
    number = 0
    while True:
        number += 1
        yield f"{root}.{number}"
