"""A page of a file that the disk does not give back, as this process sees it: no file system here can be made to have one."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

PAGE: Final = 4096


class BadPlace:
    """A page of one file that the disk does not give back; the file may be moved and removed."""

    def __init__(self, path: Path, offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self._file = path.stat()
        self._offset = offset
        self._pread, self._preadv = os.pread, os.preadv
        monkeypatch.setattr(os, "pread", self.pread)
        monkeypatch.setattr(os, "preadv", self.preadv)

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        return self._pread(descriptor, self._readable(descriptor, length, offset), offset)

    def preadv(self, descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        (buffer,) = buffers
        return self._preadv(descriptor, [buffer[: self._readable(descriptor, len(buffer), offset)]], offset)

    def _readable(self, descriptor: int, length: int, offset: int) -> int:
        """As read(2): what is before the page is given, and nothing of what begins in it."""
        if not os.path.samestat(os.fstat(descriptor), self._file) or not length:
            return length
        if self._offset <= offset < self._offset + PAGE:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return min(length, self._offset - offset) if offset < self._offset else length
