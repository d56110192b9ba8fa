"""What a leader demands of a batch from a client, and what it changes in it.

Who uses it: `Log.stage`. Pure. Records stay opaque unless the topic's configuration makes the broker look
inside: another codec than the batch's, compaction (every record needs a key), or a finite
`message.timestamp.before.max.ms`.

Differences from Kafka: timestamps are judged by the batch header (its maximum, which clients compute) instead
of record by record; transactional batches are refused until transactions are advertised.

Source: Kafka `LogValidator`, `UnifiedLog.analyzeAndValidateRecords`, `ProduceRequest.validateRecords`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from crc32c import crc32c

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.batch import (
    ATTRIBUTES_OFFSET,
    COMPRESSION_MASK,
    CONTROL_FLAG,
    HEADER,
    HEADER_SIZE,
    LENGTH_OFFSET,
    LOG_APPEND_TIME_FLAG,
    LOG_OVERHEAD,
    MAGIC,
    MAX_DECOMPRESSED_BYTES,
    NO_TIMESTAMP,
    TRANSACTIONAL_FLAG,
    Compression,
    iter_records,
    set_crc,
    set_max_timestamp_and_crc,
)
from strandline_broker.wire.compression import compress, decompress
from strandline_broker.wire.errors import DecodeError

if TYPE_CHECKING:
    from strandline_broker.log.config import LogConfig

_unpack_header = HEADER.unpack_from
_REFUSED_FLAGS = LOG_APPEND_TIME_FLAG | TRANSACTIONAL_FLAG | CONTROL_FLAG
_LAST_CODEC = int(Compression.ZSTD)
_ATTRIBUTES = struct.Struct(">h")
_LENGTH = struct.Struct(">i")

Header = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int]


def _invalid(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_RECORD, message)


def validate_client_batch(batch: memoryview, config: LogConfig, now_ms: int) -> tuple[memoryview, Header]:
    """Check one batch of a client; return it as it is to be stored, and its header fields in wire order.

    The batch returned is the one given, or a new one where the topic's codec differs. With
    `message.timestamp.type=LogAppendTime` its timestamp is `now_ms` and its checksum is renewed. Raises
    KafkaError INVALID_RECORD, CORRUPT_MESSAGE, MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE, INVALID_TIMESTAMP,
    UNSUPPORTED_FOR_MESSAGE_FORMAT (transactional), UNSUPPORTED_COMPRESSION_TYPE.
    """
    size = len(batch)
    if size < HEADER_SIZE:
        raise _invalid(f"{size} bytes are no record batch")
    header = _unpack_header(batch)
    (
        base_offset,
        length,
        _,
        magic,
        crc,
        attributes,
        last_delta,
        _,
        max_timestamp,
        producer_id,
        _,
        sequence,
        count,
    ) = header
    if magic != MAGIC:
        raise _invalid(f"magic {magic}: only record batches of format v2 are taken")
    if length + LOG_OVERHEAD != size:
        if HEADER_SIZE <= length + LOG_OVERHEAD < size:
            raise _invalid("exactly one record batch per partition is allowed")
        raise _invalid(f"a batch of {length + LOG_OVERHEAD} bytes in {size}")
    if base_offset != 0:
        raise _invalid(f"the base offset of a produced batch must be 0, not {base_offset}")
    if size > config.max_message_bytes:
        raise KafkaError(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"a batch of {size} bytes; max.message.bytes is {config.max_message_bytes}",
        )
    if crc != crc32c(batch[ATTRIBUTES_OFFSET:]):
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, "wrong checksum")
    if count <= 0 or count != last_delta + 1:
        raise _invalid(f"{count} records, but the last offset delta is {last_delta}")
    if attributes & _REFUSED_FLAGS:
        _refuse_flags(attributes)
    if producer_id >= 0 and sequence < 0:
        raise _invalid(f"sequence {sequence} from producer {producer_id}")
    codec = config.codec
    batch_codec = attributes & COMPRESSION_MASK
    if batch_codec > _LAST_CODEC:
        raise KafkaError(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, f"compression type {batch_codec}")
    append_time = config.log_append_time
    if not append_time and max_timestamp - now_ms > config.message_timestamp_after_max_ms:
        _refuse_timestamp(max_timestamp, now_ms, config)
    if config.looks_inside:
        _look_inside(batch, config, now_ms)
    if codec is not None and codec != batch_codec:
        batch = _convert(batch, codec, config)
        header = _unpack_header(batch)
    if append_time:
        set_max_timestamp_and_crc(batch, now_ms)
        header = _unpack_header(batch)
    if len(batch) > config.segment_bytes:
        raise KafkaError(
            ErrorCode.RECORD_LIST_TOO_LARGE,
            f"a batch of {len(batch)} bytes; segment.bytes is {config.segment_bytes}",
        )
    return batch, header


def _refuse_flags(attributes: int) -> None:
    if attributes & CONTROL_FLAG:
        raise _invalid("clients may not write control records")
    if attributes & TRANSACTIONAL_FLAG:
        raise KafkaError(
            ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT,
            "transactions are not supported yet; unset transactional.id",
        )
    raise KafkaError(
        ErrorCode.INVALID_TIMESTAMP, "a producer may not set the timestamp type to LogAppendTime"
    )


def _refuse_timestamp(timestamp: int, now_ms: int, config: LogConfig) -> None:
    raise KafkaError(
        ErrorCode.INVALID_TIMESTAMP,
        f"timestamp {timestamp} lies outside [{now_ms - config.message_timestamp_before_max_ms}, "
        f"{now_ms + config.message_timestamp_after_max_ms}]",
    )


def _look_inside(batch: memoryview, config: LogConfig, now_ms: int) -> None:
    """Check every record: its key for a compacted topic, its timestamp against both limits."""
    check_time = not config.log_append_time
    earliest = now_ms - config.message_timestamp_before_max_ms
    latest = now_ms + config.message_timestamp_after_max_ms
    compact = config.compact
    try:
        for index, record in enumerate(iter_records(batch, MAX_DECOMPRESSED_BYTES)):
            if compact and record.key is None:
                raise _invalid(f"record {index}: a compacted topic takes no records without a key")
            if check_time and record.timestamp != NO_TIMESTAMP and not earliest <= record.timestamp <= latest:
                _refuse_timestamp(record.timestamp, now_ms, config)
    except DecodeError as error:
        raise _invalid(f"malformed records: {error}") from error


def _convert(batch: memoryview, codec: Compression, config: LogConfig) -> memoryview:
    """Return the batch compressed with another codec; the records themselves are the same bytes."""
    (attributes,) = _ATTRIBUTES.unpack_from(batch, ATTRIBUTES_OFFSET)
    try:
        records = decompress(attributes & COMPRESSION_MASK, batch[HEADER_SIZE:], MAX_DECOMPRESSED_BYTES)
    except DecodeError as error:
        raise _invalid(f"cannot convert to {codec.name.lower()}: {error}") from error
    payload = compress(codec, bytes(records))
    size = HEADER_SIZE + len(payload)
    if size > config.max_message_bytes:
        raise KafkaError(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"{size} bytes as {codec.name.lower()}; max.message.bytes is {config.max_message_bytes}",
        )
    converted = bytearray(size)
    converted[:HEADER_SIZE] = batch[:HEADER_SIZE]
    converted[HEADER_SIZE:] = payload
    _LENGTH.pack_into(converted, LENGTH_OFFSET, len(converted) - LOG_OVERHEAD)
    _ATTRIBUTES.pack_into(converted, ATTRIBUTES_OFFSET, attributes & ~COMPRESSION_MASK | codec)
    set_crc(converted)
    return memoryview(converted)
