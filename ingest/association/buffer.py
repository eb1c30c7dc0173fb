"""The one owner of unparsed bytes: PDU headers, whole small PDUs, and P-DATA fragments as they arrive.

Goals, each with its cost:

- A P-DATA-TF is never waited for. Its fragments are views into the caller's buffer: one slice a PDU, no copy.
- Nothing is allocated from a declared length. Bytes are kept only of what is cut by the end of a buffer: a
  header of at most 6 bytes, or an A-ASSOCIATE, whose length was compared with its limit before.
- A byte is looked at once, however the stream is cut.
"""

import numpy as np

from ingest.association.events import Fragment, FragmentRun
from ingest.association.pdu import HEADER, ONE_PDV, P_DATA_TF, PDV_HEADER, PDV_OVERHEAD, check_pdv
from ingest.association.pdu_items import invalid
from ingest.errors import LocalProtocolError

# Some requestors mix up whose maximum length is whose, and send up to theirs. Twice the announced length is
# borne and counted; beyond it PS3.8 D.1 is enforced.
OVERSHOOT = 2

# From here on one array operation is cheaper than a loop: measured at 16 KiB PDUs.
MINIMUM_RUN = 48 * 1024
# Fragments of a run at most. What it takes to see that headers are not equal is paid for each run, so it must not grow
# with a buffer full of tiny PDUs, of which a peer makes every second one different. Of 4 KiB, a buffer has as many.
LONGEST_RUN = 64

_NOTHING = memoryview(b"")
_HEADERS_SIZE = ONE_PDV.size
_FOR_EVER = 1 << 63
# (is_command, is_last) of a message control header; PS3.8 E.2: bits 2 to 7 are not checked.
_CONTROL = ((False, False), (True, False), (False, True), (True, True)) * 64


def _equal_at_start(headers: bytes) -> int:
    """How many headers at the start are equal to the first."""
    first = headers[:_HEADERS_SIZE]
    count = 1
    while headers.startswith(first, count * _HEADERS_SIZE):
        count += 1
    return count


