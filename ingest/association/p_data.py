"""Commands and data sets cut into P-DATA-TF PDUs that fit the peer's maximum length (PS3.8 D.1, Annex E)."""

from ingest.association.pdu import LAST, ONE_PDV, P_DATA_TF, PDV_OVERHEAD
from ingest.errors import LocalProtocolError


def fragment_limit(maximum_length: int) -> int:
    """The longest fragment for a peer that announced ``maximum_length`` (PS3.8 D.1, E.2): even.

    Raises:
        LocalProtocolError: not even two bytes fit; negotiation refuses such a peer.
    """
    limit = (maximum_length - PDV_OVERHEAD) & ~1
    if limit < 2:  # noqa: PLR2004 - the shortest even fragment that carries anything
        raise LocalProtocolError(f"no fragment fits in PDUs of {maximum_length} bytes")
    return limit


def _fragment_header(context_id: int, control: int, length: int) -> bytes:
    return ONE_PDV.pack(P_DATA_TF, length + PDV_OVERHEAD, length + 2, context_id, control)


def encode_command(context_id: int, command: bytes, maximum_length: int) -> bytes:
    """A command set as P-DATA-TF PDUs, one bytes object, so that it leaves in one segment."""
    limit = fragment_limit(maximum_length)
    if len(command) <= limit:
        return _fragment_header(context_id, 1 | LAST, len(command)) + command
    pieces: list[bytes] = []
    for start in range(0, len(command), limit):
        piece = command[start : start + limit]
        last = start + limit >= len(command)
        pieces += (_fragment_header(context_id, 1 | last << 1, len(piece)), piece)
    return b"".join(pieces)


def encode_data_set(
    context_id: int, data: memoryview, maximum_length: int, *, last: bool
) -> list[bytes | memoryview]:
    """A piece of a data set as P-DATA-TF PDUs: headers and views into ``data`` by turns, nothing joined.

    Args:
        context_id: where the command went.
        data: the next bytes of the data set, an even number of them.
        maximum_length: what the peer announced.
        last: whether the data set ends with them; an empty last piece is one empty fragment.

    Raises:
        LocalProtocolError: ``data`` is odd (PS3.8 E.2: fragments are even).
    """
    if len(data) & 1:
        raise LocalProtocolError("a piece of a data set has an odd length")
    limit = fragment_limit(maximum_length)
    rest = len(data) % limit or min(limit, len(data))
    header = _fragment_header(context_id, 0, limit)
    buffers: list[bytes | memoryview] = []
    for start in range(0, len(data) - rest, limit):
        buffers += (header, data[start : start + limit])
    if data or last:
        buffers += (_fragment_header(context_id, last << 1, rest), data[len(data) - rest :])
    return buffers
