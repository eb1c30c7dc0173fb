"""What another process appends to a file while we look."""

from pathlib import Path


def whole_lines(file: Path, start: int = 0) -> list[bytes]:
    """The lines from the byte ``start`` on. One that is not whole yet is left for the next look."""
    return file.read_bytes()[start:].rpartition(b"\n")[0].splitlines()
