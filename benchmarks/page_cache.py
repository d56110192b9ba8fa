"""A page cache that is full before every measurement, as on a machine that has run for a day.

Why: on a virtual machine whose host takes back free memory, the first touch of a free page is a fault into
the hypervisor (up to 3 CPU seconds per GB were seen), charged to whichever broker writes next. With the cache
full the kernel recycles clean pages instead, for every system alike.
Callers: `benchmarks.run`, before each measured run.
"""

from __future__ import annotations

import os
from pathlib import Path

_STEP_BYTES = 4 << 20
_STEPS = 32
_STEADY_ROUNDS = 4
_FILE_BYTES = 4 << 40  # sparse: holes cost page cache when read, but no disk


class PageCacheFiller:
    """Reads holes of a sparse file until (nearly) no memory is free."""

    def __init__(self, directory: Path, *, limit_bytes: int) -> None:
        self._path = directory / "page-cache-filler"
        self._limit_bytes = limit_bytes
        self._at = 0
        self._file = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
        os.truncate(self._file, _FILE_BYTES)
        self._buffer = bytearray(_STEP_BYTES)

    def fill(self) -> int:
        """Write dirty pages back, then use up free memory; return how many bytes were read."""
        os.sync()
        began = self._at
        free, steady = free_bytes(), 0
        while self._at - began < self._limit_bytes:
            # Always further holes: a page read twice would become harder to evict than the brokers' data.
            for _ in range(_STEPS):
                self._at += os.preadv(self._file, [self._buffer], self._at % _FILE_BYTES)
            left = free_bytes()
            # Full when the kernel evicts as much as we read; once may be another process giving memory back.
            steady = steady + 1 if free - left < _STEPS * _STEP_BYTES // 2 else 0
            if steady == _STEADY_ROUNDS:
                break
            free = left
        return self._at - began

    def close(self) -> None:
        """Give the memory back."""
        os.close(self._file)
        self._path.unlink(missing_ok=True)


def free_bytes() -> int:
    """Memory that nothing uses, not even the page cache."""
    with Path("/proc/meminfo").open() as lines:
        for line in lines:
            if line.startswith("MemFree:"):
                return int(line.split()[1]) * 1024
    return 0
