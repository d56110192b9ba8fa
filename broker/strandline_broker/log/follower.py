"""Staging what a leader sent: batches keep their offsets and epochs, and nothing is judged but that they are sound.

Who uses it: `Log.append_follower`.

Source: Kafka `UnifiedLog.appendAsFollower`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.producers import note_control_batch
from strandline_broker.wire.batch import MAGIC, crc_ok, iter_batches
from strandline_broker.wire.errors import DecodeError

if TYPE_CHECKING:
    from strandline_broker.log.log import Log


def stage_follower(log: Log, batches: memoryview) -> None:
    """Stage every complete batch, or none. Raises KafkaError CORRUPT_MESSAGE, OFFSET_OUT_OF_RANGE."""
    assert not log.staged, "a leader's batches are staged"
    try:
        _stage_all(log, batches)
    except (DecodeError, KafkaError) as error:
        log.unstage()
        log.epochs.truncate_from_end(log.end_offset)
        if isinstance(error, KafkaError):
            raise
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"{log.directory}: {error}") from error


def _stage_all(log: Log, batches: memoryview) -> None:
    roll_timestamp = log.active.roll_timestamp
    for position, header in iter_batches(batches):
        size = header.size
        batch = batches[position : position + size]
        if header.magic != MAGIC or header.last_offset_delta < 0 or not crc_ok(batch):
            raise DecodeError(f"corrupt batch at offset {header.base_offset}")
        if header.base_offset < log.next_offset:
            raise KafkaError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"{log.directory}: offset {header.base_offset} appended where {log.next_offset} comes next",
            )
        if header.leader_epoch > log.epochs.latest_epoch:
            log.epochs.assign(header.leader_epoch, header.base_offset)
        if header.producer_id >= 0:
            if header.is_control:
                note_control_batch(log.producers, header, batch)
            else:
                log.producers.note_header(header)
        last_offset = header.last_offset
        if header.max_timestamp > roll_timestamp:
            log.careful = True
        log.staged.append((batch, header.base_offset, last_offset, header.max_timestamp, size))
        log.staged_bytes += size
        log.next_offset = last_offset + 1
