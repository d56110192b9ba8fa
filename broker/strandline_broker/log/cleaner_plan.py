"""What to clean: which part of a log, which log first, and which segments become one.

Who uses it: `cleaner`, on the event loop's thread. Reads what logs know; changes nothing.

A log seen by the cleaner, from its start to its end:

    | clean, looked through before | dirty, cleanable | dirty, not cleanable yet | active segment |
    start            first dirty offset         upper offset

The upper offset is the base of the segment that holds the first of: the last stable offset (nothing above it
is decided), the synced end (a replacement must not be more durable than what it replaces), the active
segment, and the first segment with a record younger than `min.compaction.lag.ms`.

Source: Kafka `LogCleanerManager.cleanableOffsets`, `grabFilthiestCompactedLog`, `Cleaner.groupSegmentsBySize`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strandline_broker.log.config import LONG_MAX
from strandline_broker.log.segment import MAX_POSITION, MAX_RELATIVE_OFFSET
from strandline_broker.wire.batch import HEADER_SIZE

if TYPE_CHECKING:
    from strandline_broker.log.config import LogConfig
    from strandline_broker.log.log import Log
    from strandline_broker.log.segment import Segment

MAX_GROUP_SEGMENTS = 64
"""Segments replaced by one: the event loop renames the files of a whole group at once."""
_TIME_INDEX_ENTRY_BYTES = 12


@dataclass(frozen=True, slots=True)
class Candidate:
    """A log with a cleanable part."""

    log: Log
    first_dirty_offset: int
    upper_offset: int
    clean_bytes: int
    dirty_bytes: int
    """Bytes of the segments from the first dirty offset up to the upper offset."""
    overdue: bool
    """Whether `max.compaction.lag.ms` has passed for some dirty segment."""

    @property
    def dirty_ratio(self) -> float:
        """The share of the dirty part in what would be read."""
        total = self.clean_bytes + self.dirty_bytes
        return self.dirty_bytes / total if total else 0.0

    @property
    def is_due(self) -> bool:
        """Whether the log is to be cleaned now."""
        if self.overdue and self.dirty_bytes > 0:
            return True
        return self.dirty_ratio > self.log.config.min_cleanable_dirty_ratio


@dataclass(frozen=True, slots=True)
class Source:
    """A sealed segment as the cleaner reads it: nobody writes to the file any more."""

    path: str
    base_offset: int
    next_offset: int
    """Base offset of the segment behind it."""
    size: int


@dataclass(frozen=True, slots=True)
class Group:
    """Consecutive segments that one takes the place of."""

    sources: tuple[Source, ...]

    @property
    def base_offset(self) -> int:
        """Base offset of all of them and of their replacement."""
        return self.sources[0].base_offset

    @property
    def next_offset(self) -> int:
        """Base offset of the segment behind them."""
        return self.sources[-1].next_offset


def first_dirty_offset(log: Log, cleaned_offset: int | None) -> int:
    """Return where the dirty part begins, given the last checkpoint; the log start if that cannot be right."""
    if cleaned_offset is None or not log.start_offset <= cleaned_offset <= log.end_offset:
        return log.start_offset
    return cleaned_offset


def candidate(log: Log, cleaned_offset: int | None, stable_offset: int, now_ms: int) -> Candidate:
    """Measure a log. Raises DiskError, CorruptBatch."""
    config = log.config
    first_dirty = first_dirty_offset(log, cleaned_offset)
    limit = min(stable_offset, log.synced_end, log.active.base_offset)
    first_index = log.segment_of(first_dirty)
    dirty = log.segments[first_index:-1]
    if config.min_compaction_lag_ms > 0:
        youngest = now_ms - config.min_compaction_lag_ms
        limit = min(limit, next((s.base_offset for s in dirty if s.max_timestamp > youngest), limit))
    upper = log.segments[log.segment_of(limit)].base_offset
    return Candidate(
        log,
        first_dirty,
        upper,
        sum(segment.size for segment in log.segments[:first_index]),
        sum(segment.size for segment in dirty if segment.base_offset < upper),
        _overdue(dirty, config, now_ms),
    )


def _overdue(dirty: Sequence[Segment], config: LogConfig, now_ms: int) -> bool:
    if config.max_compaction_lag_ms == LONG_MAX:
        return False
    oldest = now_ms - config.max_compaction_lag_ms
    return any(0 < segment.load_first_timestamp() < oldest for segment in dirty)


def dirtiest(candidates: Iterable[Candidate]) -> Candidate | None:
    """Return the dirtiest log of those that are due."""
    due = [entry for entry in candidates if entry.is_due]
    return max(due, key=lambda entry: entry.dirty_ratio, default=None)


def sources_of(log: Log, upper_offset: int) -> list[Source]:
    """Return the sealed segments below `upper_offset`, which is the base of a segment."""
    return [
        Source(segment.path, segment.base_offset, following.base_offset, segment.size)
        for segment, following in zip(log.segments, log.segments[1:], strict=False)
        if segment.base_offset < upper_offset
    ]


def group_sources(sources: Sequence[Source], end_offset: int, config: LogConfig) -> list[Group]:
    """Put the segments below `end_offset` into groups, each small enough for one segment and its indexes.

    What an index may take is estimated from the bytes, so that no index need be opened.
    """
    max_size = min(config.segment_bytes, MAX_POSITION)
    groups: list[list[Source]] = []
    size = 0
    for source in sources:
        if source.base_offset >= end_offset:
            break
        group = groups[-1] if groups else None
        if (
            group is None
            or len(group) >= MAX_GROUP_SEGMENTS
            or size + source.size > max_size
            or _index_bytes(size + source.size, config) > config.segment_index_bytes
            or source.next_offset - 1 - group[0].base_offset > MAX_RELATIVE_OFFSET
        ):
            groups.append([source])
            size = source.size
        else:
            group.append(source)
            size += source.size
    return [Group(tuple(group)) for group in groups]


def _index_bytes(size: int, config: LogConfig) -> int:
    """Return what the larger index of a segment of `size` bytes takes at most."""
    return (size // max(config.index_interval_bytes, HEADER_SIZE) + 2) * _TIME_INDEX_ENTRY_BYTES
