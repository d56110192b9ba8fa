"""Targets of segment objects: whole ones, and tails with right checksums over any content."""

from __future__ import annotations

import struct
from uuid import UUID

from crc32c import crc32c
from tests.fuzz.target import Target

from strandline_tiered.content import PartsSource, pieces
from strandline_tiered.envelope import FormatError
from strandline_tiered.epochs import history_of
from strandline_tiered.segment_object import (
    FOOTER_BYTES,
    Companions,
    SegmentInfo,
    Tail,
    build,
    parse_tail,
    verify,
)

_CHECKSUM_AT = FOOTER_BYTES - 16


def _look_everywhere(tail: Tail) -> None:
    info = tail.footer.info
    for offset in (info.base_offset - 1, info.base_offset, info.end_offset, 1 << 62):
        assert 0 <= tail.position_of(offset) <= tail.footer.log_bytes
    for timestamp in (-1, 0, info.max_timestamp, 1 << 62):
        assert 0 <= tail.position_of_time(timestamp) <= tail.footer.log_bytes
    assert tail.companions


def segment_object(data: bytes) -> None:
    """A whole object. What is accepted is accepted again when it is built anew of what it holds."""
    tail = verify(PartsSource([data]))
    _look_everywhere(tail)
    log = data[: tail.footer.log_bytes]
    if tail.footer.block_bytes == 1 << 20:
        again = build(tail.footer.info, PartsSource([log]), tail.companions)
        assert b"".join(pieces(again)) == data


def segment_tail(data: bytes) -> None:
    """A tail with the right checksums, since a fuzzer does not guess them: the log is missing, and may be any size."""
    if len(data) >= FOOTER_BYTES:
        body = bytearray(data)
        footer = memoryview(body)[-FOOTER_BYTES:]
        (log_bytes,) = struct.unpack_from(">Q", footer, 56)
        position = 0
        for at in range(68, _CHECKSUM_AT, 12):
            (length,) = struct.unpack_from(">Q", footer, at)
            struct.pack_into(">I", footer, at + 8, crc32c(data[position : position + length]))
            position += length
        struct.pack_into(">I", footer, _CHECKSUM_AT, crc32c(footer[:_CHECKSUM_AT]))
        del footer
        _look_everywhere(parse_tail(body, log_bytes + len(body)))
        return
    parse_tail(data, len(data))


def _seed(log: bytes, companions: Companions) -> bytes:
    info = SegmentInfo(UUID(int=5), 3, 7, 100, 110, 1000, 2000)
    return b"".join(pieces(build(info, PartsSource([log]), companions)))


_COMPANIONS = Companions(
    struct.pack(">IIII", 1, 10, 2, 20),
    struct.pack(">qIqI", 1000, 1, 1500, 2),
    bytes(34),
    history_of([(7, 90)]),
    b"producers",
)
_SEEDS = (_seed(b"log bytes" * 9, _COMPANIONS), _seed(b"", Companions()))

SEGMENT_TARGETS = (
    Target("segment-object", segment_object, (FormatError,), _SEEDS),
    Target("segment-tail", segment_tail, (FormatError,), (_SEEDS[0][81:], _SEEDS[1])),
)
