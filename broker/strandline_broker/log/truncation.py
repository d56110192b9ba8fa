"""Cutting a log's end off: a follower that diverged, a reset, or the part of a commit that was written before it failed.

Who uses it: `Log`, whose methods document the outcome. A truncation is durable when it returns. Before
anything is cut the recovery point falls, so that a crash in between finds everything from there on suspect.

Source: Kafka `UnifiedLog.truncateTo`, `truncateFullyAndStartAt`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from strandline_broker.log.producers import load_producers, snapshot_path
from strandline_broker.log.scan import CorruptBatch
from strandline_broker.log.segment import Segment

if TYPE_CHECKING:
    from strandline_broker.log.log import Log
    from strandline_broker.log.producer_state import ProducerEntry


def truncate_to(log: Log, offset: int) -> None:
    """Drop every batch that reaches `offset`."""
    if log.failed:
        log.refuse()
    assert not log.staged, "batches are staged"
    if offset < log.start_offset:
        reset_to(log, offset)
        return
    log.epochs.truncate_from_end(min(offset, log.end_offset))
    if offset >= log.end_offset:
        return
    try:
        _lower_recovery_point(log, _end_below(log, offset))
        cut_segments(log, offset)
        _settle(log)
    except (OSError, CorruptBatch) as error:
        log.fail(f"truncation to {offset} failed: {error}")
        log.refuse()


def reset_to(
    log: Log, offset: int, epochs: Iterable[tuple[int, int]] = (), producers: Iterable[ProducerEntry] = ()
) -> None:
    """Drop everything and start over at `offset`, with what is known of the records before it."""
    if log.failed:
        log.refuse()
    assert not log.staged, "batches are staged"
    try:
        _lower_recovery_point(log, min(offset, log.start_offset))
        while log.segments:
            log.segments.pop().remove()
        segment = Segment(log.files, log.directory, offset, log.config, log.now_ms)
        segment.create()
        log.set_segments([segment])
        log.start_offset = offset
        log.epochs.clear()
        log.write_start(offset)
        _settle(log)
        _take_over(log, offset, list(epochs), list(producers))
    except OSError as error:
        log.fail(f"reset to {offset} failed: {error}")
        log.refuse()


def _take_over(log: Log, offset: int, epochs: list[tuple[int, int]], producers: list[ProducerEntry]) -> None:
    """Know what came before `offset`, durably: producers first. Raises DiskError.

    A log without epochs is one that knows nothing yet, and starts over again after a crash in between.
    """
    if not epochs:
        return
    while log.snapshots:
        log.disk.remove(snapshot_path(log.directory, log.snapshots.pop()))
    log.producers.load(producers, offset, log.now_ms)
    log.take_snapshot()
    log.sync()
    for epoch, start in epochs:
        if start < offset:
            log.epochs.assign(epoch, start)
    log.epochs.truncate_from_start(log.tier.log_start if log.tier is not None else offset)
    log.sync()
    if log.keeper is not None:
        # Above the recorded recovery point the snapshot would count for nothing.
        log.keeper.recovery_point_falls(log, offset)


def _end_below(log: Log, offset: int) -> int:
    """Return where a truncation to `offset` really ends.

    That is behind the last batch below it: `offset` may lie within a batch, or in a hole that compaction left.
    """
    segment = log.segments[log.segment_of(offset)]
    position = segment.position_of(offset)
    end = segment.base_offset
    _, start = segment.offset_index.lookup(offset - 1)
    for batch_position, header in segment.headers(start):
        if batch_position >= position:
            break
        end = header.next_offset
    return min(offset, end)


def _lower_recovery_point(log: Log, offset: int) -> None:
    if log.cleaning is not None:
        log.cleaning.abort_for_change()
    log.sync_round += 1
    if offset < log.synced_end:
        log.synced_end = offset
        if log.keeper is not None:
            log.keeper.recovery_point_falls(log, offset)


def undo(log: Log, offset: int) -> None:
    """Take back the segments and batches of a failed commit, for good. Raises DiskError, CorruptBatch."""
    cut_segments(log, offset)
    log.active.hold().datasync()
    log.disk.sync_dir(log.directory)


def cut_segments(log: Log, offset: int) -> None:
    """Remove segments from the newest down, and the end of the one that holds `offset`, which becomes active.

    Not durable yet. Raises DiskError, CorruptBatch.
    """
    segments = log.segments
    while len(segments) > 1 and segments[-1].base_offset >= offset:
        segments.pop().remove()
    active = segments[-1]
    if active.next_offset > offset or active is not log.active:
        active.truncate_to(offset)
        active.unseal()
    log.set_segments(segments)
    log.active_dirty = True
    log.dirty_directories.add(log.directory)


def _settle(log: Log) -> None:
    """Bring everything else in line with the new end, and make it durable."""
    active = log.active
    # The log start may lie within the batch that was dropped.
    active.next_offset = max(active.next_offset, log.start_offset)
    log.end_offset = log.next_offset = end = active.next_offset
    log.synced_end = min(log.synced_end, end)
    disk, directory = log.disk, log.directory
    while log.snapshots and log.snapshots[-1] > end:
        disk.remove(snapshot_path(directory, log.snapshots.pop()))
    log.snapshots = load_producers(
        log.producers,
        log.segments,
        log.snapshots,
        log.start_offset,
        end,
        log.now_ms,
        lambda snapshot: disk.remove(snapshot_path(directory, snapshot)),
    )
    log.active_dirty = True
    log.dirty_directories.add(directory)
    log.sync()
