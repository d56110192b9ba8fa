"""Where one segment ends and the next begins: appends that may need a new segment, and sealing one by hand.

Who uses it: `Log`, whose methods document the outcome.

Source: Kafka `UnifiedLog.roll`, `LogSegment.shouldRoll`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.segment import Segment

if TYPE_CHECKING:
    from strandline_broker.log.log import Log
    from strandline_broker.log.segment import Batch


def append_rolling(log: Log, staged: list[Batch]) -> None:
    """Append batch by batch where a roll may be due; still one write per segment. Raises DiskError."""
    group: list[Batch] = []
    pending = 0
    for batch in staged:
        _, _, last_offset, timestamp, size = batch
        if log.active.should_roll(size, last_offset, timestamp, log.now_ms, pending):
            if group:
                log.active.append(group, pending)
                group = []
                pending = 0
            _start_segment(log, last_offset, batch[1])
        group.append(batch)
        pending += size
    log.active.append(group, pending)
    log.active.watch_time()
    log.careful = False


def _start_segment(log: Log, last_offset: int, base_offset: int) -> None:
    """Seal the active segment and start the next one, at the log end where offsets allow it.

    Raises DiskError.
    """
    old = log.active
    start = old.next_offset
    if last_offset - start > (1 << 31) - 1:
        start = base_offset
    if start == old.base_offset:
        return
    segment = Segment(log.files, log.directory, start, log.config, log.now_ms)
    segment.create()
    log.dirty_files.extend(old.seal())
    log.dirty_directories.add(log.directory)
    log.active_dirty = False
    log.add_segment(segment)


def roll(log: Log, now_ms: int) -> bool:
    """Seal the active segment now unless it is empty; return whether it was. Raises KafkaError."""
    if log.failed or log.staged or log.active.size == 0:
        return False
    log.now_ms = now_ms
    try:
        _start_segment(log, log.end_offset, log.end_offset)
    except OSError as error:
        raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{log.directory}: {error}") from error
    log.take_snapshot()
    return True
