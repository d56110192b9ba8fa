"""From the log of an internal topic's partition to the state machine over it, without stopping the event loop.

Reads happen in a thread; decoding and replaying happen in the loop's thread, in slices of two milliseconds: in a thread
they would hold the interpreter for five milliseconds at a time. The garbage collector rests meanwhile: each of its full
rounds would look at everything loaded so far, and take longer than ten slices; afterwards it leaves what stays alone.

Source: Apache Kafka 4.2, `CoordinatorLoaderImpl`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import TYPE_CHECKING, Protocol, cast

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.batch import crc_ok, iter_batches, iter_records, read_end_txn_marker
from strandline_broker.wire.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from strandline_broker.log.log import Log
    from strandline_broker.wire.batch import BatchHeader

SLICE_S = 0.002
CHUNK_BYTES = 1 << 20
# Records between two looks at the clock.
_STRIDE = 16
# From here on a full round of the collector would be felt.
_MANY_RECORDS = 10_000


@contextlib.contextmanager
def collector_at_rest() -> Iterator[None]:
    """Let the garbage collector do nothing within."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Replayed(Protocol):
    """A state machine that can be rebuilt from its log."""

    def replay(
        self, key: bytes, value: bytes | None, *, offset: int, timestamp_ms: int, producer_id: int = -1
    ) -> None:
        """Take one record. Raises ValueError."""
        ...

    def replay_end_transaction(self, producer_id: int, *, committed: bool) -> None:
        """Take the end of a transaction."""
        ...


class _Pause:
    """Gives the loop to others whenever a slice is used up."""

    __slots__ = ("_end", "_loop", "records")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + SLICE_S
        self.records = 0

    @property
    def due(self) -> bool:
        """Count one record; return whether to `take` a pause."""
        self.records += 1
        return self.records % _STRIDE == 0 and self._loop.time() >= self._end

    async def take(self) -> None:
        """Let everybody else have a turn."""
        await asyncio.sleep(0)
        self._end = self._loop.time() + SLICE_S


async def replay_log(
    log: Log,
    machine: Replayed,
    *,
    run_blocking: Callable[[Callable[[], object]], Awaitable[object]],
    wanted: Callable[[], bool],
) -> int:
    """Replay everything up to the log end as it is now; return the number of records.

    Ends early when `wanted()` is false after a pause. Raises KafkaError, OSError, ValueError (bytes that make no sense).
    """
    pause = _Pause()
    offset, end = log.start_offset, log.end_offset
    while offset < end:
        part = log.read(offset, CHUNK_BYTES, end, min_one_batch=True)
        if part is None:
            break  # compaction removed the rest
        data = memoryview(cast("bytes", await run_blocking(part.read)))
        if not wanted():
            break
        before = offset
        for position, header in iter_batches(data):
            batch = data[position : position + header.size]
            if not crc_ok(batch):
                raise KafkaError(
                    ErrorCode.CORRUPT_MESSAGE, f"{log.directory}: corrupt batch at {header.base_offset}"
                )
            await _replay_batch(machine, header, batch, offset, pause)
            if not wanted():
                return pause.records
            offset = header.next_offset
        if offset == before:
            raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"{log.directory}: no whole batch at {offset}")
        await pause.take()
    if pause.records >= _MANY_RECORDS:
        gc.freeze()
    return pause.records


async def _replay_batch(
    machine: Replayed, header: BatchHeader, batch: memoryview, start: int, pause: _Pause
) -> None:
    producer_id = header.producer_id if header.is_transactional else -1
    for record in iter_records(batch):
        if header.is_control:
            marker = read_end_txn_marker(record)
            if marker is not None:
                machine.replay_end_transaction(header.producer_id, committed=marker[0])
        elif record.key is None:
            raise DecodeError(f"a record without a key at offset {record.offset}")
        elif record.offset >= start:
            machine.replay(
                record.key,
                record.value,
                offset=record.offset,
                timestamp_ms=record.timestamp,
                producer_id=producer_id,
            )
        if pause.due:
            await pause.take()
