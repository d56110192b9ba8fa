"""Copies a segment object from one prefix of a bucket to another, and looks at what came of it.

Who uses it: restore. The server copies where it can. Where it cannot, the object goes through a temporary file of its size,
every block of its log compared with its checksum on the way.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from typing import IO

from strandline_tiered.envelope import FormatError
from strandline_tiered.keys import PartitionKeys
from strandline_tiered.manifest import Entry
from strandline_tiered.object_store import ObjectInfo, ObjectStore, Refused
from strandline_tiered.segment_check import READ_BYTES, MakeLogCheck, check_deeply, check_segment
from strandline_tiered.segment_object import parse_tail

_CANNOT_COPY = ("NotImplemented", "MethodNotAllowed")


class SegmentCopier:
    """Copies within one bucket. Remembers whether its server can copy. `log_check` makes every copy read back."""

    def __init__(self, store: ObjectStore, log_check: MakeLogCheck | None = None) -> None:
        self._store = store
        self._log_check = log_check
        self._server_copies = True

    async def copy(self, keys: PartitionKeys, entry: Entry, source: str, target: str) -> None:
        """Copy the object of an entry of `keys`, and check the copy.

        Raises FormatError for an object that is damaged, before or after, NoSuchObject, Refused, Unavailable.
        """
        if self._server_copies:
            try:
                await self._store.copy(ObjectInfo(source, entry.object_bytes), target)
            except Refused as refused:
                if refused.reason not in _CANNOT_COPY:
                    raise
                self._server_copies = False
        if not self._server_copies:
            with tempfile.TemporaryFile() as file:
                await self._fetch(entry, source, file)
                await self._store.put(target, _FileSource(file, entry.object_bytes))
        if not await self.is_whole(keys, entry, target):
            # Nothing names it yet. A later run that looks less closely must not take it for whole.
            await self._store.delete([target])
            raise FormatError(f"{target}: the copy is not what {source} should be")

    async def is_whole(self, keys: PartitionKeys, entry: Entry, key: str) -> bool:
        """Whether the object under `key` is that of an entry. Raises NoSuchObject, Refused, Unavailable."""
        try:
            if self._log_check is None:
                await check_segment(self._store, keys, entry, key=key)
            else:
                await check_deeply(self._store, keys, entry, self._log_check, key=key)
        except FormatError:
            return False
        return True

    async def _fetch(self, entry: Entry, source: str, file: IO[bytes]) -> None:
        """Write an object into a file, and compare it with its checksums. Raises FormatError."""
        tail_bytes = await self._store.get(source, entry.log_bytes, entry.object_bytes)
        tail = parse_tail(tail_bytes, entry.object_bytes)
        step = max(1, READ_BYTES // tail.footer.block_bytes) * tail.footer.block_bytes
        for start in range(0, entry.log_bytes, step):
            piece = await self._store.get(source, start, min(start + step, entry.log_bytes))
            tail.check(start, piece)
            await asyncio.to_thread(file.write, piece)
        await asyncio.to_thread(file.write, tail_bytes)
        await asyncio.to_thread(file.flush)


class _FileSource:
    """See `Source`: a temporary file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._descriptor = file.fileno()
        self.size = size

    def read(self, start: int, length: int) -> bytes:
        """See `Source.read`."""
        return os.pread(self._descriptor, length, start)
