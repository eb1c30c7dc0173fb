"""glibc's allocator, told to keep what is freed: frames and records are large, alike, and soon wanted again.

Blocks of more than 128 KiB come from mmap and go back at once, so every megabyte pays 256 page faults. Measured:
900 faults, 4 % of the work, for a CT frame encoded and proved. Either setting alone can be worse than none: it ends
glibc's own tuning of the other. A receiver gains nothing: both logs write an instance from where it was received.
"""

import contextlib
import ctypes
import os
from typing import Final

# mallopt(3): the parameters' numbers, and the variables of the environment that mean the same. Bytes of the smallest
# block that is mapped, at the most that is allowed; bytes free at the heap's end, which a process holds beyond its need.
_SETTINGS: Final = (
    (-3, "MALLOC_MMAP_THRESHOLD_", 32 << 20),
    (-1, "MALLOC_TRIM_THRESHOLD_", 32 << 20),
)
# The same for processes that are to be told by their environment.
VARIABLES: Final = {variable: str(value) for _, variable, value in _SETTINGS}


def keep_freed_memory() -> bool:
    """To be called once, before large buffers are made; whether it is so. The environment's word stands."""
    if any(variable in os.environ for _, variable, _ in _SETTINGS):
        return False
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        return all(mallopt(number, value) == 1 for number, _, value in _SETTINGS)
    return False
