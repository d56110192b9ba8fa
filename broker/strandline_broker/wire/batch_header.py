"""The header of a record batch (message format v2): read it, check it, and patch what a leader patches.

The broker stores batches as they come; of a produced batch it overwrites the base offset and the partition
leader epoch, which the checksum deliberately does not cover, and with
`message.timestamp.type=LogAppendTime` the timestamp, which it does. Records inside a batch are the business
of `batch.py`, through which everything here is imported.

Source: Apache Kafka, `DefaultRecordBatch`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from crc32c import crc32c

from strandline_broker.wire.errors import DecodeError
from strandline_broker.wire.primitives import Buffer

BASE_OFFSET_OFFSET: Final = 0
LENGTH_OFFSET: Final = 8
LEADER_EPOCH_OFFSET: Final = 12
MAGIC_OFFSET: Final = 16
CRC_OFFSET: Final = 17
ATTRIBUTES_OFFSET: Final = 21
LAST_OFFSET_DELTA_OFFSET: Final = 23
BASE_TIMESTAMP_OFFSET: Final = 27
MAX_TIMESTAMP_OFFSET: Final = 35
PRODUCER_ID_OFFSET: Final = 43
PRODUCER_EPOCH_OFFSET: Final = 51
BASE_SEQUENCE_OFFSET: Final = 53
RECORD_COUNT_OFFSET: Final = 57
HEADER_SIZE: Final = 61
"""Bytes before the records; also the size of an empty batch."""
LOG_OVERHEAD: Final = 12
"""Base offset and length, which the length field does not count."""

MAGIC: Final = 2

COMPRESSION_MASK: Final = 0x07
LOG_APPEND_TIME_FLAG: Final = 0x08
TRANSACTIONAL_FLAG: Final = 0x10
CONTROL_FLAG: Final = 0x20
DELETE_HORIZON_FLAG: Final = 0x40

NO_TIMESTAMP: Final = -1
NO_PRODUCER_ID: Final = -1
NO_PRODUCER_EPOCH: Final = -1
NO_SEQUENCE: Final = -1
MAX_SEQUENCE: Final = 0x7FFFFFFF

HEADER: Final = struct.Struct(">qiibIhiqqqhii")
LOG_PREFIX: Final = struct.Struct(">qi")
_UINT32 = struct.Struct(">I")
_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_INT64 = struct.Struct(">q")
_unpack_header = HEADER.unpack_from
_unpack_crc = _UINT32.unpack_from


class BatchHeader(NamedTuple):
    """The fixed part of a record batch. Timestamps are milliseconds since the epoch."""

    base_offset: int
    length: int
    """Bytes behind the length field; see `size`."""
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return self.length + LOG_OVERHEAD

    @property
    def last_offset(self) -> int:
        """Offset of the last record; the batch covers it even if compaction removed that record."""
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        """Offset behind the batch."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def last_sequence(self) -> int:
        """Sequence of the last record, -1 without an idempotent producer; sequences wrap at 2**31."""
        if self.base_sequence == NO_SEQUENCE:
            return NO_SEQUENCE
        return (self.base_sequence + self.last_offset_delta) & MAX_SEQUENCE

    @property
    def compression(self) -> int:
        """Compression type: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd; 5 to 7 are not defined."""
        return self.attributes & COMPRESSION_MASK

    @property
    def is_log_append_time(self) -> bool:
        """Whether `max_timestamp` was set by the broker and holds for every record."""
        return self.attributes & LOG_APPEND_TIME_FLAG != 0

    @property
    def is_transactional(self) -> bool:
        """Whether the batch belongs to a transaction."""
        return self.attributes & TRANSACTIONAL_FLAG != 0

    @property
    def is_control(self) -> bool:
        """Whether the batch holds markers for the protocol and no user records."""
        return self.attributes & CONTROL_FLAG != 0

    @property
    def has_delete_horizon(self) -> bool:
        """Whether `base_timestamp` is the time at which the cleaner may drop tombstones (KIP-534)."""
        return self.attributes & DELETE_HORIZON_FLAG != 0

    @property
    def has_producer_id(self) -> bool:
        """Whether an idempotent or transactional producer wrote the batch."""
        return self.producer_id > NO_PRODUCER_ID


_new = tuple.__new__


def read_header(buf: Buffer, pos: int = 0) -> BatchHeader:
    """Read the header at `pos`, without judging it. Raises DecodeError if fewer than 61 bytes are left."""
    try:
        return _new(BatchHeader, _unpack_header(buf, pos))
    except struct.error as error:
        raise DecodeError(f"record batch header at {pos} needs {HEADER_SIZE} bytes") from error


def iter_batches(buf: Buffer, pos: int = 0) -> Iterator[tuple[int, BatchHeader]]:
    """Yield (position, header) of each complete batch from `pos` on; an incomplete last one is left out.

    Fetch answers may end within a batch, so a short tail is no error. Raises DecodeError for a length that
    cannot be, after which nothing behind it can be trusted.
    """
    end = len(buf)
    while pos + HEADER_SIZE <= end:
        header = _new(BatchHeader, _unpack_header(buf, pos))
        length = header.length
        if length < HEADER_SIZE - LOG_OVERHEAD:
            raise DecodeError(f"record batch at {pos} has length {length}")
        if pos + LOG_OVERHEAD + length > end:
            return
        yield pos, header
        pos += LOG_OVERHEAD + length


def crc_ok(batch: memoryview) -> bool:
    """Say whether the CRC-32C of a batch, exactly as long as its header says, is right. Nothing is copied."""
    if len(batch) < HEADER_SIZE:
        return False
    stored: int = _unpack_crc(batch, CRC_OFFSET)[0]
    return stored == crc32c(batch[ATTRIBUTES_OFFSET:])


def set_base_offset(batch: memoryview | bytearray, offset: int) -> None:
    """Overwrite the base offset in place; the checksum does not cover it."""
    _INT64.pack_into(batch, BASE_OFFSET_OFFSET, offset)


def set_leader_epoch(batch: memoryview | bytearray, epoch: int) -> None:
    """Overwrite the partition leader epoch in place; the checksum does not cover it."""
    _INT32.pack_into(batch, LEADER_EPOCH_OFFSET, epoch)


def set_max_timestamp_and_crc(
    batch: memoryview | bytearray, max_timestamp: int, *, log_append_time: bool = True
) -> None:
    """Overwrite timestamp type and maximum timestamp in place and compute the checksum again.

    For `message.timestamp.type=LogAppendTime`: readers then give every record of the batch this timestamp.
    """
    (attributes,) = _INT16.unpack_from(batch, ATTRIBUTES_OFFSET)
    if log_append_time:
        attributes |= LOG_APPEND_TIME_FLAG
    else:
        attributes &= ~LOG_APPEND_TIME_FLAG
    _INT16.pack_into(batch, ATTRIBUTES_OFFSET, attributes)
    _INT64.pack_into(batch, MAX_TIMESTAMP_OFFSET, max_timestamp)
    set_crc(batch)


def set_crc(batch: memoryview | bytearray) -> None:
    """Compute the checksum of a batch and store it in place."""
    _UINT32.pack_into(batch, CRC_OFFSET, crc32c(memoryview(batch)[ATTRIBUTES_OFFSET:]))
