"""Walking the batches of a segment file: headers only, or with every byte checked.

Who uses it: position lookups, recovery, replay of producer state, timestamp lookups, `verify`. Reads are
chunked, so small batches cost no system call each and large ones are skipped over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from strandline_broker.wire.batch import HEADER_SIZE, LOG_OVERHEAD, MAGIC, BatchHeader, crc_ok, read_header

if TYPE_CHECKING:
    from strandline_broker.seams.disk import File

_HEADER_CHUNK = 16 << 10
_VERIFY_CHUNK = 1 << 20
_MIN_LENGTH = HEADER_SIZE - LOG_OVERHEAD


class CorruptBatch(Exception):  # noqa: N818 # it names what was found, as Kafka's CorruptRecordException does
    """What lies at a position of a segment is no batch, or its checksum is wrong."""

    def __init__(self, path: str, position: int, reason: str) -> None:
        super().__init__(f"{path} at byte {position}: {reason}")
        self.path = path
        self.position = position
        self.reason = reason


def check_header(header: BatchHeader, path: str, position: int, end: int) -> None:
    """Raise CorruptBatch unless this can be a batch that fits before `end`."""
    length = header.length
    if header.magic != MAGIC:
        raise CorruptBatch(path, position, f"magic {header.magic}, expected {MAGIC}")
    if length < _MIN_LENGTH or position + LOG_OVERHEAD + length > end:
        raise CorruptBatch(
            path, position, f"a batch of {length + LOG_OVERHEAD} bytes where {end - position} are left"
        )
    if header.base_offset < 0 or header.last_offset_delta < 0:
        raise CorruptBatch(path, position, f"offset {header.base_offset} + {header.last_offset_delta}")


def iter_headers(file: File, position: int, end: int) -> Iterator[tuple[int, BatchHeader]]:
    """Yield (position, header) of each batch in `[position, end)`.

    Raises CorruptBatch; checksums are not looked at.
    """
    chunk = b""
    chunk_start = position
    while position < end:
        start = position - chunk_start
        if start + HEADER_SIZE > len(chunk):
            chunk = file.pread(min(_HEADER_CHUNK, end - position), position)
            chunk_start = position
            start = 0
            if len(chunk) < HEADER_SIZE:
                raise CorruptBatch(file.path, position, f"{end - position} bytes are no whole batch header")
        header = read_header(chunk, start)
        check_header(header, file.path, position, end)
        yield position, header
        position += LOG_OVERHEAD + header.length


def iter_verified(file: File, position: int, end: int) -> Iterator[tuple[int, BatchHeader]]:
    """Like `iter_headers`, with the checksum of every batch. Raises CorruptBatch."""
    chunk = memoryview(b"")
    chunk_start = position
    while position < end:
        start = position - chunk_start
        if start + HEADER_SIZE > len(chunk):
            chunk, chunk_start, start = (
                _refill(file, position, min(_VERIFY_CHUNK, end - position)),
                position,
                0,
            )
            if len(chunk) < HEADER_SIZE:
                raise CorruptBatch(file.path, position, f"{end - position} bytes are no whole batch header")
        header = read_header(chunk, start)
        check_header(header, file.path, position, end)
        size = LOG_OVERHEAD + header.length
        if start + size > len(chunk):
            wanted = max(size, min(_VERIFY_CHUNK, end - position))
            chunk, chunk_start, start = _refill(file, position, wanted), position, 0
            if len(chunk) < size:
                raise CorruptBatch(file.path, position, f"the file ends within a batch of {size} bytes")
        if not crc_ok(chunk[start : start + size]):
            raise CorruptBatch(
                file.path, position, f"wrong checksum of the batch at offset {header.base_offset}"
            )
        yield position, header
        position += size


def _refill(file: File, position: int, length: int) -> memoryview:
    return memoryview(file.pread(length, position))
