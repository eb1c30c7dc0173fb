"""The command set's codec."""

from collections.abc import Callable

from benchmarks.data import KINDS, UidSeries
from benchmarks.messages import command_set
from ingest.dimse import CStoreRequest
from ingest.dimse.command_set import decode_command_set
from ingest.dimse.plain_store import decode_plain_request, encode_success


def operations() -> dict[str, Callable[[int], None]]:
    """Name to what does it so many times."""
    encoded = command_set(KINDS["ct"].sop_class_uid, UidSeries(1, 1).next())
    request = CStoreRequest.decode(decode_command_set(encoded))

    def decode(count: int) -> None:
        for _ in range(count):
            CStoreRequest.decode(decode_command_set(encoded))

    def respond(count: int) -> None:
        for _ in range(count):
            request.respond().encode()

    def decode_plain(count: int) -> None:
        for _ in range(count):
            decode_plain_request(encoded)

    def respond_plain(count: int) -> None:
        for _ in range(count):
            encode_success(request)

    return {
        "dimse: decode C-STORE-RQ": decode_plain,
        "dimse: decode C-STORE-RQ, general codec": decode,
        "dimse: encode its response": respond_plain,
        "dimse: encode its response, general codec": respond,
    }
