"""Who a receiver is among those that share a commitment log."""

from pathlib import Path

from ingest.contract.spool import OsDisk
from ingest.log.commitment_claimant import claimant


def test_one_name_for_all_starts_on_a_folder(tmp_path: Path) -> None:
    """Its number grows, also when the clock jumps back."""
    disk = OsDisk()
    with claimant(disk, tmp_path, 1000) as first:
        pass
    with claimant(disk, tmp_path, 500) as second:
        pass
    with claimant(disk, tmp_path, 5000) as third:
        pass
    assert first.receiver == second.receiver == third.receiver
    assert (first.epoch, second.epoch, third.epoch) == (1000, 1001, 5000)


def test_two_at_a_time_are_two(tmp_path: Path) -> None:
    """While one runs on the folder, another has a name of its own, and leaves the first's alone."""
    disk = OsDisk()
    with claimant(disk, tmp_path, 1000) as first, claimant(disk, tmp_path, 2000) as other:
        assert other.receiver != first.receiver
    with claimant(disk, tmp_path, 3000) as again:
        assert again.receiver == first.receiver


def test_without_a_folder_the_name_is_for_this_start(tmp_path: Path) -> None:
    """A folder that cannot be made is no reason not to start."""
    (tmp_path / "file").write_bytes(b"")
    with claimant(OsDisk(), tmp_path / "file" / "data", 1000) as found:
        assert found.epoch == 1000
