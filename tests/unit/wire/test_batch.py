from __future__ import annotations

import random
from typing import Any

import cramjam
import pytest
from aiokafka.record.default_records import (  # type: ignore[import-untyped]
    DefaultRecordBatch,
    DefaultRecordBatchBuilder,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from strandline_broker.wire import batch as b
from strandline_broker.wire.batch import Compression, Record, build_batch, iter_records
from strandline_broker.wire.errors import DecodeError

BYTES = st.none() | st.binary(max_size=30)
HEADERS = st.lists(st.tuples(st.text(max_size=5), BYTES), max_size=3).map(tuple)
RECORDS = st.lists(
    st.builds(
        Record, offset=st.just(-1), timestamp=st.integers(0, 2**42), key=BYTES, value=BYTES, headers=HEADERS
    ),
    min_size=1,
    max_size=20,
)
CODECS = st.sampled_from(list(Compression))


def numbered(records: list[Record], base_offset: int) -> list[Record]:
    return [record._replace(offset=base_offset + i) for i, record in enumerate(records)]


def by_aiokafka(batch: bytes) -> list[Record]:
    records: Any = DefaultRecordBatch(bytearray(batch))
    assert records.validate_crc()
    return [Record(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in records]


@settings(deadline=None)
@given(RECORDS, st.integers(0, 2**50), CODECS)
def test_what_we_build_we_and_aiokafka_read(
    records: list[Record], base_offset: int, codec: Compression
) -> None:
    batch = build_batch(records, base_offset=base_offset, compression=codec)
    assert b.crc_ok(memoryview(batch))
    assert list(iter_records(batch)) == numbered(records, base_offset)
    assert by_aiokafka(batch) == numbered(records, base_offset)


@settings(deadline=None)
@given(
    RECORDS,
    CODECS,
    st.booleans(),
    st.integers(0, 2**40),
    st.integers(0, 2**15 - 1),
    st.integers(0, 2**31 - 1),
)
def test_we_read_what_aiokafka_builds(
    records: list[Record], codec: Compression, transactional: bool, pid: int, epoch: int, sequence: int
) -> None:
    builder: Any = DefaultRecordBatchBuilder(2, int(codec), int(transactional), pid, epoch, sequence, 1 << 20)
    for offset, record in enumerate(records):
        builder.append(offset, record.timestamp, record.key, record.value, list(record.headers))
    batch = bytes(builder.build())
    header = b.read_header(batch)
    assert b.crc_ok(memoryview(batch))
    assert (header.magic, header.size, header.record_count) == (2, len(batch), len(records))
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (pid, epoch, sequence)
    assert (header.is_transactional, header.is_control) == (transactional, False)
    assert (header.base_timestamp, header.max_timestamp) == (
        records[0].timestamp,
        max(record.timestamp for record in records),
    )
    assert (header.last_offset, header.next_offset) == (len(records) - 1, len(records))
    assert list(iter_records(batch)) == numbered(records, 0)
    if codec is Compression.NONE:
        ours = build_batch(
            records,
            leader_epoch=header.leader_epoch,
            producer_id=pid,
            producer_epoch=epoch,
            base_sequence=sequence,
            transactional=transactional,
        )
        assert ours == batch


def test_patching_keeps_the_checksum_where_it_does_not_cover() -> None:
    batch = bytearray(build_batch([Record(timestamp=5, value=b"x")]))
    b.set_base_offset(batch, 2**40)
    b.set_leader_epoch(batch, 77)
    header = b.read_header(batch)
    assert (header.base_offset, header.leader_epoch) == (2**40, 77)
    assert b.crc_ok(memoryview(batch))


def test_log_append_time_holds_for_every_record() -> None:
    batch = bytearray(build_batch([Record(timestamp=5, value=b"x"), Record(timestamp=9)]))
    b.set_max_timestamp_and_crc(memoryview(batch), 1234)
    assert b.crc_ok(memoryview(batch))
    assert b.read_header(batch).is_log_append_time
    assert [record.timestamp for record in iter_records(batch)] == [1234, 1234]
    assert bytes(batch) == build_batch(
        [Record(timestamp=5, value=b"x"), Record(timestamp=9)], log_append_time_ms=1234
    )
    b.set_max_timestamp_and_crc(batch, 9, log_append_time=False)
    assert [record.timestamp for record in iter_records(batch)] == [5, 9]


@given(st.integers(0, 200))
def test_any_changed_byte_behind_the_checksum_is_noticed(position: int) -> None:
    batch = bytearray(build_batch([Record(value=bytes(200))]))
    batch[b.ATTRIBUTES_OFFSET + position] ^= 0x40
    assert not b.crc_ok(memoryview(batch))


def test_a_fragment_has_no_right_checksum() -> None:
    batch = build_batch([], last_offset=0)
    assert b.crc_ok(memoryview(batch))
    assert not b.crc_ok(memoryview(batch)[:60])
    assert not b.crc_ok(memoryview(b""))


def test_compacted_batches_keep_gaps_and_their_end() -> None:
    records = [Record(12, 5, b"a"), Record(15, 6, b"b")]
    batch = build_batch(records, base_offset=10, last_offset=20, delete_horizon_ms=1)
    header = b.read_header(batch)
    assert (header.base_offset, header.last_offset, header.record_count) == (10, 20, 2)
    assert header.has_delete_horizon
    assert list(iter_records(batch)) == records
    empty = build_batch([], base_offset=10, last_offset=20)
    assert (b.read_header(empty).next_offset, list(iter_records(empty))) == (21, [])


@pytest.mark.parametrize(
    ("records", "last"), [([Record(4)], None), ([Record(6), Record(6)], None), ([Record(9)], 8), ([], 4)]
)
def test_offsets_out_of_order_are_refused(records: list[Record], last: int | None) -> None:
    with pytest.raises(ValueError, match=r"offset|cannot end"):
        build_batch(records, base_offset=5, last_offset=last)


def test_sequences_wrap() -> None:
    batch = build_batch([Record()] * 3, producer_id=1, producer_epoch=0, base_sequence=2**31 - 2)
    assert b.read_header(batch).last_sequence == 0
    assert b.read_header(build_batch([Record()])).last_sequence == -1


@pytest.mark.parametrize("commit", [True, False])
def test_transaction_markers(commit: bool) -> None:
    batch = b.build_end_txn_marker(
        commit=commit, producer_id=7, producer_epoch=2, coordinator_epoch=9, timestamp=5, base_offset=3
    )
    header = b.read_header(batch)
    assert (header.is_control, header.is_transactional, header.base_sequence) == (True, True, -1)
    (record,) = iter_records(batch)
    assert record.key == b"\x00\x00\x00" + bytes([commit])
    assert b.read_end_txn_marker(record) == (commit, 9)


def test_other_control_records_are_no_markers() -> None:
    assert b.read_end_txn_marker(Record(key=b"\0\0\0\2")) is None
    for record in (Record(), Record(key=b"\0\0\0\1"), Record(key=b"\xff\xff\0\1", value=bytes(6))):
        with pytest.raises(DecodeError):
            b.read_end_txn_marker(record)


def test_batches_are_walked_up_to_an_incomplete_one() -> None:
    first, second = build_batch([Record(value=b"x")] * 3), build_batch([Record()], base_offset=3)
    data = first + second + first
    for end in range(len(first) + len(second), len(data)):
        assert [(pos, h.base_offset) for pos, h in b.iter_batches(memoryview(data)[:end])] == [
            (0, 0),
            (len(first), 3),
        ]
    broken = bytearray(data)
    broken[len(first) + 8 : len(first) + 12] = (48).to_bytes(4, "big")
    with pytest.raises(DecodeError):
        list(b.iter_batches(broken))
    with pytest.raises(DecodeError):
        b.read_header(first, len(first) - 60)


def rebuilt(batch: bytes, **fields: int) -> bytes:
    header = b.read_header(batch)._replace(**fields)
    return b.HEADER.pack(*header) + batch[b.HEADER_SIZE :]


@pytest.mark.parametrize(
    "fields",
    [
        {"magic": 1},
        {"record_count": 3},
        {"record_count": 1},
        {"record_count": -1},
        {"length": 1},
        {"attributes": 5},
    ],
)
def test_headers_that_lie_are_decode_errors(fields: dict[str, int]) -> None:
    batch = build_batch([Record(value=b"x"), Record(key=b"k")])
    with pytest.raises(DecodeError):
        list(iter_records(rebuilt(batch, **fields)))


@pytest.mark.parametrize("codec", [c for c in Compression if c])
def test_bombs_are_refused(codec: Compression) -> None:
    batch = build_batch([Record(value=bytes(1 << 22))], compression=codec)
    assert len(batch) < 1 << 18
    assert len(next(iter_records(batch)).value or b"") == 1 << 22
    with pytest.raises(DecodeError):
        list(iter_records(batch, max_decompressed_bytes=1 << 21))


def test_snappy_without_framing_is_read_as_librdkafka_writes_it() -> None:
    plain = build_batch([Record(value=b"x" * 100)])
    payload = bytes(cramjam.snappy.compress_raw(plain[b.HEADER_SIZE :]))
    header = b.read_header(plain)._replace(attributes=2, length=49 + len(payload))
    assert [r.value for r in iter_records(b.HEADER.pack(*header) + payload)] == [b"x" * 100]


def test_lz4_blocks_that_do_not_compress_are_stored() -> None:
    noise = random.Random(1).randbytes(200_000)
    batch = build_batch([Record(value=noise)], compression=Compression.LZ4)
    assert next(iter_records(batch)).value == noise
    assert by_aiokafka(batch)[0].value == noise
