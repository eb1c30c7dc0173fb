"""One connection to one broker, in the event loop: requests out, responses in, in the same order.

kafka-python's own connections copy a request twice, and live in a thread of their own. What is said before images are, and
who may say it, is its: messages, and the mechanisms of SASL.
"""

import asyncio
import random
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Self, cast

import kafka.errors
from kafka.net.sasl import get_sasl_mechanism
from kafka.protocol.frame import KafkaBytes
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from ingest.contract.connecting import addresses_of
from ingest.contract.kafka import client_options
from ingest.contract.producer.record_batch import Piece
from ingest.contract.settings import KafkaSettings

CLIENT_ID: Final = "dicom-ingest"
_SIZE: Final = struct.Struct(">i")
_HEAD: Final = struct.Struct(">ii")  # size, correlation id
_LARGEST: Final = 4 * 1024 * 1024  # bytes of a response: metadata of thousands of brokers
_IDS: Final = 1 << 31
# Of a session's life (KIP-368), after which another connection takes its place: a broker closes it at the end.
_SESSION_USED: Final = 0.85

Answer = Callable[[memoryview | None], None]


class Broker(asyncio.Protocol):
    """See above. ``lost`` is told once, when the connection is gone and all that waited for a response know it."""

    def __init__(self, lost: Callable[["Broker"], None]) -> None:
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._answers: deque[tuple[int, float, Answer]] = deque()
        self._heard_at = 0.0
        self._received = bytearray()
        self._correlation_id = 0
        self._ends_at = float("inf")

    @classmethod
    async def connect(
        cls, host: str, port: int, settings: KafkaSettings, lost: Callable[["Broker"], None]
    ) -> Self:
        """A connection that is let in.

        Raises:
            OSError, KafkaError: it is not, or there is no broker.
        """
        context = None
        if settings.security_protocol.endswith("SSL"):
            context = await asyncio.to_thread(_tls_context, settings)
        broker = await cls._open(host, port, context, lost)
        if settings.security_protocol.startswith("SASL"):
            try:
                await broker.authenticate(host, settings)
            except BaseException:
                broker.abort()
                raise
        return broker

    @classmethod
    async def _open(
        cls, host: str, port: int, context: ssl.SSLContext | None, lost: Callable[["Broker"], None]
    ) -> Self:
        """Try the host's addresses, each time in another order: one that never answers takes all the time that there is."""
        loop = asyncio.get_running_loop()
        try:
            found = await addresses_of(host, port)
        except UnicodeError:
            raise kafka.errors.KafkaConnectionError("not a host name") from None
        problem = OSError("no address")
        name = host if context is not None else None
        for *_, address in random.sample(found, len(found)):
            try:
                _, broker = await loop.create_connection(
                    lambda: cls(lost), str(address[0]), port, ssl=context, server_hostname=name
                )
            except OSError as error:
                problem = error
            else:
                return broker
        raise problem

    # What the producer asks of it

    @property
    def is_open(self) -> bool:
        """Whether it is connected; if not, ``lost`` has been told."""
        return self._transport is not None

    @property
    def is_spent(self) -> bool:
        """Whether its session ends soon: nothing more is to be sent."""
        return time.monotonic() > self._ends_at

    def silence(self, now: float) -> float:
        """Seconds that the broker can have been working on the oldest request: it takes one at a time of a connection."""
        return now - max(self._answers[0][1], self._heard_at) if self._answers else 0.0

    def next_id(self) -> int:
        """The correlation id of the next request."""
        self._correlation_id = (self._correlation_id + 1) % _IDS
        return self._correlation_id

    def send(self, correlation_id: int, pieces: Sequence[Piece], answer: Answer) -> None:
        """Send a request; ``answer`` gets the response behind its correlation id, or None when the connection is lost.

        The pieces are not copied: they must stay as they are until then.
        """
        if self._transport is None:
            self._loop.call_soon(answer, None)
            return
        self._answers.append((correlation_id, time.monotonic(), answer))
        if not self._transport.is_closing():  # else `connection_lost` is on its way
            self._transport.writelines(pieces)

    async def ask(self, request: Any) -> Any:
        """Send a message of kafka-python's and return its response.

        Raises:
            KafkaError: the connection is lost, or the response is none.
        """
        future: asyncio.Future[memoryview | None] = self._loop.create_future()
        correlation_id = self.next_id()
        request.with_header(correlation_id=correlation_id, client_id=CLIENT_ID)
        self.send(
            correlation_id,
            [request.encode(framed=True, header=True)],
            lambda body: None if future.done() else future.set_result(body),
        )
        body = await future
        if body is None:
            raise kafka.errors.KafkaConnectionError("the connection is lost")
        try:
            return decode_message(request.header.get_response_class(), _SIZE.pack(correlation_id) + body)
        except kafka.errors.KafkaProtocolError:
            self.abort()
            raise

    def abort(self) -> None:
        """Close at once: what is not sent yet never is."""
        if self._transport is not None:
            self._transport.abort()

    async def authenticate(self, host: str, settings: KafkaSettings) -> None:
        """Show who we are by SASL.

        Raises:
            KafkaError: we are not let in.
        """
        answer = await self.ask(SaslHandshakeRequest[1](mechanism=settings.sasl_mechanism))
        _check(answer.error_code)
        mechanism = get_sasl_mechanism(settings.sasl_mechanism)(host=host, **client_options(settings))
        while not mechanism.is_done():
            token = mechanism.auth_bytes()
            answer = await self.ask(SaslAuthenticateRequest[1](auth_bytes=token))
            _check(answer.error_code)
            try:
                await asyncio.to_thread(mechanism.receive, answer.auth_bytes)  # it may hash for long
            except (ValueError, LookupError):
                raise kafka.errors.SaslAuthenticationFailedError("the broker does not prove itself") from None
        if not mechanism.is_authenticated():
            raise kafka.errors.SaslAuthenticationFailedError("not let in")
        if answer.session_lifetime_ms > 0:
            self._ends_at = time.monotonic() + _SESSION_USED * answer.session_lifetime_ms / 1000

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Part of a response, or several."""
        self._received += data
        while len(self._received) >= _HEAD.size:
            size, correlation_id = _HEAD.unpack_from(self._received)
            end = _SIZE.size + size
            if (
                not self._answers
                or correlation_id != self._answers[0][0]
                or not _SIZE.size <= size <= _LARGEST
            ):
                self.abort()
                return
            if len(self._received) < end:
                return
            body = memoryview(bytes(self._received[_HEAD.size : end]))
            del self._received[:end]
            _, _, answer = self._answers.popleft()
            self._heard_at = time.monotonic()
            answer(body)

    def eof_received(self) -> None:
        """The broker sends no more: whatever waits to be written would keep the connection open."""
        self.abort()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - the why changes nothing
        """It is gone, and with it whatever has no response."""
        self._transport = None
        try:
            while self._answers:
                _, _, answer = self._answers.popleft()
                answer(None)
        finally:
            self._lost(self)


def decode_message(kind: Any, frame: bytes) -> Any:
    """A message of kafka-python's ``kind``, from its correlation id on.

    Raises:
        KafkaProtocolError: it is not in its form.
    """
    found = KafkaBytes(len(frame))
    found.write(frame)
    found.seek(0)
    try:
        kind.parse_header(found)
        return kind.decode(found)
    except (ValueError, LookupError, struct.error):
        raise kafka.errors.KafkaProtocolError("a response is not in its form") from None


def _check(error_code: int) -> None:
    if error_code:
        raise kafka.errors.for_code(error_code)


def _tls_context(settings: KafkaSettings) -> ssl.SSLContext:
    """As kafka-python's: TLS 1.2 or 1.3, the broker's certificate checked for its host name, and ours where there is one."""
    context = ssl.create_default_context(cafile=settings.ssl_ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.ssl_certificate_file:
        context.load_cert_chain(
            settings.ssl_certificate_file,
            settings.ssl_key_file or None,
            settings.ssl_key_password.get_secret_value() or None,
        )
    return context
