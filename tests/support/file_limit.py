"""RLIMIT_FSIZE for a while: what a file system's quota on the size of files is to a process."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def longest_file(size: int) -> Iterator[None]:
    """This process may write no file beyond ``size`` bytes; what tries gets EFBIG, and SIGXFSZ, which Python ignores."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
