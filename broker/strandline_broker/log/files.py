"""Open files of sealed segments and indexes, bounded: thousands of segments share a few descriptors.

Who uses it: segments and indexes of all logs of one manager, also while a thread opens more logs (hence the
lock). A file that is dropped here while a response still sends from it stays open until that response lets go
(see `disk.File`), which is why nothing is closed explicitly.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from strandline_broker.seams.disk import Disk, File

DEFAULT_MAX_OPEN_FILES = 256


class FileCache:
    """Least recently used files, by path."""

    __slots__ = ("_files", "_lock", "disk", "max_open_files")

    def __init__(self, disk: Disk, max_open_files: int = DEFAULT_MAX_OPEN_FILES) -> None:
        assert max_open_files >= 1
        self.disk = disk
        self.max_open_files = max_open_files
        self._files: OrderedDict[str, File] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._files)

    def open(self, path: str, *, create: bool = False) -> File:
        """Return the open file, opening it if need be. Raises FileNotFoundError, DiskError."""
        with self._lock:
            file = self._files.get(path)
            if file is not None:
                self._files.move_to_end(path)
                return file
            file = self.disk.open(path, create=create)
            self._files[path] = file
            if len(self._files) > self.max_open_files:
                self._files.popitem(last=False)
            return file

    def forget(self, path: str) -> None:
        """Drop a file that was removed, renamed, or is now held by its segment."""
        with self._lock:
            self._files.pop(path, None)
