"""Which segments a log may give up: by age, by size, and below its start.

Who uses it: `Log.apply_retention`. Oldest first, and only while the next older one goes too; nothing at or above the high
watermark; the active segment only when all of it is obsolete, and then a new one takes its place.

A segment without timestamps ages from the moment it was created or opened (Kafka looks at the file's modification time).

Source: Kafka `UnifiedLog.deletableSegments` and its three predicates.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from strandline_broker.log.log import Log

logger = logging.getLogger(__name__)


def obsolete_segments(log: Log, now_ms: int, high_watermark: int) -> int:
    """Return how many of the oldest segments retention gives up."""
    config = log.config
    excess = log.size_bytes - config.retention_bytes if config.delete and config.retention_bytes >= 0 else -1
    by_time = config.delete and config.retention_ms >= 0
    count = 0
    segments = log.segments
    for index, segment in enumerate(segments):
        is_last = index + 1 == len(segments)
        end = log.end_offset if is_last else segments[index + 1].base_offset
        if end > high_watermark or (is_last and segment.size == 0):
            break
        below_start = not is_last and end <= log.start_offset
        too_much = excess >= 0 and excess - segment.size >= 0
        if not (
            below_start or too_much or (by_time and now_ms - segment.age_timestamp > config.retention_ms)
        ):
            break
        excess -= segment.size
        count += 1
    return count


def apply_retention(log: Log, now_ms: int, high_watermark: int) -> int:
    """Delete what is obsolete; return the bytes freed."""
    count = obsolete_segments(log, now_ms, high_watermark)
    if count == 0:
        return 0
    if count == len(log.segments) and not log.roll(now_ms):
        count -= 1
        if count == 0:
            return 0
    freed = log.remove_first_segments(count)
    logger.info(
        "%s: %d segments with %d bytes deleted, log start is %d",
        log.directory,
        count,
        freed,
        log.start_offset,
    )
    return freed
