"""Marks of uploads in work outlive a killed process and nothing else."""

import signal
import subprocess
import sys
from pathlib import Path

from ingest.contract.identifiers import UploadId
from workers.log.in_hand import SLOTS, InHand

A = UploadId.of(1, 2, 3)
B = UploadId.of(1, 2, 4)


def test_marks_of_a_killed_process_are_found(tmp_path: Path) -> None:
    """What was marked and not cleared when SIGKILL came is there for the next process."""
    script = f"""
import os, signal
from pathlib import Path
from ingest.contract.identifiers import UploadId
from workers.log.in_hand import InHand
hand = InHand(Path({str(tmp_path / "marks")!r}))
hand.mark(UploadId.of(1, 2, 3))
hand.mark(UploadId.of(1, 2, 4))
hand.clear(UploadId.of(1, 2, 3))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    hand = InHand(tmp_path / "marks")
    assert hand.left == {B}
    hand.close()
    again = InHand(tmp_path / "marks")
    assert again.left == {B}, "opening alone must not forget: the attempt may not be durable yet"
    again.clear_left()
    again.close()
    assert not InHand(tmp_path / "marks").left


def test_slots_are_used_again(tmp_path: Path) -> None:
    """Many uploads one after the other need no more than their slot; all slots can be in use at once."""
    hand = InHand(tmp_path / "marks")
    for sequence in range(3 * SLOTS):
        hand.mark(UploadId.of(1, 1, sequence))
        hand.clear(UploadId.of(1, 1, sequence))
    for sequence in range(1, SLOTS + 1):
        hand.mark(UploadId.of(1, 1, sequence))
    hand.close()
    assert len(InHand(tmp_path / "marks").left) == SLOTS
    assert (tmp_path / "marks").stat().st_size == SLOTS * 16
