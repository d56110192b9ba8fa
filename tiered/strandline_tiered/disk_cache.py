"""Chunks of the bucket on the local disk: what memory has no room for any more.

Who uses it: the remote reader. A directory of files that belong to it alone; it begins empty, so a file is never older than
the process. Every file carries its name, length and CRC-32C: what does not fit is dropped and fetched again. A full or
broken disk makes the cache smaller, never a read fail. Nothing is synced: a lost file is a miss.

    magic 8 bytes | CRC-32C u32 of all that follows | length of the name u16 | name | start u64 | data
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import struct
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

from crc32c import crc32c

from strandline_tiered.chunk_cache import ChunkName

MAGIC = b"STRNDCHK"
MAX_PENDING = 2
"""Chunks that wait to be written, each with its memory. What comes while so many wait is not kept."""

_HEAD = struct.Struct(">8sI")
_NAME = struct.Struct(">H")
_START = struct.Struct(">Q")
_SUFFIX = ".chunk"
_TEMPORARY = ".incoming"

_log = logging.getLogger(__name__)


class InThread(Protocol):
    """Runs blocking work elsewhere: `asyncio.to_thread`, or inline where time is virtual."""

    def __call__(self, work: Callable[..., Any], /, *arguments: Any) -> Awaitable[Any]:
        """Return the result of `work(*arguments)`."""
        ...


class DiskCache:
    """At most `limit_bytes` of chunks in `directory`. Counts `failures` (of the disk) and `damaged` (files dropped)."""

    def __init__(
        self, directory: str | Path, limit_bytes: int, *, in_thread: InThread = asyncio.to_thread
    ) -> None:
        self._directory = Path(directory)
        self._limit_bytes = limit_bytes
        self._in_thread = in_thread
        self._sizes: OrderedDict[ChunkName, int] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing = 0
        # Files change one at a time, in the order in which the index changed.
        self._turn = asyncio.Lock()
        self.used_bytes = 0
        self.failures = 0
        self.damaged = 0

    def open(self) -> None:
        """Make the directory, and remove what an earlier process left in it; blocks. Raises OSError."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for path in self._directory.iterdir():
            if path.suffix in (_SUFFIX, _TEMPORARY):
                path.unlink()

    def __contains__(self, name: ChunkName) -> bool:
        return name in self._sizes

    def offer(self, name: ChunkName, data: bytes) -> None:
        """Keep a chunk, in the background, unless it is here, too large, or too many wait already."""
        if name in self._sizes or self._writing >= MAX_PENDING:
            return
        head = _encode_head(name, data)
        size = len(head) + len(data)
        if size > self._limit_bytes:
            return
        while self.used_bytes + size > self._limit_bytes:
            self._forget(next(iter(self._sizes)))
        self._sizes[name] = size
        self.used_bytes += size
        self._writing += 1
        self._start(self._write(name, head, data))

    async def load(self, name: ChunkName) -> bytes | None:
        """Return a chunk, None if it is not here or not sound."""
        if name not in self._sizes:
            return None
        self._sizes.move_to_end(name)
        try:
            content: bytes = await self._in_thread(self._path(name).read_bytes)
        except FileNotFoundError:  # still being written, or just thrown out
            return None
        except OSError as error:
            self._failed(error)
            self._forget(name)
            return None
        data = _decode(name, content)
        if data is None:
            self.damaged += 1
            self._forget(name)
        return data

    def discard_object(self, key: str) -> None:
        """Drop everything of an object."""
        for name in [name for name in self._sizes if name.key == key]:
            self._forget(name)

    async def close(self) -> None:
        """Wait for what is being written."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, name: ChunkName, head: bytes, data: bytes) -> None:
        try:
            async with self._turn:
                await self._in_thread(self._write_file, self._path(name), head, data)
        except OSError as error:
            self._failed(error)
            self._forget(name)
        finally:
            self._writing -= 1

    async def _remove(self, name: ChunkName) -> None:
        try:
            async with self._turn:
                await self._in_thread(_unlink, self._path(name))
        except OSError as error:
            self._failed(error)

    @staticmethod
    def _write_file(path: Path, head: bytes, data: bytes) -> None:
        temporary = path.with_suffix(_TEMPORARY)
        try:
            with temporary.open("wb") as file:
                file.writelines((head, data))
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def _forget(self, name: ChunkName) -> None:
        size = self._sizes.pop(name, None)
        if size is not None:
            self.used_bytes -= size
            self._start(self._remove(name))

    def _failed(self, error: OSError) -> None:
        if self.failures == 0:
            _log.warning(
                "the cache of the bucket in %s: %s (further failures are only counted)",
                self._directory,
                error,
            )
        self.failures += 1

    def _path(self, name: ChunkName) -> Path:
        digest = hashlib.sha256(f"{name.start} {name.key}".encode()).hexdigest()
        return self._directory / f"{digest[:40]}{_SUFFIX}"


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _encode_head(name: ChunkName, data: bytes) -> bytes:
    named = _encode_name(name)
    return _HEAD.pack(MAGIC, crc32c(data, crc32c(named))) + named


def _encode_name(name: ChunkName) -> bytes:
    key = name.key.encode()
    return _NAME.pack(len(key)) + key + _START.pack(name.start)


def _decode(name: ChunkName, content: bytes) -> bytes | None:
    if len(content) < _HEAD.size:
        return None
    magic, checksum = _HEAD.unpack_from(content)
    body = memoryview(content)[_HEAD.size :]
    named = _encode_name(name)
    if magic != MAGIC or crc32c(body) != checksum or body[: len(named)] != named:
        return None
    return bytes(body[len(named) :])
