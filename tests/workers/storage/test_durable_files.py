"""What is remembered of files that are durable: the last few, as they were."""

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
