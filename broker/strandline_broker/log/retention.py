"""Which segments a log may give up: by age, by size, and below its start.

Who uses it: `Log.apply_retention`. Oldest first, and only while the next older one goes too; nothing at or
above the high watermark; the active segment only when all of it is obsolete, and then a new one takes its
place.

Of a log that is tiered only what is in the bucket goes, by `local.retention.ms` and `local.retention.bytes`; where the log
begins across both tiers is decided elsewhere, and what lies below that goes, too. While nothing is copied to the bucket
(`remote.log.copy.disable`, or a bucket that is away) everything that is not there stays.

A segment without timestamps ages from the moment it was created or opened (Kafka looks at the file's
modification time).

When a disk fills, what is in the bucket for good need not wait for either: `plan_room` and `give_up`.

A tiered log need not wait for the next round of retention: `may_take_released` says, at the price of two comparisons, that
more was released since the last look, or that a released segment is old enough by now.

Source: Kafka `UnifiedLog.deletableSegments` and its predicates; KIP-405.
"""

from __future__ import annotations

import heapq
import logging
from typing import TYPE_CHECKING

from strandline_broker.log.config import LONG_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from strandline_broker.log.log import Log
    from strandline_broker.seams.disk import Disk

logger = logging.getLogger(__name__)


def obsolete_segments(log: Log, now_ms: int, high_watermark: int) -> int:
    """Return how many of the oldest segments retention gives up."""
    config, tier = log.config, log.tier
    retention_ms, retention_bytes = config.retention_ms, config.retention_bytes
    limit = high_watermark
    if tier is not None:
        retention_ms, retention_bytes = config.local_retention
        limit = min(limit, tier.deletable_end)
    excess = log.size_bytes - retention_bytes if config.delete and retention_bytes >= 0 else -1
    by_time = config.delete and retention_ms >= 0
    count = 0
    segments = log.segments
    for index, segment in enumerate(segments):
        is_last = index + 1 == len(segments)
        end = log.end_offset if is_last else segments[index + 1].base_offset
        if end > limit or (is_last and segment.size == 0):
            break
        below_start = not is_last and end <= log.start_offset
        too_much = excess >= 0 and excess - segment.size >= 0
        if not (below_start or too_much or (by_time and now_ms - segment.age_timestamp > retention_ms)):
            break
        excess -= segment.size
        count += 1
    return count


def apply_retention(log: Log, now_ms: int, high_watermark: int) -> int:
    """Delete what is obsolete; return the bytes freed. Waits for the end of a cleaning (the cleaner calls then)."""
    if log.cleaning is not None:
        return 0
    count = obsolete_segments(log, now_ms, high_watermark)
    if count == 0:
        return 0
    if count == len(log.segments) and not log.roll(now_ms):
        count -= 1
        if count == 0:
            return 0
    freed = _remove_first(log, count)
    logger.info(
        "%s: %d segments with %d bytes deleted, log start is %d",
        log.directory,
        count,
        freed,
        log.start_offset,
    )
    return freed


def may_take_released(log: Log, now_ms: int) -> bool:
    """Whether local retention may take more of a tiered log than at the last `take_released`."""
    tier = log.tier
    if tier is None or log.failed:
        return False
    return tier.deletable_end > tier.swept_through or now_ms >= tier.sweep_at_ms


def take_released(log: Log, now_ms: int, high_watermark: int) -> int:
    """Delete what a tiered log need not keep here any more; return the bytes freed.

    Raises KafkaError(KAFKA_STORAGE_ERROR).
    """
    tier = log.tier
    assert tier is not None, "only what is in the bucket is released"
    freed = log.apply_retention(now_ms, high_watermark)
    tier.swept_through = min(tier.deletable_end, high_watermark)
    tier.sweep_at_ms = _next_expiry_ms(log, tier.swept_through)
    return freed


def plan_room(
    logs: Iterable[Log], wanted_bytes: int, high_watermark_of: Callable[[Log], int]
) -> dict[Log, int]:
    """Choose what to give up of tiered logs so that a disk has room: the oldest segments of all that are in the bucket.

    Returns how many of its first segments each log gives up, for `give_up`; together so many bytes, or all that may go.
    """
    oldest: list[tuple[int, int, Log, int]] = []
    for number, log in enumerate(logs):
        if log.tier is not None and not (log.failed or log.staged or log.cleaning):
            end = min(log.tier.deletable_end, high_watermark_of(log))
            if _is_released(log, 0, end):
                heapq.heappush(oldest, (log.segments[0].age_timestamp, number, log, end))
    chosen: dict[Log, int] = {}
    while oldest and wanted_bytes > 0:
        _, number, log, end = heapq.heappop(oldest)
        index = chosen.get(log, 0)
        wanted_bytes -= log.segments[index].size
        chosen[log] = index + 1
        if _is_released(log, index + 1, end):
            heapq.heappush(oldest, (log.segments[index + 1].age_timestamp, number, log, end))
    return chosen


def _is_released(log: Log, index: int, end: int) -> bool:
    """Whether a segment, never the active one, ends at or below `end`."""
    return index + 1 < len(log.segments) and log.segments[index + 1].base_offset <= end


def give_up(log: Log, count: int) -> int:
    """Delete the first segments that `plan_room` chose; return the bytes freed. Raises KafkaError(KAFKA_STORAGE_ERROR)."""
    freed = _remove_first(log, count)
    logger.info("%s: %d bytes deleted that are in the bucket, to make room", log.directory, freed)
    return freed


def _next_expiry_ms(log: Log, released_end: int) -> int:
    """Return from when on the oldest segment is too old to stay here, if it is released; `LONG_MAX` for never."""
    retention_ms, _ = log.config.local_retention
    if not log.config.delete or retention_ms < 0 or len(log.segments) < 2:
        return LONG_MAX
    if log.segments[1].base_offset > released_end:
        return LONG_MAX
    return log.segments[0].age_timestamp + retention_ms + 1


def _remove_first(log: Log, count: int) -> int:
    """Remove the oldest `count` segments, never the active one; return the bytes freed.

    The new log start is durable first, so a crash in between cannot bring back a part of them.
    """
    segments = log.segments
    assert 0 < count < len(segments)
    log.advance_start(max(segments[count].base_offset, log.start_offset))
    log.set_segments(segments[count:])
    freed = 0
    doomed: list[str] = []
    for segment in segments[:count]:
        freed += segment.size
        try:
            doomed.extend(segment.retire())
        except OSError as error:
            logger.warning("%s stays until the next start: %s", segment.path, error)
    disk = log.disk
    # Unlinking a big file can take tens of milliseconds.
    log.in_background(lambda: _remove_all(disk, doomed))
    return freed


def _remove_all(disk: Disk, paths: list[str]) -> None:
    """Remove files that no log knows any more; what stays goes at the next start."""
    for path in paths:
        try:
            disk.remove(path)
        except OSError as error:
            logger.warning("%s stays until the next start: %s", path, error)
