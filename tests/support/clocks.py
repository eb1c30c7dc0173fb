"""The wall clock of a child process, wrong by any number of seconds, which may change while it runs.

A few lines of C stand before the C library's own calls, so that everything in the process is told the same,
whatever language it is written in. Monotonic clocks, sleeps and timers are the machine's. (libfaketime would
do, but what Debian 12 has of it makes sleeping fail.)
"""

import mmap
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

_SOURCE: Final = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const long long *offset;

__attribute__((constructor)) static void start(void) {
    const char *name = getenv("CLOCK_FILE");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *found = mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (found != MAP_FAILED) offset = found;
    close(file);
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, id, now);
    if (!result && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (result) *result = exact.tv_sec;
    return exact.tv_sec;
}
"""


class Clock:
    """One that processes share which have its `environment`."""

    def __init__(self, folder: Path) -> None:
        """``folder``: of its own; the library is built beside it, once."""
        folder.mkdir(parents=True, exist_ok=True)
        self._library = _built(folder.parent)
        self._file = folder / "clock"
        self._file.write_bytes(bytes(8))
        with self._file.open("r+b") as file:
            self._offset = mmap.mmap(file.fileno(), 8)

    def set(self, seconds: int) -> None:
        """So many seconds before or behind the machine's, at once."""
        self._offset[:] = struct.pack("=q", seconds)

    @property
    def environment(self) -> dict[str, str]:
        """For a process that shall go by it."""
        return {"LD_PRELOAD": str(self._library), "CLOCK_FILE": str(self._file)}


def _built(folder: Path) -> Path:
    library = folder / "clock.so"
    if library.exists():
        return library
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise RuntimeError("a C compiler is missing: install the system packages gcc and libc6-dev")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-o", str(library), "-x", "c", "-"],
        input=_SOURCE, text=True, check=True,
    )  # fmt: skip
    return library
