"""The command set's codec."""

from collections.abc import Callable

from benchmarks.data import KINDS, UidSeries
from benchmarks.messages import command_set
from ingest.dimse import CStoreRequest
from ingest.dimse.command_set import decode_command_set


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

    return {"dimse: decode C-STORE-RQ": decode, "dimse: encode its response": respond}
