"""Segment objects for tests: a log of pattern bytes with an index entry every few KiB."""

from __future__ import annotations

import struct
from uuid import UUID

from tests.unit.tiered.store_contract import FileLike, pattern

from strandline_tiered.epochs import history_of
from strandline_tiered.segment_object import Companions, SegmentInfo, SegmentObject, build

TOPIC_ID = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
RECORD_BYTES = 1000
"""Every record of these logs: record i of a segment lies at i * RECORD_BYTES and has the timestamp 1000 + 10 * i."""


def info_of(base_offset: int, records: int) -> SegmentInfo:
    return SegmentInfo(TOPIC_ID, 3, 7, base_offset, base_offset + records, 1000, 1000 + 10 * (records - 1))


def companions_of(records: int, every: int = 4) -> Companions:
    return Companions(
        offset_index=b"".join(struct.pack(">II", i, i * RECORD_BYTES) for i in range(every, records, every)),
        time_index=b"".join(struct.pack(">qI", 1000 + 10 * i, i) for i in range(every, records, every)),
        epochs=history_of([(0, 0), (7, 90)]),
        producers=b"producers",
    )


def make_object(base_offset: int = 100, records: int = 40, seed: int = 0) -> tuple[bytes, SegmentObject]:
    """Return the log's bytes and the object."""
    log = pattern(records * RECORD_BYTES, seed)
    return log, build(info_of(base_offset, records), FileLike(log), companions_of(records))
