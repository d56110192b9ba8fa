"""Lookups that walk batches: by timestamp, the largest timestamp, and a check of everything.

Who uses it: `Log`, whose methods document them.

Source: Kafka `UnifiedLog.fetchOffsetByTimestamp`, `LogSegment.findOffsetByTimestamp`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strandline_broker.log.scan import CorruptBatch, iter_verified
from strandline_broker.wire.batch import BatchHeader, iter_records
from strandline_broker.wire.errors import DecodeError

if TYPE_CHECKING:
    from strandline_broker.log.log import Log
    from strandline_broker.log.segment import Segment

Found = tuple[int, int, int]


def offset_for_timestamp(log: Log, timestamp_ms: int, upper_offset: int) -> Found | None:
    """Return (timestamp, offset, epoch) of the first record at or after `timestamp_ms`, if it is below `upper_offset`."""
    start_offset = log.start_offset
    for segment in log.segments[log.segment_of(start_offset) :]:
        if segment.base_offset >= upper_offset:
            return None
        if segment.max_timestamp < timestamp_ms:
            continue
        _, indexed_offset = segment.time_index.lookup(timestamp_ms)
        start = segment.position_of(max(indexed_offset, start_offset))
        for position, header in segment.headers(start):
            if header.base_offset >= upper_offset:
                return None
            if header.max_timestamp >= timestamp_ms and header.last_offset >= start_offset:
                found = _in_batch(segment, position, header, timestamp_ms, start_offset)
                if found is not None:
                    return found if found[1] < upper_offset else None
    return None


def _in_batch(
    segment: Segment, position: int, header: BatchHeader, timestamp_ms: int, start_offset: int
) -> Found | None:
    """Return the first record of a batch that is late enough."""
    if header.is_log_append_time and header.record_count == header.last_offset_delta + 1:
        return header.max_timestamp, max(header.base_offset, start_offset), header.leader_epoch
    try:
        for record in iter_records(segment.file.pread(header.size, position)):
            if record.timestamp >= timestamp_ms and record.offset >= start_offset:
                return record.timestamp, record.offset, header.leader_epoch
    except DecodeError as error:
        raise CorruptBatch(segment.path, position, str(error)) from error
    return None


def max_timestamp(log: Log, upper_offset: int) -> Found | None:
    """Return (timestamp, offset, epoch) of the first record with the largest timestamp below `upper_offset`."""
    best: tuple[Segment, int, BatchHeader] | None = None
    for segment in log.segments[log.segment_of(log.start_offset) :]:
        if segment.base_offset >= upper_offset:
            break
        known = best[2].max_timestamp if best is not None else -1
        if segment.max_timestamp <= known:
            continue
        candidate = _best_batch(segment, log.start_offset, upper_offset)
        if candidate is not None and candidate[1].max_timestamp > known:
            best = (segment, *candidate)
    if best is None or best[2].max_timestamp < 0:
        return None
    segment, position, header = best
    found = _in_batch(segment, position, header, header.max_timestamp, log.start_offset)
    # A batch whose header promises more than its records hold: its end is the honest answer.
    return found or (header.max_timestamp, header.last_offset, header.leader_epoch)


def _best_batch(segment: Segment, start_offset: int, upper_offset: int) -> tuple[int, BatchHeader] | None:
    offset = segment.max_timestamp_offset
    if start_offset <= offset < upper_offset:
        position = segment.position_of(offset)
        return position, segment.header_at(position)
    best: tuple[int, BatchHeader] | None = None
    for position, header in segment.headers(segment.position_of(start_offset)):
        if header.base_offset >= upper_offset:
            break
        if best is None or header.max_timestamp > best[1].max_timestamp:
            best = (position, header)
    return best


def verify(log: Log) -> list[CorruptBatch]:
    """Check every batch with its checksum and the order of offsets; at most one finding per segment."""
    findings: list[CorruptBatch] = []
    for segment in log.segments:
        next_offset = segment.base_offset
        try:
            for position, header in iter_verified(segment.file, 0, segment.size):
                if header.base_offset < next_offset:
                    reason = f"offset {header.base_offset} where {next_offset} was expected"
                    raise CorruptBatch(segment.path, position, reason)
                next_offset = header.last_offset + 1
        except CorruptBatch as error:
            findings.append(error)
    return findings
