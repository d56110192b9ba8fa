"""A directory as object store: the embedded default, and the simplest bucket to look into.

A key is a path below the root. An object is written to a temporary file, synced, and moved into place (`os.link` with
`if_absent`, which fails where a name is taken), so it is visible whole or not at all, also after a power cut. File work
runs in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar
from uuid import uuid4

from strandline_tiered.content import as_source, pieces
from strandline_tiered.object_store import (
    AlreadyThere,
    Content,
    NoSuchObject,
    ObjectInfo,
    Source,
    Unavailable,
    check_key,
)

_TEMPORARY = ".incoming"

P = ParamSpec("P")
T = TypeVar("T")


class DirectoryStore:
    """See `ObjectStore`. Several processes may use one directory."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root).absolute()

    async def put(self, key: str, content: Content, *, if_absent: bool = False) -> None:
        """See `ObjectStore.put`."""
        check_key(key)
        await self._in_thread(self._put, key, as_source(content), if_absent)

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """See `ObjectStore.get`."""
        return await self._in_thread(self._get, key, start, end)

    async def head(self, key: str) -> ObjectInfo:
        """See `ObjectStore.head`."""
        return await self._in_thread(self._head, key)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """See `ObjectStore.list`."""
        for info in await self._in_thread(self._list, prefix, after):
            yield info

    async def copy(self, source: ObjectInfo, key: str) -> None:
        """See `ObjectStore.copy`. Where the file system has hard links, both are one file: no object is ever changed."""
        await self._in_thread(self._copy, self._path(source.key), self._path(key))

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`."""
        await self._in_thread(self._delete, keys)

    async def close(self) -> None:
        """See `ObjectStore.close`."""

    async def _in_thread(self, work: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(work, *arguments, **keywords)
        except OSError as error:
            raise Unavailable(f"{self._root}: {error}") from error

    def _path(self, key: str) -> Path:
        check_key(key)
        return self._root / key

    def _put(self, key: str, source: Source, if_absent: bool) -> None:
        path = self._path(key)
        incoming = self._root / _TEMPORARY
        incoming.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=incoming)
        try:
            with os.fdopen(handle, "wb") as file:
                file.writelines(pieces(source))
                file.flush()
                os.fsync(file.fileno())
            if if_absent:
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    raise AlreadyThere(key) from None
            else:
                Path(temporary).replace(path)
            self._sync_names(path.parent)
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()

    def _copy(self, source: Path, path: Path) -> None:
        if not source.is_file():
            raise NoSuchObject(source.relative_to(self._root).as_posix())
        incoming = self._root / _TEMPORARY
        incoming.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = incoming / f"copy-{uuid4()}"
        try:
            try:
                os.link(source, temporary)
            except FileNotFoundError:
                raise NoSuchObject(source.relative_to(self._root).as_posix()) from None
            except OSError:  # no hard links here, or too many of this file
                shutil.copyfile(source, temporary)
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
            temporary.replace(path)
            self._sync_names(path.parent)
        finally:
            # Two names of one file: `replace` leaves both.
            temporary.unlink(missing_ok=True)

    def _sync_names(self, directory: Path) -> None:
        """Make the new name durable, and the names of the directories above it, which may be new too."""
        for folder in (directory, *directory.parents):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if folder == self._root:
                break

    def _get(self, key: str, start: int, end: int | None) -> bytes:
        try:
            with self._path(key).open("rb") as file:
                file.seek(start)
                return file.read(-1 if end is None else max(0, end - start))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NoSuchObject(key) from None

    def _head(self, key: str) -> ObjectInfo:
        path = self._path(key)
        if not path.is_file():
            raise NoSuchObject(key)
        return ObjectInfo(key, path.stat().st_size)

    def _list(self, prefix: str, after: str) -> Sequence[ObjectInfo]:
        # Only the directory that the prefix names is walked.
        folder = self._root / prefix.rpartition("/")[0]
        found = [
            info
            for info in self._walk(folder)
            if info.key.startswith(prefix) and info.key.encode() > after.encode()
        ]
        return sorted(found, key=lambda info: info.key.encode())

    def _walk(self, folder: Path) -> Iterator[ObjectInfo]:
        for directory, folders, names in os.walk(folder):
            if Path(directory) == self._root and _TEMPORARY in folders:
                folders.remove(_TEMPORARY)
            for name in names:
                path = Path(directory) / name
                # It may be deleted meanwhile: then it is as if it had never been listed.
                with contextlib.suppress(FileNotFoundError):
                    yield ObjectInfo(path.relative_to(self._root).as_posix(), path.stat().st_size)

    def _delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self._path(key).unlink()
