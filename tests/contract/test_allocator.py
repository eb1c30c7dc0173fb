"""The allocator's settings: both or none, and the environment's word stands."""

import subprocess
import sys

import pytest

from ingest.contract.allocator import keep_freed_memory

# Pages that many large blocks, one after the other, need anew.
FAULTS = """
import resource, sys
from ingest.contract.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for number in range(200):
    blocks = [bytearray(512 * 1024 + number * 4096), bytearray(700 * 1024)]
    del blocks
    block = bytearray(1024 * 1024)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], check=True, capture_output=True, text=True, timeout=60
    )
    return int(done.stdout)


def test_large_blocks_are_kept() -> None:
    """A process that takes large blocks again and again pays for their pages once."""
    assert 10 * faults("kept") < faults("given back")


def test_environment_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sets the variables knows why."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    assert not keep_freed_memory()
