"""The real disk: plain system calls below one directory.

Who uses it: the composition root gives one to the log manager. Paths are relative to the root and
`/`-separated; the durability contract is that of `disk.py`. Appends go to the tracked end of the file with
one `pwritev`, reads use `pread`, so no file position is shared between readers and the writer.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from strandline_broker.seams.disk import Buffer, DiskError

_IOV_MAX = 1024
_FALLOC_FL_KEEP_SIZE = 1
_MODE_FILE = 0o640
_MODE_DIR = 0o750

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = getattr(_libc, "fallocate64", None) or getattr(_libc, "fallocate", None)
if _fallocate is not None:
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def _disk_error(error: OSError, path: str) -> DiskError:
    return DiskError(error.errno or errno.EIO, error.strerror or str(error), path)


class LocalFile:
    """An open file; see `disk.File`. Only one object at a time may append to a path."""

    __slots__ = ("_fd", "_size", "path")

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._size = os.fstat(fd).st_size
        self.path = path

    def __del__(self) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def size(self) -> int:
        """Return the current length in bytes."""
        return self._size

    def append(self, buffers: Sequence[Buffer]) -> int:
        """Write `buffers` at the end; see `disk.File.append`."""
        start = self._size
        try:
            if len(buffers) <= _IOV_MAX:
                written = os.pwritev(self._fd, buffers, start)
                self._size = start + written
            else:
                written = 0
            total = sum(map(len, buffers))
            if written != total:
                self._append_rest(buffers, written)
        except OSError as error:
            raise _disk_error(error, self.path) from error
        return total

    def _append_rest(self, buffers: Sequence[Buffer], written: int) -> None:
        """Write what one call left over: more buffers than a call takes, or a write cut short."""
        rest: list[memoryview] = []
        for buffer in buffers:
            if written >= len(buffer):
                written -= len(buffer)
                continue
            rest.append(memoryview(buffer)[written:])
            written = 0
        while rest:
            count = os.pwritev(self._fd, rest[:_IOV_MAX], self._size)
            if count == 0:
                raise OSError(errno.EIO, "a write made no progress")
            self._size += count
            while rest and count >= len(rest[0]):
                count -= len(rest[0])
                del rest[0]
            if count:
                rest[0] = rest[0][count:]

    def pread(self, length: int, offset: int) -> bytes:
        """Read up to `length` bytes."""
        try:
            data = os.pread(self._fd, length, offset)
            if len(data) < length and data:
                return self._pread_rest(data, length, offset)
        except OSError as error:
            raise _disk_error(error, self.path) from error
        return data

    def _pread_rest(self, data: bytes, length: int, offset: int) -> bytes:
        parts = [data]
        count = len(data)
        while count < length:
            data = os.pread(self._fd, length - count, offset + count)
            if not data:
                break
            parts.append(data)
            count += len(data)
        return b"".join(parts)

    def pread_into(self, buffer: bytearray | memoryview, offset: int) -> int:
        """Read into `buffer`; return the number of bytes."""
        try:
            return os.preadv(self._fd, [buffer], offset)
        except OSError as error:
            raise _disk_error(error, self.path) from error

    def pwrite(self, data: Buffer, offset: int) -> None:
        """Overwrite bytes in place."""
        view = memoryview(data)
        try:
            while view:
                count = os.pwrite(self._fd, view, offset)
                offset += count
                view = view[count:]
        except OSError as error:
            raise _disk_error(error, self.path) from error
        finally:
            self._size = max(self._size, offset)

    def truncate(self, length: int) -> None:
        """Cut to `length` bytes; blocks reserved beyond are given back."""
        try:
            os.ftruncate(self._fd, length)
        except OSError as error:
            raise _disk_error(error, self.path) from error
        self._size = length

    def allocate(self, length: int) -> None:
        """Reserve blocks up to `length` without changing the size.

        File systems that cannot are left alone.
        """
        if _fallocate is not None and length > self._size:
            _fallocate(self._fd, _FALLOC_FL_KEEP_SIZE, self._size, length - self._size)

    def datasync(self) -> None:
        """Make contents and size durable."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise _disk_error(error, self.path) from error

    def close(self) -> None:
        """Close now; closing twice is allowed."""
        fd = self._fd
        if fd >= 0:
            self._fd = -1
            os.close(fd)


class LocalDisk:
    """A `Disk` on a directory of the local file system."""

    __slots__ = ("_root",)

    def __init__(self, root: str | Path) -> None:
        self._root = str(Path(root).absolute())
        Path(self._root).mkdir(mode=_MODE_DIR, parents=True, exist_ok=True)

    @property
    def root(self) -> str:
        """Absolute path of the root, for messages and for tools that read the files."""
        return self._root

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def open(self, path: str, *, create: bool = False) -> LocalFile:
        """Open for reading and appending. Raises FileNotFoundError unless `create`."""
        flags = os.O_RDWR | os.O_CLOEXEC
        if create:
            flags |= os.O_CREAT
        try:
            return LocalFile(os.open(self._path(path), flags, _MODE_FILE), path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _disk_error(error, path) from error

    def exists(self, path: str) -> bool:
        """Say whether a file or directory has this name."""
        return os.path.lexists(self._path(path))

    def listdir(self, path: str) -> list[str]:
        """Return the sorted names in a directory. Raises FileNotFoundError."""
        try:
            return sorted(os.listdir(self._path(path)))  # noqa: PTH208 # names are all that is wanted
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _disk_error(error, path) from error

    def makedirs(self, path: str) -> None:
        """Create a directory and its parents."""
        try:
            Path(self._path(path)).mkdir(mode=_MODE_DIR, parents=True, exist_ok=True)
        except OSError as error:
            raise _disk_error(error, path) from error

    def rename(self, source: str, target: str) -> None:
        """Atomically give a file or directory another name."""
        try:
            Path(self._path(source)).rename(self._path(target))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _disk_error(error, source) from error

    def remove(self, path: str) -> None:
        """Remove a file; not an error if it is gone."""
        try:
            Path(self._path(path)).unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _disk_error(error, path) from error

    def remove_tree(self, path: str) -> None:
        """Remove a directory with all it holds; not an error if it is gone."""
        try:
            shutil.rmtree(self._path(path))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _disk_error(error, path) from error

    def sync_dir(self, path: str) -> None:
        """Make the names in a directory durable."""
        try:
            fd = os.open(self._path(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise _disk_error(error, path) from error

    def read_bytes(self, path: str) -> bytes:
        """Return a small file whole. Raises FileNotFoundError."""
        try:
            with open(self._path(path), "rb") as file:
                return file.read()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _disk_error(error, path) from error

    def write_atomic(self, path: str, data: bytes) -> None:
        """Replace a small file durably."""
        temporary = f"{path}.tmp"
        file = self.open(temporary, create=True)
        try:
            file.truncate(0)
            file.append([data])
            file.datasync()
        finally:
            file.close()
        self.rename(temporary, path)
        self.sync_dir(path.rpartition("/")[0])

    def free_bytes(self) -> int:
        """Return the bytes that may still be written."""
        status = os.statvfs(self._root)
        return status.f_bavail * status.f_frsize

    def total_bytes(self) -> int:
        """Return the size of the file system."""
        status = os.statvfs(self._root)
        return status.f_blocks * status.f_frsize
