from __future__ import annotations

import struct

import pytest
from tests.unit.log.support import NOW_MS, make_batch

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.config import LogConfig
from strandline_broker.log.validate import validate_client_batch
from strandline_broker.wire.batch import (
    CONTROL_FLAG,
    LOG_APPEND_TIME_FLAG,
    TRANSACTIONAL_FLAG,
    Compression,
    crc_ok,
    iter_records,
    read_header,
    set_crc,
)


def refused(batch: bytearray, config: LogConfig | None = None, *, renew_crc: bool = False) -> ErrorCode:
    if renew_crc:
        set_crc(batch)
    with pytest.raises(KafkaError) as caught:
        validate_client_batch(memoryview(batch), config or LogConfig(), NOW_MS)
    assert caught.value.message
    return caught.value.code


def patched(offset: int, layout: str, value: int, **arguments: int) -> bytearray:
    batch = make_batch(3, **arguments)  # type: ignore[arg-type]
    struct.pack_into(layout, batch, offset, value)
    return batch


def test_a_good_batch_is_returned_as_it_is() -> None:
    batch = make_batch(3)
    before = bytes(batch)
    view, header = validate_client_batch(memoryview(batch), LogConfig(), NOW_MS)
    assert view.obj is batch
    assert bytes(batch) == before
    assert header == tuple(read_header(batch))


def test_every_flipped_bit_that_the_checksum_covers_is_corrupt() -> None:
    batch = make_batch(1)
    for position in range(21, len(batch)):
        broken = bytearray(batch)
        broken[position] ^= 0x10
        assert refused(broken) is ErrorCode.CORRUPT_MESSAGE


def test_exactly_one_whole_batch() -> None:
    batch = make_batch(2)
    assert refused(batch + make_batch(1)) is ErrorCode.INVALID_RECORD
    assert refused(batch[:-1]) is ErrorCode.INVALID_RECORD
    assert refused(bytearray(60)) is ErrorCode.INVALID_RECORD
    assert refused(bytearray()) is ErrorCode.INVALID_RECORD
    assert refused(patched(8, ">i", -1)) is ErrorCode.INVALID_RECORD


@pytest.mark.parametrize("magic", [0, 1, 3, -1])
def test_only_format_v2(magic: int) -> None:
    assert refused(patched(16, ">b", magic)) is ErrorCode.INVALID_RECORD


def test_base_offset_must_be_zero() -> None:
    assert refused(patched(0, ">q", 1)) is ErrorCode.INVALID_RECORD


@pytest.mark.parametrize(("count", "delta"), [(0, 2), (3, 1), (2, 2), (-1, -2), (4, 2)])
def test_record_count_and_last_offset_delta_agree(count: int, delta: int) -> None:
    batch = patched(57, ">i", count)
    struct.pack_into(">i", batch, 23, delta)
    assert refused(batch, renew_crc=True) is ErrorCode.INVALID_RECORD


@pytest.mark.parametrize(
    ("flag", "code"),
    [
        (CONTROL_FLAG, ErrorCode.INVALID_RECORD),
        (TRANSACTIONAL_FLAG, ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT),
        (LOG_APPEND_TIME_FLAG, ErrorCode.INVALID_TIMESTAMP),
        (5, ErrorCode.UNSUPPORTED_COMPRESSION_TYPE),
    ],
)
def test_flags_that_clients_may_not_set(flag: int, code: ErrorCode) -> None:
    assert refused(patched(21, ">h", flag), renew_crc=True) is code


def test_idempotent_batches_need_a_sequence() -> None:
    batch = make_batch(1, producer=(5, 0, 0))
    struct.pack_into(">i", batch, 53, -1)
    assert refused(batch, renew_crc=True) is ErrorCode.INVALID_RECORD


def test_sizes() -> None:
    batch = make_batch(1, size=100)
    exact = LogConfig(max_message_bytes=len(batch))
    validate_client_batch(memoryview(batch), exact, NOW_MS)
    assert refused(batch, LogConfig(max_message_bytes=len(batch) - 1)) is ErrorCode.MESSAGE_TOO_LARGE
    assert refused(batch, LogConfig(segment_bytes=len(batch) - 1)) is ErrorCode.RECORD_LIST_TOO_LARGE


