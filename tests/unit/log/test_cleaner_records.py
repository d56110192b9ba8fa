"""The cleaner's inner loop against the plain record codec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strandline_broker.log.cleaner_records import (
    LONGEST_PLAIN_KEY,
    empty_batch,
    index_keys,
    key_identity,
    rewrite_batch,
    select_records,
)
from strandline_broker.wire.batch import (
    HEADER_SIZE,
    Compression,
    Record,
    build_batch,
    crc_ok,
    iter_records,
    read_header,
)
from strandline_broker.wire.compression import decompress
from strandline_broker.wire.errors import DecodeError

KEYS = st.one_of(st.none(), st.binary(max_size=3), st.binary(min_size=28, max_size=70), st.just(b"x" * 9000))
VALUES = st.one_of(
    st.none(), st.binary(max_size=5), st.binary(min_size=60, max_size=300), st.just(b"y" * 20_000)
)
HEADERS = st.lists(
    st.tuples(st.sampled_from(["h", "name"]), st.one_of(st.none(), st.binary(max_size=9))), max_size=2
)


@st.composite
def batches(
    draw: st.DrawFn, compression: st.SearchStrategy[Compression] | None = None
) -> tuple[bytes, list[Record]]:
    """Draw a batch with gaps between its offsets, as compaction leaves them, and its records."""
    offset = draw(st.integers(0, 1 << 40))
    base = offset
    timestamp = draw(st.sampled_from([-1, 0, 1_700_000_000_000]))
    records = []
    for _ in range(draw(st.integers(1, 12))):
        key, value = draw(KEYS), draw(VALUES)
        at = timestamp if timestamp < 0 else max(0, timestamp + draw(st.integers(-100_000, 100_000)))
        records.append(Record(offset, at, key, value, tuple(draw(HEADERS))))
        offset += draw(st.sampled_from([1, 1, 1, 2, 70, 9000, 3_000_000]))
    return (
        build_batch(
            records,
            base_offset=base,
            last_offset=offset,
            leader_epoch=5,
            producer_id=9,
            producer_epoch=2,
            base_sequence=77,
            compression=Compression.NONE if compression is None else draw(compression),
        ),
        records,
    )


def inside(batch: bytes) -> tuple[bytes, int, int]:
    header = read_header(batch)
    if not header.compression:
        return b"before" + batch + b"behind", 6 + HEADER_SIZE, 6 + len(batch)
    data = bytes(decompress(header.compression, batch[HEADER_SIZE:]))
    return data, 0, len(data)


@given(batches())
def test_the_map_holds_the_last_offset_of_every_key(drawn: tuple[bytes, list[Record]]) -> None:
    batch, records = drawn
    header = read_header(batch)
    latest: dict[bytes, int] = {}
    start = records[len(records) // 3].offset
    assert index_keys(latest, 100, *inside(batch), header, start) == header.next_offset
    assert latest == {
        key_identity(record.key): record.offset
        for record in records
        if record.key is not None and record.offset >= start
    }


@given(batches(), st.integers(1, 5))
def test_a_full_map_stops_at_the_first_new_key(drawn: tuple[bytes, list[Record]], room: int) -> None:
    batch, records = drawn
    header = read_header(batch)
    latest: dict[bytes, int] = {}
    end = index_keys(latest, room, *inside(batch), header, 0)
    expected: dict[bytes, int] = {}
    stop = header.next_offset
    for record in records:
        if record.key is not None:
            key = key_identity(record.key)
            if key not in expected and len(expected) == room:
                stop = record.offset
                break
            expected[key] = record.offset
    assert (latest, end) == (expected, stop)


def chosen(records: list[Record], latest: dict[bytes, int], end: int, *, drop: bool) -> list[Record]:
    return [
        record
        for record in records
        if record.offset >= end
        or (
            record.key is not None
            and latest.get(key_identity(record.key), -1) <= record.offset
            and (record.value is not None or not drop)
        )
    ]


@given(
    batches(st.sampled_from(Compression)),
    st.data(),
    st.booleans(),
    st.sampled_from([None, 1_700_000_111_111]),
)
def test_what_stays_is_as_it_was(
    drawn: tuple[bytes, list[Record]], data: st.DataObject, drop: bool, horizon: int | None
) -> None:
    batch, records = drawn
    header = read_header(batch)
    keys = sorted({key_identity(record.key) for record in records if record.key is not None})
    newer = data.draw(st.lists(st.sampled_from(keys), unique=True)) if keys else []
    latest = dict.fromkeys(newer, header.next_offset + 5)
    end = data.draw(st.sampled_from([header.next_offset, records[-1].offset]))
    content, start, stop = inside(batch)
    selection = select_records(latest, end, content, start, stop, header, drop_tombstones=drop)
    expected = chosen(records, latest, end, drop=drop)
    assert selection.kept == len(expected)
    assert selection.tombstones == any(
        r.value is None and r.key is not None and r.offset < end for r in expected
    )
    assert selection.keyless == sum(record.key is None and record.offset < end for record in records)
    if not expected:
        return
    written, timestamp = rewrite_batch(content, selection, header, horizon)
    assert list(iter_records(written)) == expected
    assert crc_ok(memoryview(written))
    after = read_header(written)
    assert after.max_timestamp == timestamp == max(record.timestamp for record in expected)
    assert after.has_delete_horizon == (horizon is not None)
    assert after.base_timestamp == (header.base_timestamp if horizon is None else horizon)
    same = ("base_offset", "last_offset", "leader_epoch", "producer_id", "producer_epoch", "base_sequence")
    assert [getattr(after, name) for name in same] == [getattr(header, name) for name in same]
    assert after.compression == header.compression
    assert after.last_sequence == header.last_sequence


@given(batches(st.sampled_from(Compression)))
def test_an_empty_batch_keeps_offsets_sequences_and_time(drawn: tuple[bytes, list[Record]]) -> None:
    header = read_header(drawn[0])
    batch = empty_batch(header)
    after = read_header(batch)
    assert len(batch) == after.size == HEADER_SIZE
    assert list(iter_records(batch)) == []
    assert crc_ok(memoryview(batch))
    assert (
        after._replace(
            length=header.length,
            crc=header.crc,
            attributes=header.attributes,
            base_timestamp=header.base_timestamp,
            record_count=header.record_count,
        )
        == header
    )


def test_log_append_time_stays_with_every_record() -> None:
    records = [Record(offset, 50 + offset, b"%d" % offset, b"v") for offset in range(4)]
    batch = build_batch(records, log_append_time_ms=99)
    header = read_header(batch)
    content, start, stop = inside(batch)
    selection = select_records({b"2": 9}, 4, content, start, stop, header, drop_tombstones=False)
    written, timestamp = rewrite_batch(content, selection, header, None)
    assert timestamp == 99
    assert [(record.offset, record.timestamp) for record in iter_records(written)] == [
        (0, 99),
        (1, 99),
        (3, 99),
    ]


@given(batches(), st.integers(0, 1 << 30), st.integers(1, 255))
def test_broken_records_are_named_never_misread(
    drawn: tuple[bytes, list[Record]], where: int, change: int
) -> None:
    batch = bytearray(drawn[0])
    header = read_header(batch)
    batch[HEADER_SIZE + where % (len(batch) - HEADER_SIZE)] ^= change
    try:
        expected = list(iter_records(batch))
    except DecodeError:
        expected = None
    for work in (
        lambda: index_keys({}, 1000, bytes(batch), HEADER_SIZE, len(batch), header, 0),
        lambda: select_records(
            {}, 1 << 62, bytes(batch), HEADER_SIZE, len(batch), header, drop_tombstones=False
        ),
    ):
        try:
            work()
        except DecodeError:
            assert expected is None or any(record.offset < header.base_offset for record in expected)


def test_long_keys_are_told_apart_from_short_ones() -> None:
    long = b"k" * (LONGEST_PLAIN_KEY + 1)
    assert len(key_identity(long)) == LONGEST_PLAIN_KEY + 1
    assert key_identity(long) != long
    assert key_identity(key_identity(long)) != key_identity(long)
    assert key_identity(b"k" * LONGEST_PLAIN_KEY) == b"k" * LONGEST_PLAIN_KEY


def test_records_cut_short() -> None:
    batch = build_batch([Record(key=b"k", value=b"v")])
    header = read_header(batch)._replace(record_count=2)
    with pytest.raises(DecodeError):
        index_keys({}, 9, batch, HEADER_SIZE, len(batch), header, 0)
    with pytest.raises(DecodeError):
        select_records({}, 9, batch, HEADER_SIZE, len(batch), header, drop_tombstones=False)
    with pytest.raises(DecodeError, match="follow"):
        select_records(
            {}, 9, batch, HEADER_SIZE, len(batch), header._replace(record_count=0), drop_tombstones=False
        )
