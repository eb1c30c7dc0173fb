"""A file system of a few megabytes that a test can fill to the last byte."""

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_PAGE: Final = 4096  # bytes, in which a tmpfs gives room

# The mount lives in the namespace of one child process and goes with it, however the test ends.
_MOUNT = """mount -t tmpfs -o size="$1" none "$2" && echo mounted && read -r _ &&
mount -o remount,ro "$2" && echo read-only && exec cat"""


class SmallDisk:
    """A tmpfs of ``size`` (as mount(8) takes it), found at ``path`` by every process of this user."""

    def __init__(self, folder: Path, size: str) -> None:
        folder.mkdir()
        own = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
        self._keeper = subprocess.Popen(
            [*own, "sh", "-c", _MOUNT, "sh", size, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == b"mounted\n"
        self.path = Path(f"/proc/{self._keeper.pid}/root{folder.resolve()}")
        self._ballast = self.path / "ballast"

    @property
    def free(self) -> int:
        """Bytes that can still be written."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Let a file that has nothing to do with the pipeline take all but ``leave`` bytes.

        Others write meanwhile. What does not fit any more is given back whole, so ever less is asked for: in one piece, the
        last page that another takes costs all that was taken, again and again.
        """
        piece = self.free
        with self._ballast.open("ab") as file:
            while (room := self.free - leave) > 0:
                try:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, min(piece, room))
                except OSError:
                    if piece <= _PAGE:
                        return
                    piece = max(piece // 2, _PAGE)

    def become_read_only(self) -> None:
        """As a disk that is mounted so, or that the kernel no longer trusts."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.write(b"\n")
        self._keeper.stdin.flush()
        assert self._keeper.stdout.readline() == b"read-only\n"

    def relieve(self) -> None:
        """Remove that file."""
        self._ballast.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeper.kill()
        self._keeper.communicate()
