"""What a shard has to be told before it serves, where its partition is recovering: committed offsets out of the bucket.

The offsets topic is compacted and in no bucket; what is there of it are snapshots (design section 7.1). A restored
partition begins with an empty log, so the newest snapshot is appended to it as what it was once, commits of offsets. What
the log has already is newer: it was committed after an earlier recovery of which the cluster store has not heard.

Who uses it: `CoordinatorRuntime`, between the end of the log and the first request.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Generic, TypeAlias

from strandline_broker.cluster.backoff import Backoff
from strandline_broker.coordinator.slot import M, Phase, Slot
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.replica.remote import RemoteError
from strandline_broker.replica.waiters import ROW_BASE_OFFSET, ROW_ERROR
from strandline_broker.wire.batch import Record, build_batch

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from strandline_broker.replica.partition import Partition
    from strandline_broker.seams.clock import Clock

logger = logging.getLogger(__name__)

FIRST_RETRY_S = 0.2
LONGEST_RETRY_S = 30.0
CONCURRENCY = 4
"""Snapshots that are read and appended at once."""
BATCH_RECORDS = 500
BATCH_BYTES = 256 << 10


KeyValue: TypeAlias = tuple[bytes, bytes]
"""Key and value of a record that is not in the log yet."""


class Recoveries(Generic[M]):
    """The recoveries of one runtime's slots; each is a task, and gives the loop to others after every batch.

    `lacking` reads what the bucket has for a slot and returns what of it the shard lacks, which is looked for while others
    are appended; it raises RemoteError.
    """

    def __init__(
        self,
        lacking: Callable[[Slot[M]], Awaitable[Iterable[KeyValue]]],
        *,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        rng: random.Random,
        request_sync: Callable[[Partition], None],
    ) -> None:
        self._lacking = lacking
        self._clock = clock
        self._loop = loop
        self._rng = rng
        self._request_sync = request_sync
        self._limit = asyncio.Semaphore(CONCURRENCY)
        self._tasks: dict[Slot[M], asyncio.Task[None]] = {}

    def begin(self, slot: Slot[M], done: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        """Append what a slot's log lacks, and call one of the two, unless cancelled.

        As long as the bucket is away, or the log takes nothing, that is tried again, for as long as the slot is loading.
        """
        self._tasks[slot] = self._loop.create_task(self._recover(slot, done, failed))

    def cancel(self, slot: Slot[M]) -> None:
        """Do no more for a slot."""
        task = self._tasks.pop(slot, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Cancel everything."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _recover(
        self, slot: Slot[M], done: Callable[[], None], failed: Callable[[Exception], None]
    ) -> None:
        backoff = Backoff(self._rng, first_s=FIRST_RETRY_S, cap_s=LONGEST_RETRY_S)
        try:
            while slot.phase is Phase.LOADING and slot.leading:
                try:
                    async with self._limit:
                        await self._append_lacking(slot)
                    break
                except (RemoteError, KafkaError) as error:
                    logger.warning("%r: its offsets are not recovered yet: %s", slot.partition, error)
                await asyncio.sleep(backoff.next_s())
        except Exception as error:
            logger.exception("%r: recovering its offsets failed", slot.partition)
            self._tasks.pop(slot, None)
            failed(error)
        else:
            self._tasks.pop(slot, None)
            done()

    async def _append_lacking(self, slot: Slot[M]) -> None:
        """Append all that is lacking. Raises RemoteError, KafkaError: then some of it may be, and lacks no more."""
        partition = slot.partition
        count = 0
        for group in batches(await self._lacking(slot)):
            if slot.phase is not Phase.LOADING or not slot.leading:
                return
            if append_and_replay(slot, group, self._clock.now_ms()):
                self._request_sync(partition)
            count += len(group)
            await asyncio.sleep(0)
        logger.info("%r: %d offsets recovered from the bucket", partition, count)


class _Waiter:
    """The `AppendWaiter` of one batch. Only whether it could be written matters; that it is committed shows otherwise."""

    acks = -1
    patient = True

    def __init__(self) -> None:
        self.error = ErrorCode.NONE

    def partition_done(self, row: list[object]) -> None:
        """See `replica.waiters.AppendWaiter`."""
        error = row[ROW_ERROR]
        assert isinstance(error, int)
        self.error = ErrorCode(error)


def batches(records: Iterable[KeyValue]) -> Iterator[Sequence[KeyValue]]:
    """Yield the records in groups that make a batch each: of BATCH_RECORDS, and about BATCH_BYTES, at most."""
    group: list[KeyValue] = []
    size = 0
    for key, value in records:
        bytes_more = len(key) + len(value)
        if group and (len(group) == BATCH_RECORDS or size + bytes_more > BATCH_BYTES):
            yield group
            group, size = [], 0
        group.append((key, value))
        size += bytes_more
    if group:
        yield group


def append_and_replay(slot: Slot[M], records: Sequence[KeyValue], now_ms: int) -> bool:
    """Append one batch in the slot's epoch and let the shard have it; return whether the log wants a sync.

    Raises KafkaError: nothing was appended then.
    """
    batch = bytearray(build_batch([Record(timestamp=now_ms, key=key, value=value) for key, value in records]))
    waiter = _Waiter()
    row: list[object] = [slot.partition.index, 0, -1, -1, -1]
    slot.partition.stage(waiter, row, memoryview(batch), now_ms)
    wants_sync = slot.partition.commit()
    if waiter.error is not ErrorCode.NONE:
        raise KafkaError(waiter.error)
    base = row[ROW_BASE_OFFSET]
    assert isinstance(base, int)
    for number, (key, value) in enumerate(records):
        slot.machine.replay(key, value, offset=base + number, timestamp_ms=now_ms)
    return wants_sync