class ReceiveBuffer:
    """Cuts the byte stream of one association.

    ``maximum_length`` is the PDU-length of a P-DATA-TF that was announced to the peer, ``contexts`` are the
    presentation contexts that a PDV may name; both are set when the association is established.
    ``oversized`` counts the PDUs that were longer and yet borne.
    """

    __slots__ = (
        "_at",
        "_context_id",
        "_control",
        "_end",
        "_header",
        "_held",
        "_pdu_left",
        "_pdv_left",
        "_skip",
        "_view",
        "contexts",
        "maximum_length",
        "oversized",
    )

    def __init__(self) -> None:
        self._view = _NOTHING
        self._at = 0
        self._end = 0
        self._held = bytearray()
        self._header: tuple[int, int] | None = None
        self._skip = 0  # bytes of a PDU that nobody wants
        self._pdu_left = 0  # bytes of the P-DATA-TF not yet read
        self._pdv_left = -1  # bytes of the PDV not yet read; -1 between PDVs
        self._context_id = 0
        self._control = 0
        self.contexts: frozenset[int] = frozenset()
        self.maximum_length = 0
        self.oversized = 0

    def feed(self, data: memoryview) -> None:
        """Take the next bytes. What was fed before must have been used up."""
        if self._at < self._end:
            raise LocalProtocolError("bytes were received before the earlier ones were used up")
        self._view = data
        self._at = 0
        self._end = len(data)

    def keep_unread(self) -> None:
        """Copy what is not used up yet: the memory behind it is about to be used again."""
        if self._at < self._end:
            self._view = memoryview(bytes(self._view[self._at : self._end]))
            self._at = 0
            self._end = len(self._view)

    def data(self) -> Fragment | FragmentRun | None:
        """The next piece of P-DATA, or ``None`` when a header or more bytes come first.

        Raises:
            RemoteProtocolError: the PDU breaks PS3.8 9.3.5; nothing after it can be understood.
        """
        if self._pdu_left or self._held or self._header or self._skip:
            return self._piece() if self._pdu_left else None
        at = self._at
        start = at + _HEADERS_SIZE
        if start > self._end:
            return None
        # The tight path: a whole PDU of one PDV lies in the buffer, perhaps with others like it behind.
        kind, length, pdv_length, context_id, control = ONE_PDV.unpack_from(self._view, at)
        stop = at + 6 + length
        if (
            kind != P_DATA_TF
            or stop > self._end
            or length > self.maximum_length
            or pdv_length != length - 4
            or pdv_length < 2  # noqa: PLR2004 - context ID and control header
            or pdv_length & 1
            or context_id not in self.contexts
        ):
            return None
        is_command, is_last = _CONTROL[control]
        if self._end - at >= MINIMUM_RUN and not control & 3:
            run = self._run(context_id, stop - at)
            if run is not None:
                return run
        self._at = stop
        return Fragment(context_id, is_command, is_last, self._view[start:stop])

    def _run(self, context_id: int, stride: int) -> FragmentRun | None:
        """Fragments of one data set in whole PDUs of ``stride`` bytes, or ``None`` where the next has no equal.

        The headers of the run are equal to the first one, byte for byte, so one check serves all.
        """
        at = self._at
        count = min((self._end - at) // stride, LONGEST_RUN)
        if count < 2 or stride == _HEADERS_SIZE:  # noqa: PLR2004 - one is a fragment; a row must have a width
            return None
        pdus = np.frombuffer(self._view, np.uint8, count * stride, at).reshape(count, stride)
        headers = pdus[:, :_HEADERS_SIZE].tobytes()
        if headers != headers[:_HEADERS_SIZE] * count:
            count = _equal_at_start(headers)
            if count < 2:  # noqa: PLR2004 - one is a fragment
                return None
        self._at = at + count * stride
        return FragmentRun(context_id, pdus[:count, _HEADERS_SIZE:])

    def header(self) -> tuple[int, int] | None:
        """Type and PDU-length of the next PDU, until it is taken; ``None`` when more bytes are needed."""
        if self._at == self._end:
            return None  # of a header at hand too: its body needs more bytes
        if self._header is None and not self._pdu_left and self._skipped():
            header = self._take(HEADER.size)
            if header is not None:
                kind, length = HEADER.unpack(header)
                self._header = kind, length
        return self._header

    def take_body(self, length: int) -> memoryview | None:
        """The whole body of the PDU whose header is at hand, its length checked before; or ``None``."""
        body = self._take(length)
        if body is not None:
            self._header = None
        return body

    def skip_body(self, length: int) -> None:
        """Drop the body of the PDU whose header is at hand, as it arrives."""
        self._header = None
        self._skip = length - len(self._held)
        self._held.clear()

    def begin_data(self, length: int) -> None:
        """The header at hand is of a P-DATA-TF that is wanted: `data` gives its pieces.

        Raises:
            RemoteProtocolError: far longer than was announced (PS3.8 D.1), or without room for a PDV.
        """
        if length > self.maximum_length:
            if length > OVERSHOOT * self.maximum_length:
                raise invalid("a P-DATA-TF PDU is longer than twice the maximum that was announced")
            self.oversized += 1
        if length < PDV_OVERHEAD:
            raise invalid("a P-DATA-TF PDU has no PDV")
        self._header = None
        self._pdu_left = length

    def drop_data(self) -> None:
        """Skip what is left of a P-DATA-TF: the association has ended within it."""
        if self._pdu_left:
            self._skip = self._pdu_left - len(self._held)  # part of a PDV's header may have been kept
            self._held.clear()
            self._pdu_left = 0
            self._pdv_left = -1

    def close(self) -> None:
        """Forget everything, and skip whatever comes from now on: it is not understood."""
        self._view = _NOTHING
        self._at = self._end = 0
        self._held = bytearray()
        self._header = None
        self._pdu_left = 0
        self._pdv_left = -1
        self._skip = _FOR_EVER

    def _piece(self) -> Fragment | None:
        """The next piece of the P-DATA-TF in progress."""
        if self._pdv_left < 0 and not self._begin_pdv():
            return None
        size = min(self._pdv_left, self._end - self._at)
        if size == 0 and self._pdv_left:
            return None
        data = self._view[self._at : self._at + size]
        self._at += size
        self._pdu_left -= size
        self._pdv_left -= size
        is_command, is_last = _CONTROL[self._control]
        if self._pdv_left:
            is_last = False
        else:
            self._pdv_left = -1
        return Fragment(self._context_id, is_command, is_last, data)

    def _begin_pdv(self) -> bool:
        header = self._take(min(PDV_OVERHEAD, self._pdu_left))
        if header is None:
            return False
        check_pdv(header, self._pdu_left)
        length, self._context_id, self._control = PDV_HEADER.unpack(header)
        if self._context_id not in self.contexts:
            raise invalid("a PDV names a presentation context that was not accepted")
        self._pdu_left -= PDV_OVERHEAD
        self._pdv_left = length - 2
        return True

    def _skipped(self) -> bool:
        """Skip what is to be skipped; whether all of it has come."""
        size = min(self._skip, self._end - self._at)
        self._at += size
        self._skip -= size
        return self._skip == 0

    def _take(self, length: int) -> memoryview | None:
        """The next ``length`` bytes in one piece, or ``None`` after keeping what there is of them."""
        held = self._held
        at = self._at
        if not held and at + length <= self._end:
            self._at = at + length
            return self._view[at : at + length]
        size = min(length - len(held), self._end - at)
        held += self._view[at : at + size]
        self._at = at + size
        if len(held) < length:
            return None
        self._held = bytearray()
        return memoryview(held)
