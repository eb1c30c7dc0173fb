"""The codec process: takes one frame at a time from shared memory, answers, and waits for the next.

    python -P -m workers.pixels.codec_process SOCKET MEMORY PARENT ADDRESS_SPACE

Nothing it is given may harm more than itself: it has an address space limit, can open no file and no
socket once its libraries are loaded, cannot fork, writes no core dump (which would hold pixels), and dies
with its parent. The parent kills it when a frame takes too long.
"""

import ctypes
import os
import resource
import signal
import socket
import sys
from typing import Final

from ingest.contract.allocator import keep_freed_memory
from workers.pixels.form import (
    ENCODE,
    READY,
    REQUEST_SIZE,
    CodecFailed,
    Failure,
    Request,
    encode_answer,
    encode_failure,
)

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def _confine(parent: int, address_space: int) -> None:
    """Limits that need no library and hold from the start."""
    # Ctrl-C in a terminal goes to the whole group; the worker decides when its codec ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        raise SystemExit(0)
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_FSIZE, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    keep_freed_memory()


def _confine_further() -> None:
    """Once all code is loaded: no descriptor beyond those that are open, no further process."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def perform(request: Request, data: memoryview) -> bytes:
    """Carry out one request.

    Raises:
        CodecFailed: it gave no result.
    """
    from workers.pixels import decoders  # noqa: PLC0415 - loaded only after the limits are set

    if request.operation == ENCODE:
        return decoders.encode_proved(data, request.form, transform=request.transform)
    return decoders.decode(data, request.coding, request.form)


def _read(memory: int, length: int) -> memoryview:
    """The data of a request. A copy: mapping the memory would need one more descriptor."""
    data = memoryview(bytearray(length))
    position = 0
    while position < length:
        count = os.preadv(memory, [data[position:]], position)
        if not count:
            raise CodecFailed(Failure.CRASHED, "the data is not all there")
        position += count
    return data


def _answer(message: bytes, memory: int) -> bytes:
    """Perform a request on what lies in the memory, and put the result there."""
    request = Request.decode(message)
    try:
        result = memoryview(perform(request, _read(memory, request.length)))
    except CodecFailed as failure:
        return encode_failure(failure.reason, failure.detail)
    except MemoryError:
        return encode_failure(Failure.MEMORY, "the address space limit was met")
    written = 0
    while written < len(result):
        written += os.pwrite(memory, result[written:], written)
    return encode_answer(len(result))


def main(arguments: list[str]) -> None:
    """Serve until the parent closes its end."""
    channel, memory, parent, address_space = (int(argument) for argument in arguments)
    _confine(parent, address_space)
    with socket.socket(fileno=channel) as peer:
        import workers.pixels.decoders  # noqa: F401, PLC0415 - all code is loaded before the door is shut

        _confine_further()
        peer.send(READY)
        while message := peer.recv(REQUEST_SIZE):
            peer.send(_answer(message, memory))


if __name__ == "__main__":
    main(sys.argv[1:])
