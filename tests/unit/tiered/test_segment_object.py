"""The format of segment objects: byte by byte, and what becomes of every damaged byte."""

from __future__ import annotations

import struct
from uuid import UUID

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.tiered.segment_objects import RECORD_BYTES, companions_of, info_of, make_object
from tests.unit.tiered.store_contract import FileLike, pattern

from strandline_tiered.content import PartsSource, as_source, pieces
from strandline_tiered.envelope import FormatError
from strandline_tiered.epochs import history_of
from strandline_tiered.object_store import SourceFailed
from strandline_tiered.segment_object import (
    BLOCK_BYTES,
    FOOTER_BYTES,
    Companions,
    SegmentInfo,
    build,
    parse_footer,
    parse_tail,
    verify,
)

GOLDEN = bytes.fromhex(
    "6c6f67206279746573"  # the log: "log bytes"
    "030f2125"  # CRC-32C of its only block
    "0000000100000004"  # offset index: offset 1 of the segment at position 4
    "00000000000003e800000001"  # time index: timestamp 1000 at offset 1 of the segment
    "00000000000000000000000000000000000000000000000000000000000000000000"  # aborted transactions, one of zeros
    "00000002000000000000000a"  # leader epochs: epoch 2 from offset 10 on
    "7072"  # producers: "pr"
    "000102030405060708090a0b0c0d0e0f"  # footer: topic id
    "0000000300000005"  # partition, leader epoch
    "000000000000000a000000000000000c"  # base offset, end offset
    "00000000000003e800000000000007d0"  # base timestamp, max timestamp
    "000000000000000900100000"  # bytes of the log, bytes of a block
    "00000000000000041f8179e5"  # length and CRC-32C of the block checksums
    "000000000000000873a34a39"  # of the offset index
    "000000000000000c6a8bfcb0"  # of the time index
    "0000000000000022d93ab9b7"  # of the aborted transactions
    "000000000000000cad134704"  # of the leader epochs
    "0000000000000002de9b87af"  # of the producers
    "3bad48b4009c0001"  # CRC-32C of the footer so far, length of the footer, version
    "5354524e44534547"  # STRNDSEG
)


def whole(source: object) -> bytes:
    return b"".join(pieces(as_source(source)))  # type: ignore[arg-type]


def test_golden_bytes() -> None:
    info = SegmentInfo(UUID(bytes=bytes(range(16))), 3, 5, 10, 12, 1000, 2000)
    companions = Companions(
        offset_index=struct.pack(">II", 1, 4),
        time_index=struct.pack(">qI", 1000, 1),
        aborted_transactions=bytes(34),
        epochs=history_of([(2, 10)]),
        producers=b"pr",
    )
    made = build(info, PartsSource([b"log bytes"]), companions)
    assert whole(made) == GOLDEN
    assert crc32c(b"log bytes").to_bytes(4, "big") == GOLDEN[9:13]
    tail = verify(PartsSource([GOLDEN]))
    assert tail.footer.info == info
    assert tail.companions == companions


def test_a_segment_comes_back_and_its_log_is_not_in_memory() -> None:
    log = pattern(5 * BLOCK_BYTES + 17)
    source = FileLike(log)
    made = build(info_of(100, 40), source, companions_of(40))
    assert source.largest_read <= BLOCK_BYTES
    assert made.log_bytes == len(log)
    data = whole(made)
    assert len(data) == made.size
    assert data.startswith(log)
    tail = parse_tail(data[made.log_bytes :], len(data))
    assert tail.companions == companions_of(40)
    # A read that reaches back further than the tail is as good.
    assert parse_tail(data[made.log_bytes - 1000 :], len(data)).companions == companions_of(40)
    assert verify(made).footer == tail.footer == parse_footer(data[-FOOTER_BYTES:], len(data))


@pytest.mark.parametrize(
    ("start", "length"), [(0, 10), (39_990, 10), (39_990, 30), (40_000, 30), (40_100, 5)]
)
def test_reads_cross_from_the_log_into_the_tail(start: int, length: int) -> None:
    log, made = make_object()
    assert len(log) == made.log_bytes == 40_000
    assert bytes(made.read(start, length)) == whole(made)[start : start + length]


def test_an_empty_segment_is_one_too() -> None:
    made = build(info_of(5, 0), PartsSource([]), Companions())
    tail = verify(made)
    assert made.size == FOOTER_BYTES
    assert tail.companions == Companions()
    assert tail.position_of(5) == tail.position_of_time(0) == 0


@pytest.mark.parametrize("every", [1, 4, 100])
def test_lookups_begin_at_or_before_what_is_sought_and_not_far_before(every: int) -> None:
    records = 40
    log = pattern(records * RECORD_BYTES)
    made = build(info_of(100, records), FileLike(log), companions_of(records, every))
    tail = verify(made)
    for record in range(records):
        for found in (tail.position_of(100 + record), tail.position_of_time(1000 + 10 * record)):
            assert max(0, record - every) * RECORD_BYTES <= found <= record * RECORD_BYTES
    assert tail.position_of(0) == tail.position_of_time(-1) == 0
    assert tail.position_of(1 << 40) <= len(log)
    assert tail.position_of_time(1 << 60) <= len(log)


def test_a_changed_block_of_the_log_is_noticed_wherever_it_is_read() -> None:
    log = bytearray(pattern(3 * BLOCK_BYTES + 100))
    tail = verify(build(info_of(0, 1), FileLike(bytes(log)), Companions()))
    tail.check(0, log)
    tail.check(BLOCK_BYTES, log[BLOCK_BYTES:])
    tail.check(BLOCK_BYTES, log[BLOCK_BYTES : 2 * BLOCK_BYTES])
    tail.check(500, log[500 : BLOCK_BYTES + 9])  # no whole block: nothing to say
    with pytest.raises(FormatError):
        tail.check(3 * BLOCK_BYTES, bytes(log[3 * BLOCK_BYTES :]) + b"x")
    for place in (0, BLOCK_BYTES + 5, 3 * BLOCK_BYTES + 99):
        changed = bytearray(log)
        changed[place] ^= 1
        with pytest.raises(FormatError, match="checksum"):
            tail.check(0, changed)
        block = place // BLOCK_BYTES * BLOCK_BYTES
        with pytest.raises(FormatError, match="checksum"):
            tail.check(block, changed[block : block + BLOCK_BYTES])


def test_every_changed_byte_and_every_cut_is_noticed() -> None:
    _, made = make_object(records=2)
    data = whole(made)
    verify(PartsSource([data]))
    for place in range(len(data)) if len(data) < 400 else (*range(0, 2000, 97), *range(2000, len(data))):
        changed = bytearray(data)
        changed[place] ^= 0x40
        with pytest.raises(FormatError):
            verify(PartsSource([bytes(changed)]))
    for length in range(1, FOOTER_BYTES + 100):
        for cut in (data[:-length], data[length:]):
            with pytest.raises(FormatError):
                verify(PartsSource([cut]))


def test_a_later_version_is_named() -> None:
    data = bytearray(GOLDEN)
    data[-9] = 2
    with pytest.raises(FormatError, match="version 2"):
        verify(PartsSource([bytes(data)]))


def test_a_log_that_cannot_be_read_makes_no_object() -> None:
    with pytest.raises(SourceFailed):
        build(info_of(0, 1), FileLike(bytes(100), broken_from=50), Companions())


@given(st.binary(max_size=300))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        verify(PartsSource([data]))
