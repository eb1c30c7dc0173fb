"""Connections that we open: to hosts of several addresses, and past a name server that does not answer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.processes import free_port
from tests.support.host_names import with_hosts

ROOT = Path(__file__).resolve().parents[2]
_BEGIN = """
import asyncio, socket, sys, uvloop
from ingest.sender.requestor import AssociationFailed, Peer, connect
"""
# All that a listener takes is there, so that the system drops what comes: nothing is ever answered.
_BLACK_HOLE = (
    _BEGIN
    + """
port = int(sys.argv[1])
addresses = [found[4][0] for found in socket.getaddrinfo("modality.example", port, type=socket.SOCK_STREAM)]
hole, there = (socket.create_server((address, port), backlog=backlog) for address, backlog in zip(addresses, (0, 8)))
full = socket.create_connection(hole.getsockname())

async def main():
    _, writer = await connect(Peer("modality.example", port, "MODALITY", "ARCHIVE", timeout=6))
    print(writer.get_extra_info("peername") == there.getsockname())

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""
)
_NO_ANSWER = (
    _BEGIN
    + """
async def main():
    try:
        await connect(Peer("modality.example", 104, "MODALITY", "ARCHIVE", timeout=0.5))
    except AssociationFailed as error:
        print(error)

with asyncio.Runner(loop_factory=uvloop.new_event_loop if sys.argv[1] == "uvloop" else None) as runner:
    runner.run(main())
"""
)


def run(hosts: Path, code: str, argument: str) -> str:
    command = [*with_hosts(hosts), sys.executable, "-c", code, argument]
    return subprocess.run(
        command, check=True, cwd=ROOT, timeout=120, stdout=subprocess.PIPE, text=True
    ).stdout


def test_an_address_that_does_not_answer_hides_no_other(tmp_path: Path) -> None:
    """Of the two that a host has, one drops all that is sent to it."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 modality.example\n127.0.0.2 modality.example\n")
    assert run(hosts, _BLACK_HOLE, str(free_port())) == "True\n"


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_name_that_is_never_found_holds_no_process_up(tmp_path: Path, loop: str) -> None:
    """What looks for it cannot be broken off; the process ends all the same."""
    hosts = tmp_path / "hosts"
    os.mkfifo(hosts)
    assert (
        run(hosts, _NO_ANSWER, loop) == "cannot connect to MODALITY at modality.example:104: TimeoutError\n"
    )
