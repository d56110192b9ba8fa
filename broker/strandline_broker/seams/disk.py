"""The disk seam: the few file operations that a broker needs, with their durability stated.

`LocalDisk` is the real one; `SimDisk` (sim_disk.py) loses at a crash every write, creation, rename and deletion that was
not synced, as a power failure may. Code that is right on `SimDisk` is right on a disk.

The durability contract, the weakest that POSIX allows:
- bytes written are durable after `datasync` (or `sync`) of that file returned;
- a created, renamed or removed *name* is durable after `sync_dir` of its directory returned;
- nothing is ordered otherwise. A crash may keep any subset of what was not synced, and tear writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class DiskError(OSError):
    """A disk operation failed; `errno` says how (ENOSPC for a full disk)."""


class File(Protocol):
    """An open file. The descriptor is closed when the last reference is dropped, so a response that still sends from
    a deleted segment stays valid.
    """  # noqa: D205

    path: str

    def fileno(self) -> int:
        """Return a descriptor usable with `os.sendfile`, or -1 if there is none (simulated files)."""
        ...

    def size(self) -> int:
        """Return the current length in bytes."""
        ...

    def append(self, buffers: Sequence[Buffer]) -> int:
        """Write `buffers` at the end with one system call where possible; return the bytes written (all of them).

        Raises DiskError; then any part may have been written, and `size()` tells how much.
        """
        ...

    def pread(self, length: int, offset: int) -> bytes:
        """Read up to `length` bytes; shorter only at the end of the file."""
        ...

    def pread_into(self, buffer: bytearray | memoryview, offset: int) -> int:
        """Read into `buffer`; return the number of bytes read, 0 at the end of the file."""
        ...

    def pwrite(self, data: Buffer, offset: int) -> None:
        """Overwrite bytes in place (index files, preallocated headers)."""
        ...

    def truncate(self, length: int) -> None:
        """Cut the file to `length` bytes; durable after `sync`."""
        ...

    def allocate(self, length: int) -> None:
        """Reserve blocks up to `length` bytes without changing the size; best effort."""
        ...

    def datasync(self) -> None:
        """Make contents and size durable. Blocks; call it from a thread. Raises DiskError."""
        ...

    def close(self) -> None:
        """Close now; using the file afterwards is an error."""
        ...


class Disk(Protocol):
    """A file system below one root; paths are `/`-separated and relative to it."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open for reading and appending. Raises FileNotFoundError unless `create`."""
        ...

    def exists(self, path: str) -> bool:
        """Say whether a file or directory has this name."""
        ...

    def listdir(self, path: str) -> list[str]:
        """Return the sorted names in a directory. Raises FileNotFoundError."""
        ...

    def makedirs(self, path: str) -> None:
        """Create a directory and its parents; not an error if it exists. Durable after `sync_dir` of each parent."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Atomically give a file or directory another name, replacing a file of that name."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file; not an error if it is gone."""
        ...

    def remove_tree(self, path: str) -> None:
        """Remove a directory with all it holds; not an error if it is gone."""
        ...

    def sync_dir(self, path: str) -> None:
        """Make the names in a directory durable. Raises DiskError."""
        ...

    def read_bytes(self, path: str) -> bytes:
        """Return a small file whole. Raises FileNotFoundError."""
        ...

    def write_atomic(self, path: str, data: bytes) -> None:
        """Replace a small file durably: write a temporary file, sync it, rename it, sync the directory."""
        ...

    def free_bytes(self) -> int:
        """Return the bytes that may still be written."""
        ...

    def total_bytes(self) -> int:
        """Return the size of the file system."""
        ...


class FileSlice:
    """A range of a file that a response sends without copying it through Python."""

    __slots__ = ("file", "length", "offset")

    def __init__(self, file: File, offset: int, length: int) -> None:
        self.file = file
        self.offset = offset
        self.length = length

    def __len__(self) -> int:
        return self.length

    def read(self) -> bytes:
        """Return the bytes (tests, TLS fallbacks, small responses)."""
        return self.file.pread(self.length, self.offset)
