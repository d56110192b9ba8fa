"""The body of an upload, read from its source while it is sent: an object in flight costs a piece of memory, not its size.

Who uses it: the S3 store. To botocore it looks like a seekable file (it takes the length and never reads), to aiohttp like
an asynchronous iterable (it reads; each piece in a thread, since a source may be a file on a slow disk).
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator

from strandline_tiered.content import PIECE_BYTES, read_exactly
from strandline_tiered.object_store import Source, SourceFailed


class UploadBody:
    """Bytes [start, start + length) of a source. `failure` keeps why it could not be read: aiohttp hides it."""

    def __init__(self, source: Source, start: int, length: int) -> None:
        self._source = source
        self._start = start
        self._length = length
        self._position = 0
        self.failure: SourceFailed | None = None

    def __len__(self) -> int:
        return self._length

    async def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        """Yield the bytes from the beginning: every sending starts anew."""
        position = 0
        while position < self._length:
            length = min(PIECE_BYTES, self._length - position)
            try:
                yield await asyncio.to_thread(read_exactly, self._source, self._start + position, length)
            except SourceFailed as error:
                self.failure = error
                raise
            position += length

    def read(self, length: int | None = None) -> bytes:
        """Read as a file does. botocore wants to see it; it has no reason to call it."""
        left = self._length - self._position
        length = left if length is None or length < 0 else min(length, left)
        data = bytes(read_exactly(self._source, self._start + self._position, length)) if length else b""
        self._position += length
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move as in a file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = min(max(0, base + offset), self._length)
        return self._position

    def tell(self) -> int:
        """Return the position of `read`."""
        return self._position
