"""A clock of a process that a test moves while the process runs: a library in front of libc's, and a file with the offset."""

import shutil
import struct
import subprocess
from pathlib import Path

_SOURCE = """\
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_OFFSET_FILE");
    int file = path ? open(path, O_RDONLY) : -1;
    void *at = file < 0 ? MAP_FAILED : mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
    offset = at == MAP_FAILED ? 0 : at;
}

int clock_gettime(clockid_t id, struct timespec *to) {
    int failed = syscall(SYS_clock_gettime, id, to);
    if (!failed && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) to->tv_sec += *offset;
    return failed;
}

int gettimeofday(struct timeval *to, void *zone) {
    struct timespec at;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &at);
    to->tv_sec = at.tv_sec;
    to->tv_usec = at.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *to) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    if (to) *to = at.tv_sec;
    return at.tv_sec;
}
"""


def compiler() -> str | None:
    """Returns the C compiler; None where there is none."""
    return shutil.which("cc")


class MovedClock:
    """The clock of one process.

    Args:
        folder: Where library and offset go.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        source, self._library = folder / "clock.c", folder / "clock.so"
        self._offset = folder / "offset"
        source.write_text(_SOURCE)
        compiled = [str(compiler()), "-shared", "-fPIC", "-O1", "-o", str(self._library)]
        subprocess.run([*compiled, str(source)], check=True, timeout=60)
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        """What the process is started with."""
        return {"LD_PRELOAD": str(self._library), "CLOCK_OFFSET_FILE": str(self._offset)}

    def set(self, seconds: int) -> None:
        """Moves the clock so far ahead of the real one; negative: behind it."""
        with self._offset.open("r+b" if self._offset.exists() else "w+b") as file:
            file.write(struct.pack("=q", seconds))
