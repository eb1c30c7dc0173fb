"""RLIMIT_FSIZE for a while: what a file system's quota on the size of files is to a process; and RLIMIT_NOFILE, used up."""

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


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """This process may have three descriptors, and has more: what opens another gets EMFILE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