def test_timestamps_within_limits() -> None:
    config = LogConfig(message_timestamp_after_max_ms=1000, message_timestamp_before_max_ms=2000)
    for timestamp in (NOW_MS - 2000, NOW_MS, NOW_MS + 1000, -1):
        validate_client_batch(memoryview(make_batch(timestamp=timestamp)), config, NOW_MS)
    assert refused(make_batch(timestamp=NOW_MS + 1001), config) is ErrorCode.INVALID_TIMESTAMP
    assert refused(make_batch(timestamp=NOW_MS - 2001), config) is ErrorCode.INVALID_TIMESTAMP
    assert refused(make_batch(timestamp=NOW_MS + 3_600_001)) is ErrorCode.INVALID_TIMESTAMP
    # The first record is fine, the last is not.
    assert refused(make_batch(3, timestamp=NOW_MS + 999), config) is ErrorCode.INVALID_TIMESTAMP


def test_log_append_time_is_patched_with_a_new_checksum_and_checks_no_client_time() -> None:
    config = LogConfig(message_timestamp_type="LogAppendTime", message_timestamp_before_max_ms=0)
    batch = make_batch(2, timestamp=5)
    view, header = validate_client_batch(memoryview(batch), config, NOW_MS)
    assert crc_ok(view)
    assert header[8] == NOW_MS
    assert [record.timestamp for record in iter_records(view)] == [NOW_MS, NOW_MS]


@pytest.mark.parametrize("source", list(Compression))
@pytest.mark.parametrize("target", ["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"])
def test_conversion_to_the_topics_codec(source: Compression, target: str) -> None:
    config = LogConfig(compression_type=target)
    batch = make_batch(20, size=200, compression=source, producer=(9, 1, 7))
    expected = list(iter_records(batch))
    view, header = validate_client_batch(memoryview(batch), config, NOW_MS)
    stored = read_header(view)
    assert stored.compression == (source if config.codec is None else config.codec)
    assert tuple(stored) == header
    assert crc_ok(view)
    assert list(iter_records(view)) == expected
    assert (stored.producer_id, stored.producer_epoch, stored.base_sequence) == (9, 1, 7)


def test_conversion_judges_the_size_again_and_refuses_what_does_not_decompress() -> None:
    batch = make_batch(1, size=5000, compression=Compression.GZIP)
    config = LogConfig(compression_type="uncompressed", max_message_bytes=1000)
    assert refused(batch, config) is ErrorCode.MESSAGE_TOO_LARGE
    batch[70:] = bytes(len(batch) - 70)
    assert refused(batch, LogConfig(compression_type="lz4"), renew_crc=True) is ErrorCode.INVALID_RECORD


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.LZ4])
def test_compacted_topics_want_keys(compression: Compression) -> None:
    config = LogConfig(cleanup_policy=frozenset({"compact"}))
    validate_client_batch(memoryview(make_batch(2, compression=compression)), config, NOW_MS)
    assert refused(make_batch(2, compression=compression, key=None), config) is ErrorCode.INVALID_RECORD


def test_config_from_topic_config() -> None:
    config = LogConfig.from_topic_config(
        {
            "segment.bytes": "1000",
            "internal.segment.bytes": "77",
            "retention.ms": "-1",
            "cleanup.policy": "compact,delete",
            "compression.type": "zstd",
            "min.cleanable.dirty.ratio": "0.25",
            "message.timestamp.type": "LogAppendTime",
            "min.insync.replicas": "2",
        }
    )
    assert (config.segment_bytes, config.retention_ms, config.codec) == (77, -1, Compression.ZSTD)
    assert config.compact
    assert config.delete
    assert config.log_append_time
    assert config.min_cleanable_dirty_ratio == 0.25
    with pytest.raises(ValueError, match="compression"):
        LogConfig.from_topic_config({"compression.type": "rar"})
