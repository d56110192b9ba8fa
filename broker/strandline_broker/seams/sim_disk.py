"""A disk in memory that forgets at a power failure exactly what the contract of `disk.py` does not promise.

Who uses it: crash tests and the simulator. The log runs on it unchanged; a test takes the power away with
`crash`, kills only the process with `kill`, makes single operations fail with `fail_next`, fills the disk
with `capacity`, and stops the machine at any single step through `on_operation`.

How a crash is drawn (every choice from the caller's `rng`, so a seed replays it):

- of the writes and truncations of a file since its last successful `datasync` a prefix survives, cut at any
  byte; with `torn` every 512-byte sector of them is on its own kept, lost, zeroed or filled with garbage;
- of the creations, renames and removals since the last `sync_dir` of their directory any subset survives.
  One rename is atomic: its file never loses both names;
- a file is as lost as the directory above it: neither the file's sync nor that of its directory makes the
  name of the directory itself durable;
- now and then nothing or everything unsynced survives, which random subsets would hardly ever show.

A failed `datasync` drops what it was to write, as Linux does: the data stays readable, later syncs succeed,
and the next crash loses it.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from strandline_broker.seams.disk import Buffer, DiskError
from strandline_broker.seams.sim_inodes import Directory, Inode, Journal, Survival

DEFAULT_CAPACITY_BYTES = 1 << 40

# The operations that `on_operation` sees. A crash before a read is the same as one before the next of these.
MUTATIONS = frozenset(
    {"append", "create", "datasync", "makedirs", "pwrite", "remove", "rename", "sync_dir", "truncate"}
)


class PowerLoss(BaseException):
    """The machine is off. Not an `Exception`, so that no handler of the code under test survives it."""


@dataclass(slots=True)
class _Fault:
    operation: str
    errno: int
    path_part: str
    skip: int
    times: int


class SimFile:
    """An open file of a `SimDisk`; see `disk.File`.

    Like a local file it knows the end of the file from its own doings only: a second one that appends to the
    same path overwrites, here as there.
    """

    __slots__ = ("_closed", "_disk", "_inode", "_size", "path")

    def __init__(self, disk: SimDisk, inode: Inode, path: str) -> None:
        self._disk = disk
        self._inode = inode
        self._size = len(inode.data)
        self._closed = False
        self.path = path

    def _use(self, operation: str) -> Inode:
        if self._closed:
            raise _error(errno.EBADF, self.path)
        self._disk._step(operation, self.path)
        return self._inode

    def fileno(self) -> int:
        """Return -1: there is no descriptor."""
        return -1

    def size(self) -> int:
        """Return the current length in bytes."""
        self._use("size")
        return self._size

    def append(self, buffers: Sequence[Buffer]) -> int:
        """Write at the end; on a full disk as much as fits is written before ENOSPC is raised."""
        inode = self._use("append")
        data = b"".join(buffers)
        room = self._disk.free_bytes() if self._disk.capacity < DEFAULT_CAPACITY_BYTES else len(data)
        inode.write(self._size, data[:room])
        self._size += min(room, len(data))
        if room < len(data):
            raise _error(errno.ENOSPC, self.path)
        return len(data)

    def pread(self, length: int, offset: int) -> bytes:
        """Read up to `length` bytes."""
        return bytes(self._use("pread").data[offset : offset + length])

    def pread_into(self, buffer: bytearray | memoryview, offset: int) -> int:
        """Read into `buffer`; return the number of bytes."""
        data = self._use("pread").data[offset : offset + len(buffer)]
        memoryview(buffer)[: len(data)] = data
        return len(data)

    def pwrite(self, data: Buffer, offset: int) -> None:
        """Overwrite in place; on a full disk nothing is written beyond the end."""
        inode = self._use("pwrite")
        grows = max(0, offset + len(data) - len(inode.data))
        if grows and self._disk.capacity < DEFAULT_CAPACITY_BYTES and grows > self._disk.free_bytes():
            raise _error(errno.ENOSPC, self.path)
        inode.write(offset, bytes(data))
        self._size = max(self._size, offset + len(data))

    def truncate(self, length: int) -> None:
        """Cut (or extend with zeros) to `length` bytes."""
        self._use("truncate").truncate(length)
        self._size = length

    def allocate(self, length: int) -> None:
        """Do nothing: reserving is best effort."""
        self._use("allocate")

    def datasync(self) -> None:
        """Make the contents durable. A failure injected here loses them for good."""
        try:
            inode = self._use("datasync")
        except DiskError:
            self._inode.forget_pending()
            raise
        inode.settle()

    def close(self) -> None:
        """Forget the file; closing twice is allowed, also after a power loss."""
        self._closed = True


class SimDisk:
    """An in-memory `Disk`. An instance is one uptime: `crash` and `kill` end it and return the next."""

    __slots__ = ("_faults", "_journal", "_off", "_root", "capacity", "on_operation", "operations")

    def __init__(self, *, capacity: int = DEFAULT_CAPACITY_BYTES) -> None:
        self.capacity = capacity
        self.on_operation: Callable[[int, str, str], None] | None = None
        """Called before every mutation with (count, name, path); PowerLoss raised by it stops the machine."""
        self.operations = 0
        self._faults: list[_Fault] = []
        self._journal = Journal()
        self._off = False
        self._root = Directory()

    # ---- what tests do to it

    def crash(self, rng: random.Random, *, torn: bool = False) -> SimDisk:
        """Cut the power; return the disk as found afterwards. This one raises PowerLoss from now on."""
        self._off = True
        after = SimDisk(capacity=self.capacity)
        after._root = self._journal.survivors(self._root, Survival(rng, torn=torn))
        return after

    def kill(self) -> SimDisk:
        """Kill the process only: the page cache stays, with everything in it still as volatile as it was."""
        self._off = True
        after = SimDisk(capacity=self.capacity)
        after._root, after._journal = self._root, self._journal
        return after

    def fail_next(
        self, operation: str, error: int, *, path_part: str = "", skip: int = 0, times: int = 1
    ) -> None:
        """Let `times` calls of `operation` on paths that contain `path_part` fail, after `skip` good ones."""
        self._faults.append(_Fault(operation, error, path_part, skip, times))

    def clear_faults(self) -> None:
        """Let everything work again."""
        self._faults.clear()

    def unsynced(self) -> tuple[int, int]:
        """Return what a crash could lose now: (bytes in files, names)."""
        return sum(inode.pending_bytes() for _, inode in self.files()), len(self._journal.changes)

    def files(self) -> Iterator[tuple[str, Inode]]:
        """Walk all files, for assertions and for corrupting them on purpose."""
        stack: list[tuple[str, Directory]] = [("", self._root)]
        while stack:
            prefix, directory = stack.pop()
            for name, node in directory.entries.items():
                if isinstance(node, Directory):
                    stack.append((f"{prefix}{name}/", node))
                else:
                    yield prefix + name, node

    def _step(self, operation: str, path: str) -> None:
        """Account one operation; raise when the machine is off, is to stop here, or a fault is due."""
        if self._off:
            raise PowerLoss(f"{operation} {path} after the power was lost")
        if operation in MUTATIONS:
            self.operations += 1
            if self.on_operation is not None:
                try:
                    self.on_operation(self.operations, operation, path)
                except PowerLoss:
                    self._off = True
                    raise
        for fault in self._faults:
            if fault.operation == operation and fault.path_part in path:
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
                raise _error(fault.errno, path)

    # ---- Disk

    def open(self, path: str, *, create: bool = False) -> SimFile:
        """Open a file; see `disk.Disk`."""
        parent, name = self._parent(path)
        node = parent.entries.get(name)
        if node is None:
            if not create:
                self._step("open", path)
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            self._step("create", path)
            node = Inode()
            self._journal.change((parent, name, node))
        elif isinstance(node, Directory):
            raise _error(errno.EISDIR, path)
        else:
            self._step("open", path)
        return SimFile(self, node, path)

    def exists(self, path: str) -> bool:
        """Say whether a file or directory has this name."""
        self._step("exists", path)
        return self._find(path) is not None

    def listdir(self, path: str) -> list[str]:
        """Return the sorted names in a directory."""
        self._step("listdir", path)
        return sorted(self._directory(path).entries)

    def makedirs(self, path: str) -> None:
        """Create a directory and its parents."""
        directory = self._root
        for name in _parts(path):
            node = directory.entries.get(name)
            if node is None:
                self._step("makedirs", path)
                node = Directory()
                self._journal.change((directory, name, node))
            if not isinstance(node, Directory):
                raise _error(errno.EEXIST, path)
            directory = node

    def rename(self, source: str, target: str) -> None:
        """Atomically give a file or directory another name."""
        self._step("rename", target)
        source_parent, source_name = self._parent(source)
        target_parent, target_name = self._parent(target)
        node = source_parent.entries.get(source_name)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        old = target_parent.entries.get(target_name)
        if old is node:
            return
        if isinstance(old, Directory):
            code = errno.ENOTEMPTY if old.entries else 0
            if not isinstance(node, Directory):
                code = errno.EISDIR
            if code:
                raise _error(code, target)
        elif old is not None and isinstance(node, Directory):
            raise _error(errno.ENOTDIR, target)
        self._journal.change((target_parent, target_name, node), (source_parent, source_name, None))

    def remove(self, path: str) -> None:
        """Remove a file; not an error if it is gone."""
        self._step("remove", path)
        node = self._find(path)
        if isinstance(node, Directory):
            raise _error(errno.EISDIR, path)
        if node is not None:
            parent, name = self._parent(path)
            self._journal.change((parent, name, None))

    def remove_tree(self, path: str) -> None:
        """Remove a directory with all it holds, entry by entry as a real one is."""
        node = self._find(path)
        if node is None:
            self._step("remove", path)
            return
        if not isinstance(node, Directory):
            raise _error(errno.ENOTDIR, path)
        for name, child in list(node.entries.items()):
            if isinstance(child, Directory):
                self.remove_tree(f"{path}/{name}")
            else:
                self.remove(f"{path}/{name}")
        self._step("remove", path)
        parent, name = self._parent(path)
        self._journal.change((parent, name, None))

    def sync_dir(self, path: str) -> None:
        """Make the names in a directory durable. Raises DiskError, also when it does not exist."""
        self._step("sync_dir", path)
        try:
            directory = self._directory(path)
        except FileNotFoundError:
            raise _error(errno.ENOENT, path) from None
        self._journal.settle(directory)

    def read_bytes(self, path: str) -> bytes:
        """Return a file whole."""
        return self.open(path).pread(1 << 62, 0)

    def write_atomic(self, path: str, data: bytes) -> None:
        """Replace a file durably, in the steps that the contract names, each of which may crash or fail."""
        temporary = path + ".tmp"
        file = self.open(temporary, create=True)
        file.truncate(0)
        file.append([data])
        file.datasync()
        self.rename(temporary, path)
        self.sync_dir("/".join(_parts(path)[:-1]))

    def free_bytes(self) -> int:
        """Return the bytes that may still be written."""
        return max(0, self.capacity - sum(len(inode.data) for _, inode in self.files()))

    def total_bytes(self) -> int:
        """Return the capacity."""
        return self.capacity

    def _find(self, path: str) -> Directory | Inode | None:
        node: Directory | Inode | None = self._root
        for name in _parts(path):
            if not isinstance(node, Directory):
                return None
            node = node.entries.get(name)
        return node

    def _directory(self, path: str) -> Directory:
        node = self._find(path)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if not isinstance(node, Directory):
            raise _error(errno.ENOTDIR, path)
        return node

    def _parent(self, path: str) -> tuple[Directory, str]:
        parts = _parts(path)
        if not parts:
            raise _error(errno.EISDIR, path)
        return self._directory("/".join(parts[:-1])), parts[-1]


def _error(code: int, path: str) -> DiskError:
    return DiskError(code, os.strerror(code), path)


def _parts(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    assert ".." not in parts, f"{path} leaves the disk's root"
    return parts
