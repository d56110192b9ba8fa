"""What is put into an object store, read in pieces: parts in memory as a source, and the checksums of a source.

Who uses it: the stores.
"""

from __future__ import annotations

import base64
import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from crc32c import crc32c

from strandline_tiered.object_store import Content, Source, SourceFailed

PIECE_BYTES = 256 << 10
"""Bytes of one read from a source: large enough to be cheap, small beside everything else that a broker holds."""


class PartsSource:
    """See `Source`: the concatenation of buffers that are in memory."""

    __slots__ = ("_ends", "_parts", "size")

    def __init__(self, parts: Sequence[bytes | memoryview]) -> None:
        self._parts = [memoryview(part).cast("B") for part in parts if len(part)]
        self._ends = list(accumulate(map(len, self._parts)))
        self.size = self._ends[-1] if self._ends else 0

    def read(self, start: int, length: int) -> bytes | memoryview:
        """See `Source.read`."""
        assert 0 <= start <= start + length <= self.size, f"[{start}, {start + length}) of {self.size} bytes"
        pieces: list[memoryview] = []
        number = bisect_right(self._ends, start)
        while length > 0:
            part = self._parts[number]
            offset = start - (self._ends[number] - len(part))
            piece = part[offset : offset + length]
            pieces.append(piece)
            start += len(piece)
            length -= len(piece)
            number += 1
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def as_source(content: Content) -> Source:
    """Return `content` as a source."""
    return PartsSource(content) if isinstance(content, Sequence) else content


def read_exactly(source: Source, start: int, length: int) -> bytes | memoryview:
    """Read from a source that may be wrong about itself; blocks. Raises SourceFailed."""
    try:
        piece = source.read(start, length)
    except OSError as error:
        raise SourceFailed(f"{length} bytes from {start} on cannot be read: {error}") from error
    if len(piece) != length:
        raise SourceFailed(f"a source gave {len(piece)} bytes from {start} on instead of {length}")
    return piece


def pieces(source: Source, start: int = 0, length: int | None = None) -> Iterator[bytes | memoryview]:
    """Read a range of a source (to its end by default) piece by piece; blocks. Raises SourceFailed."""
    end = source.size if length is None else start + length
    while start < end:
        piece = read_exactly(source, start, min(PIECE_BYTES, end - start))
        yield piece
        start += len(piece)


def checksums(source: Source, start: int, length: int, *, md5: bool) -> tuple[str, str | None]:
    """Return CRC-32C, and MD5 if wanted, of a range, in base64 as HTTP headers have them.

    Blocks. Raises SourceFailed.
    """
    crc = 0
    digest = hashlib.md5(usedforsecurity=False)
    for piece in pieces(source, start, length):
        crc = crc32c(piece, crc)
        if md5:
            digest.update(piece)
    return (
        base64.b64encode(crc.to_bytes(4, "big")).decode(),
        base64.b64encode(digest.digest()).decode() if md5 else None,
    )
