"""Between a log and its producers' state: snapshots on disk, and replay of what they do not cover.

Who uses it: recovery, truncation, rolling.

Source: Kafka `ProducerStateManager.truncateAndReload`, `UnifiedLog.rebuildProducerState`.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING

from strandline_broker.log import producer_snapshot
from strandline_broker.log.names import SNAPSHOT_SUFFIX, file_name
from strandline_broker.log.producer_snapshot import CorruptSnapshot
from strandline_broker.log.scan import CorruptBatch
from strandline_broker.wire.batch import iter_records, read_end_txn_marker
from strandline_broker.wire.errors import DecodeError

if TYPE_CHECKING:
    from strandline_broker.log.producer_state import ProducerState
    from strandline_broker.log.segment import Segment
    from strandline_broker.seams.disk import Disk, File
    from strandline_broker.wire.batch import BatchHeader

logger = logging.getLogger(__name__)

SNAPSHOTS_KEPT = 16


def snapshot_path(directory: str, offset: int) -> str:
    """Return the path of the snapshot at an offset."""
    return f"{directory}/{file_name(offset, SNAPSHOT_SUFFIX)}"


def write_snapshot(
    disk: Disk, directory: str, offset: int, producers: ProducerState, snapshots: list[int]
) -> File | None:
    """Write a snapshot and note it in `snapshots`, dropping the oldest; return its file for syncing, None if it failed."""
    path = snapshot_path(directory, offset)
    try:
        file = disk.open(path, create=True)
        file.truncate(0)
        file.append([producer_snapshot.encode(producers)])
    except OSError as error:
        logger.warning("%s: no producer snapshot at %d: %s", directory, offset, error)
        return None
    snapshots.append(offset)
    while len(snapshots) > SNAPSHOTS_KEPT:
        disk.remove(snapshot_path(directory, snapshots.pop(0)))
    return file


def load_producers(
    producers: ProducerState,
    segments: list[Segment],
    snapshots: list[int],
    start_offset: int,
    end_offset: int,
    now_ms: int,
    remove_snapshot: Callable[[int], None],
) -> list[int]:
    """Fill `producers` from the newest readable snapshot and the batches behind it; return the snapshots left.

    Batches below the log start are noted too while they are there: a producer whose last ones were deleted
    goes on where it was. A snapshot below the first segment misses batches that are gone, so it would refuse
    producers that did nothing wrong: it is dropped, and they count as unknown.
    """
    left = list(snapshots)
    directory = segments[0].directory
    disk: Disk = segments[0].disk
    covered = segments[0].base_offset
    producers.load((), start_offset, now_ms)
    while left:
        offset = left[-1]
        try:
            if offset < covered:
                raise CorruptSnapshot(f"the log starts at {covered}")
            entries = producer_snapshot.decode(disk.read_bytes(snapshot_path(directory, offset)))
        except (FileNotFoundError, CorruptSnapshot) as error:
            logger.warning("%s/%d: producer snapshot is dropped: %s", directory, offset, error)
            remove_snapshot(left.pop())
            continue
        producers.load(entries, offset, now_ms)
        covered = offset
        break
    if covered < end_offset:
        replay(producers, segments, covered, end_offset)
        producers.expire(now_ms)
    producers.map_end_offset = end_offset
    return left


def replay(producers: ProducerState, segments: list[Segment], start_offset: int, end_offset: int) -> None:
    """Take note of every batch in `[start_offset, end_offset)`.

    What is corrupt is passed over with a warning.
    """
    first = max(0, bisect_right(segments, start_offset, key=lambda segment: segment.base_offset) - 1)
    for segment in segments[first:]:
        try:
            for position, header in segment.headers(segment.position_of(start_offset)):
                if header.base_offset >= end_offset:
                    break
                note_batch(producers, segment, position, header)
        except CorruptBatch as error:
            logger.warning("producers behind a corrupt batch are unknown: %s", error)
    producers.settle()


def note_batch(producers: ProducerState, segment: Segment, position: int, header: BatchHeader) -> None:
    """Take note of one batch in a segment."""
    if header.producer_id < 0:
        return
    if header.is_control:
        note_control_batch(producers, header, segment.file.pread(header.size, position))
    else:
        producers.note_header(header)


def note_control_batch(producers: ProducerState, header: BatchHeader, batch: bytes | memoryview) -> None:
    """Take note of the marker in a control batch; other control records do not concern producers."""
    try:
        record = next(iter_records(batch), None)
        marker = read_end_txn_marker(record) if record is not None else None
    except DecodeError as error:
        logger.warning("control batch at offset %d: %s", header.base_offset, error)
        return
    if record is not None and marker is not None:
        producers.note_marker(header.producer_id, header.producer_epoch, marker[1], record.timestamp)
