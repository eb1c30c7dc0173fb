"""What is remembered of files that are durable: the last few, as they were."""

import os
from pathlib import Path

from workers.storage.durable_files import DurableFiles


def test_the_longest_known_are_forgotten_first(tmp_path: Path) -> None:
    """However many are seen, no more than the limit are kept; the one that was seen again stays."""
    durable = DurableFiles(limit=3)
    paths = [tmp_path / name for name in "abcd"]
    for path in paths:
        path.touch()
    for path in (*paths[:3], paths[0], paths[3]):
        durable.add(path.stat())
    assert [path.stat() in durable for path in paths] == [True, False, True, True]


def test_a_file_of_another_file_system_is_another_file(tmp_path: Path) -> None:
    """Where shards' folders are mounts of their own, inode numbers and even times come twice."""
    durable = DurableFiles()
    path = tmp_path / "a"
    path.touch()
    status = path.stat()
    durable.add(status)
    fields, times = (
        list(status),
        {name: getattr(status, name) for name in dir(status) if name.endswith("_ns")},
    )
    assert os.stat_result(fields, times) in durable
    fields[2] += 1  # st_dev
    assert os.stat_result(fields, times) not in durable
