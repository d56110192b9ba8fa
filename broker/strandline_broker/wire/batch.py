"""Record batches (message format v2): everything about a batch in one import, and the records inside.

`batch_header.py` is what the hot path uses; what is here looks into batches and builds them: compaction,
recompression, timestamp lookups, internal topics, tests. It is plain Python, about a microsecond per
record.

Source: Apache Kafka, `DefaultRecordBatch`, `DefaultRecord`, `EndTransactionMarker`, `ControlRecordType`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from strandline_broker.wire.batch_header import (
    ATTRIBUTES_OFFSET,
    BASE_OFFSET_OFFSET,
    BASE_SEQUENCE_OFFSET,
    BASE_TIMESTAMP_OFFSET,
    COMPRESSION_MASK,
    CONTROL_FLAG,
    CRC_OFFSET,
    DELETE_HORIZON_FLAG,
    HEADER,
    HEADER_SIZE,
    LAST_OFFSET_DELTA_OFFSET,
    LEADER_EPOCH_OFFSET,
    LENGTH_OFFSET,
    LOG_APPEND_TIME_FLAG,
    LOG_OVERHEAD,
    LOG_PREFIX,
    MAGIC,
    MAGIC_OFFSET,
    MAX_SEQUENCE,
    MAX_TIMESTAMP_OFFSET,
    NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID,
    NO_SEQUENCE,
    NO_TIMESTAMP,
    PRODUCER_EPOCH_OFFSET,
    PRODUCER_ID_OFFSET,
    RECORD_COUNT_OFFSET,
    TRANSACTIONAL_FLAG,
    BatchHeader,
    crc_ok,
    iter_batches,
    read_header,
    set_base_offset,
    set_crc,
    set_leader_epoch,
    set_max_timestamp_and_crc,
)
from strandline_broker.wire.compression import MAX_DECOMPRESSED_BYTES, Compression, compress, decompress
from strandline_broker.wire.errors import DecodeError
from strandline_broker.wire.primitives import (
    MALFORMED,
    Buffer,
    encode_uvarint,
    encode_varint,
    read_varint,
    read_varlong,
)

__all__ = [
    "ATTRIBUTES_OFFSET",
    "BASE_OFFSET_OFFSET",
    "BASE_SEQUENCE_OFFSET",
    "BASE_TIMESTAMP_OFFSET",
    "COMPRESSION_MASK",
    "CONTROL_FLAG",
    "CRC_OFFSET",
    "DELETE_HORIZON_FLAG",
    "HEADER",
    "HEADER_SIZE",
    "LAST_OFFSET_DELTA_OFFSET",
    "LEADER_EPOCH_OFFSET",
    "LENGTH_OFFSET",
    "LOG_APPEND_TIME_FLAG",
    "LOG_OVERHEAD",
    "LOG_PREFIX",
    "MAGIC",
    "MAGIC_OFFSET",
    "MAX_DECOMPRESSED_BYTES",
    "MAX_SEQUENCE",
    "MAX_TIMESTAMP_OFFSET",
    "NO_PRODUCER_EPOCH",
    "NO_PRODUCER_ID",
    "NO_SEQUENCE",
    "NO_TIMESTAMP",
    "PRODUCER_EPOCH_OFFSET",
    "PRODUCER_ID_OFFSET",
    "RECORD_COUNT_OFFSET",
    "TRANSACTIONAL_FLAG",
    "BatchHeader",
    "Compression",
    "Record",
    "build_batch",
    "build_end_txn_marker",
    "crc_ok",
    "iter_batches",
    "iter_records",
    "read_end_txn_marker",
    "read_header",
    "set_base_offset",
    "set_crc",
    "set_leader_epoch",
    "set_max_timestamp_and_crc",
]

NEXT_OFFSET: Final = -1
"""As the offset of a Record to be built: one above the record before it."""

_ABORT_MARKER, _COMMIT_MARKER = 0, 1
_CONTROL_KEY = struct.Struct(">hh")
_CONTROL_VALUE = struct.Struct(">hi")


class Record(NamedTuple):
    """One record. `timestamp` is milliseconds since the epoch; a null key or value is None."""

    offset: int = NEXT_OFFSET
    timestamp: int = NO_TIMESTAMP
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def build_batch(
    records: Iterable[Record],
    *,
    base_offset: int = 0,
    last_offset: int | None = None,
    compression: Compression = Compression.NONE,
    leader_epoch: int = -1,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = NO_PRODUCER_EPOCH,
    base_sequence: int = NO_SEQUENCE,
    transactional: bool = False,
    control: bool = False,
    log_append_time_ms: int | None = None,
    delete_horizon_ms: int | None = None,
) -> bytes:
    """Build one batch with its checksum.

    Offsets of records are absolute and must rise from `base_offset` on; `NEXT_OFFSET` counts up.
    `last_offset` keeps the end of a batch whose last records compaction removed (it may remove all).
    `delete_horizon_ms` becomes the base timestamp (KIP-534). Raises ValueError for offsets out of order.
    """
    entries = list(records)
    first_timestamp = entries[0].timestamp if entries else NO_TIMESTAMP
    base_timestamp = first_timestamp if delete_horizon_ms is None else delete_horizon_ms
    max_timestamp = max((record.timestamp for record in entries), default=NO_TIMESTAMP)
    body = bytearray()
    offset = base_offset - 1
    for record in entries:
        following = offset + 1 if record.offset == NEXT_OFFSET else record.offset
        if following <= offset:
            raise ValueError(f"offset {following} after {offset}")
        offset = following
        data = _encode_record(record, record.timestamp - base_timestamp, offset - base_offset)
        body += encode_uvarint(len(data) << 1)
        body += data
    end = offset if last_offset is None else last_offset
    if end < offset or end < base_offset:
        raise ValueError(f"a batch from {base_offset} with records up to {offset} cannot end at {end}")
    attributes = int(compression)
    attributes |= TRANSACTIONAL_FLAG * transactional | CONTROL_FLAG * control
    if delete_horizon_ms is not None:
        attributes |= DELETE_HORIZON_FLAG
    if log_append_time_ms is not None:
        attributes |= LOG_APPEND_TIME_FLAG
        max_timestamp = log_append_time_ms
    payload = compress(compression, bytes(body))
    batch = bytearray(HEADER_SIZE + len(payload))
    batch[HEADER_SIZE:] = payload
    HEADER.pack_into(
        batch,
        0,
        base_offset,
        len(batch) - LOG_OVERHEAD,
        leader_epoch,
        MAGIC,
        0,
        attributes,
        end - base_offset,
        base_timestamp,
        max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        len(entries),
    )
    set_crc(batch)
    return bytes(batch)


def iter_records(batch: Buffer, max_decompressed_bytes: int = MAX_DECOMPRESSED_BYTES) -> Iterator[Record]:
    """Yield the records of one batch, exactly as long as its header says.

    Keys and values are copies. The checksum is not looked at (`crc_ok`). Raises DecodeError while iterating
    if the batch is broken, expands beyond `max_decompressed_bytes`, or holds more or less than its header
    says.
    """
    header = read_header(batch)
    if header.magic != MAGIC:
        raise DecodeError(f"record batch has magic {header.magic}, only {MAGIC} is understood")
    if header.size != len(batch) or header.record_count < 0:
        raise DecodeError(
            f"record batch of {len(batch)} bytes claims {header.size} and {header.record_count} records"
        )
    data = decompress(header.compression, memoryview(batch)[HEADER_SIZE:], max_decompressed_bytes)
    fixed_timestamp = header.max_timestamp if header.is_log_append_time else None
    pos = 0
    try:
        for _ in range(header.record_count):
            size, pos = read_varint(data, pos)
            end = pos + size
            if size < 0 or end > len(data):
                raise DecodeError(f"record of {size} bytes where {len(data) - pos} are left")
            record = _decode_record(data, pos, end, header.base_offset, header.base_timestamp)
            yield record if fixed_timestamp is None else record._replace(timestamp=fixed_timestamp)
            pos = end
    except MALFORMED as error:
        raise DecodeError(f"malformed record: {error}") from error
    if pos != len(data):
        raise DecodeError(f"{len(data) - pos} bytes follow the last record of a batch")


def build_end_txn_marker(
    *,
    commit: bool,
    producer_id: int,
    producer_epoch: int,
    coordinator_epoch: int,
    timestamp: int,
    base_offset: int = 0,
    leader_epoch: int = -1,
) -> bytes:
    """Build the control batch that ends a transaction in one partition."""
    key = _CONTROL_KEY.pack(0, _COMMIT_MARKER if commit else _ABORT_MARKER)
    value = _CONTROL_VALUE.pack(0, coordinator_epoch)
    return build_batch(
        [Record(timestamp=timestamp, key=key, value=value)],
        base_offset=base_offset,
        leader_epoch=leader_epoch,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        transactional=True,
        control=True,
    )


def read_end_txn_marker(record: Record) -> tuple[bool, int] | None:
    """Return (commit, coordinator epoch) of a record of a control batch, None for other control records.

    Newer versions of key and value may be longer, never different at the start. Raises DecodeError.
    """
    try:
        version, kind = _CONTROL_KEY.unpack_from(record.key or b"")
        if version < 0:
            raise DecodeError(f"control record with key version {version}")
        if kind not in (_ABORT_MARKER, _COMMIT_MARKER):
            return None
        version, coordinator_epoch = _CONTROL_VALUE.unpack_from(record.value or b"")
    except struct.error as error:
        raise DecodeError(f"malformed control record: {error}") from error
    if version < 0:
        raise DecodeError(f"end of transaction with version {version}")
    return kind == _COMMIT_MARKER, coordinator_epoch


def _encode_record(record: Record, timestamp_delta: int, offset_delta: int) -> bytes:
    parts = [b"\x00", encode_varint(timestamp_delta), encode_varint(offset_delta)]
    for data in (record.key, record.value):
        _append_bytes(parts, data)
    parts.append(encode_uvarint(len(record.headers) << 1))
    for name, data in record.headers:
        _append_bytes(parts, name.encode())
        _append_bytes(parts, data)
    return b"".join(parts)


def _append_bytes(parts: list[bytes], data: bytes | None) -> None:
    if data is None:
        parts.append(b"\x01")
    else:
        parts.append(encode_uvarint(len(data) << 1))
        parts.append(data)


def _decode_record(data: Buffer, pos: int, end: int, base_offset: int, base_timestamp: int) -> Record:
    """Decode the record in `data[pos:end]`; `pos` is behind its length."""
    timestamp_delta, pos = read_varlong(data, pos + 1)
    offset_delta, pos = read_varint(data, pos)
    key, pos = _read_bytes(data, pos, end)
    value, pos = _read_bytes(data, pos, end)
    count, pos = read_varint(data, pos)
    if count < 0 or count > end - pos:
        raise DecodeError(f"record with {count} headers in {end - pos} bytes")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        name, pos = _read_bytes(data, pos, end)
        if name is None:
            raise DecodeError("record header without a name")
        content, pos = _read_bytes(data, pos, end)
        headers.append((str(name, "utf-8"), content))
    if pos != end:
        raise DecodeError("record is not as long as it says")
    return Record(base_offset + offset_delta, base_timestamp + timestamp_delta, key, value, tuple(headers))


def _read_bytes(data: Buffer, pos: int, end: int) -> tuple[bytes | None, int]:
    size, pos = read_varint(data, pos)
    if size < 0:
        return None, pos
    if size > end - pos:
        raise DecodeError(f"field of {size} bytes where {end - pos} are left")
    following = pos + size
    return bytes(data[pos:following]), following
