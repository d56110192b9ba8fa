"""Runs the shards of one internal topic: loads, unloads, appends, keeps time, and sends answers.

    leader of a partition, epoch e ──▶ LOADING ──log end replayed, high watermark there──▶ ACTIVE
              │                │         └──cannot be read──▶ FAILED ──after a while──▶ LOADING
              │                └ what only the bucket has is appended first, where the partition is recovering
              └── epoch over, or its log failed: unloaded; everybody who waits is told NOT_COORDINATOR

A shard decides, the runtime does: records become one batch, appended in the shard's epoch; answers that depend on them
leave when the high watermark has passed them. All methods run on the event loop's thread. Level-triggered: `reconcile`
compares the roles of the partitions with the slots; in between, a slot whose epoch is over refuses to act.

Source: Apache Kafka 4.2, `CoordinatorRuntime`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Generic, cast

from strandline_broker.coordinator.loading import collector_at_rest, replay_log
from strandline_broker.coordinator.slot import Append, M, Phase, Slot
from strandline_broker.coordinator.timers import Timers
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.replica.recovery import Recovery
from strandline_broker.wire.batch import Record, build_batch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterator

    from strandline_broker.coordinator.machine import Ticket
    from strandline_broker.coordinator.recovering import Recoveries
    from strandline_broker.group.effects import Effects
    from strandline_broker.replica.manager import ReplicaManager
    from strandline_broker.replica.partition import Partition
    from strandline_broker.seams.clock import Clock

logger = logging.getLogger(__name__)

RETRY_LOAD_S = 30.0


class CoordinatorRuntime(Generic[M]):
    """The shards of the partitions of `topic` that this broker leads."""

    def __init__(
        self,
        topic: str,
        make: Callable[[], M],
        *,
        replicas: ReplicaManager,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        request_sync: Callable[[Partition], None],
        run_blocking: Callable[[Callable[[], object]], Awaitable[object]],
        commit_timeout_ms: int,
        on_active: Callable[[Slot[M]], None] = lambda _: None,
        recoveries: Recoveries[M] | None = None,
    ) -> None:
        """`make` returns an empty shard. `on_active` is told of each shard that begins to serve.

        `recoveries`: where this broker has a bucket, what partitions that are recovering take from it.
        """
        self._recoveries = recoveries
        self._topic = topic
        self._make = make
        self._replicas = replicas
        self._clock = clock
        self._loop = loop
        self._request_sync = request_sync
        self._run_blocking = run_blocking
        self._commit_timeout_s = commit_timeout_ms / 1000
        self._on_active = on_active
        self._slots: dict[int, Slot[M]] = {}
        self._timers = Timers(loop, self._on_timer)
        self._settling = False
        self._settle_again: dict[Slot[M], None] = {}
        self._to_load: list[Slot[M]] = []
        self._loader: asyncio.Task[None] | None = None
        self._closed = False

    # -- lookups -------------------------------------------------------------------------------------------------------

    def slot(self, index: int) -> Slot[M]:
        """Return the slot of a partition that serves. Raises KafkaError NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS."""
        slot = self._slots.get(index)
        if slot is None or not slot.leading or slot.phase is Phase.FAILED or slot.broken:
            raise KafkaError(ErrorCode.NOT_COORDINATOR)
        if slot.phase is Phase.LOADING:
            raise KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
        return slot

    def led_slots(self) -> Iterator[Slot[M]]:
        """Yield all slots in which this broker leads. Raises KafkaError COORDINATOR_LOAD_IN_PROGRESS on the way."""
        for index in sorted(self._slots):
            try:
                yield self.slot(index)
            except KafkaError as error:
                if error.code is not ErrorCode.NOT_COORDINATOR:
                    raise

    def active_slots(self) -> list[Slot[M]]:
        """Return the slots that serve; the others miss nothing, `on_active` tells of each when it begins."""
        return [slot for slot in self._slots.values() if slot.phase is Phase.ACTIVE and slot.leading]

    # -- inputs --------------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Return the time that inputs carry."""
        return self._clock.now_ms()

    def run(self, slot: Slot[M], operation: Callable[[M, int], Effects]) -> None:
        """Give a shard one input and carry out what it wants."""
        self._carry_out(slot, operation(slot.machine, self._clock.now_ms()))

    def _on_timer(self, owner: Hashable, key: Hashable, deadline_ms: int) -> None:
        slot = cast("Slot[M]", owner)
        if slot.phase is Phase.ACTIVE and slot.leading:
            # Timers run on the monotonic clock; a wall clock that was set back must not make one fire too early.
            now_ms = max(self._clock.now_ms(), deadline_ms)
            self._carry_out(slot, slot.machine.on_timer(key, now_ms))

    def _carry_out(self, slot: Slot[M], effects: Effects) -> None:
        waiting = deque((effects,))
        while waiting:
            effects = waiting.popleft()
            if effects.records:
                failed = self._append(slot, effects)
                if failed is not None:
                    waiting.append(failed)
            for note in effects.notes:
                logger.info("%s-%d: %s", self._topic, slot.partition.index, note)
            for ticket, body in effects.replies:
                cast("Ticket", ticket).answer(body)
            if effects.timers:
                now_s, now_ms = self._loop.time(), self._clock.now_ms()
                for key, deadline_ms in effects.timers:
                    if deadline_ms is None:
                        self._timers.cancel(slot, key)
                    else:
                        at = now_s + max(0, deadline_ms - now_ms) / 1000
                        self._timers.set(slot, key, at, deadline_ms)

    # -- appends -------------------------------------------------------------------------------------------------------

    def _append(self, slot: Slot[M], effects: Effects) -> Effects | None:
        """Write the records; return what the shard says if they are refused at once."""
        partition = slot.partition
        append = Append(
            slot,
            partition.log.end_offset,
            effects.token,
            effects.committed,
            self._loop.time() + self._commit_timeout_s,
            lambda: self._settle_soon(slot),
        )
        now_ms = self._clock.now_ms()
        batch = bytearray(
            build_batch([Record(timestamp=now_ms, key=key, value=value) for key, value in effects.records])
        )
        row: list[object] = [partition.index, 0, -1, -1, -1]
        try:
            if not slot.leading:
                raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
            partition.stage(append, row, memoryview(batch), now_ms)
        except KafkaError as error:
            logger.warning("%r: %d records of its coordinator: %s", partition, len(effects.records), error)
            return slot.machine.append_failed(effects.token, error.code, now_ms)
        slot.appends.append(append)
        # At once: staged batches must never outlive this turn, in which the partition's role cannot change.
        if partition.commit():
            self._request_sync(partition)
        return None

    def _settle_soon(self, slot: Slot[M]) -> None:
        self._settle_again[slot] = None
        if not self._settling:
            self._settling = True
            self._loop.call_soon(self._settle)

    def _settle(self) -> None:
        """Tell the shards what became of their appends, in order."""
        self._settling = False
        slots, self._settle_again = self._settle_again, {}
        for slot in slots:
            if slot.phase is not Phase.ACTIVE:
                continue
            if not slot.leading or slot.broken:
                self._unload(slot)  # in another epoch nothing that it believes needs to be true
                continue
            try:
                self._settle_slot(slot)
            except Exception:
                logger.exception("%r: its coordinator failed, it is loaded again", slot.partition)
                self._unload(slot)
                self.reconcile()

    def _settle_slot(self, slot: Slot[M]) -> None:
        appends = slot.appends
        while appends and appends[0].settled and slot.phase is Phase.ACTIVE:
            append = appends.popleft()
            now_ms = self._clock.now_ms()
            if append.error is ErrorCode.NONE:
                for ticket, body in append.committed:
                    cast("Ticket", ticket).answer(body)
                self._carry_out(slot, slot.machine.append_committed(append.token, now_ms))
            else:
                self._carry_out(slot, slot.machine.append_failed(append.token, append.error, now_ms))

    def expire(self) -> None:
        """Answer those whose records take too long to be committed; the outcome is unknown to them.

        Call it a few times per second. Retriable for all clients: they look for the coordinator again.
        """
        now = self._loop.time()
        for slot in self._slots.values():
            for append in slot.appends:
                if append.deadline > now:
                    break
                for ticket, _ in append.committed:
                    cast("Ticket", ticket).refuse(ErrorCode.COORDINATOR_NOT_AVAILABLE)

    # -- loading and unloading -----------------------------------------------------------------------------------------

    def reconcile(self) -> None:
        """Load what this broker leads now, unload what it does not; call it after every change of roles."""
        if self._closed:
            return
        served = self._replicas.by_key.get(self._topic)
        partitions = served.partitions if served is not None else {}
        for index, slot in list(self._slots.items()):
            usable = slot.leading and not slot.broken and not slot.partition.log.failed
            retry = slot.phase is Phase.FAILED and self._loop.time() >= slot.retry_at
            if partitions.get(index) is not slot.partition or not usable or retry:
                self._unload(slot)
        for index, partition in partitions.items():
            if partition.is_leader and not partition.log.failed and index not in self._slots:
                self._begin_load(partition)

    def _begin_load(self, partition: Partition) -> None:
        slot = Slot(partition, self._make())
        self._slots[partition.index] = slot
        log = partition.log
        if log.start_offset == log.end_offset:
            self._read(slot, log.end_offset)
            return
        self._to_load.append(slot)
        if self._loader is None:
            self._loader = self._loop.create_task(self._load_all())

    async def _load_all(self) -> None:
        """Load one after the other, small logs first: most groups are back at once."""
        while self._to_load:
            slot = min(self._to_load, key=lambda s: s.partition.log.size_bytes)
            self._to_load.remove(slot)
            if slot.phase is not Phase.LOADING:
                continue
            try:
                with collector_at_rest():
                    await self._load(slot)
            except (KafkaError, OSError, ValueError) as error:
                self._fail_load(slot, error)
            except Exception as error:
                logger.exception("%r: loading failed", slot.partition)
                self._fail_load(slot, error)
        self._loader = None

    async def _load(self, slot: Slot[M]) -> None:
        partition = slot.partition
        started = self._loop.time()

        def wanted() -> bool:
            return slot.phase is Phase.LOADING and slot.leading

        end = partition.log.end_offset
        records = await replay_log(
            partition.log, slot.machine, run_blocking=self._run_blocking, wanted=wanted
        )
        if wanted():
            elapsed_ms = (self._loop.time() - started) * 1000
            logger.info("%r: %d records replayed in %.0f ms", partition, records, elapsed_ms)
            self._read(slot, end)

    def _read(self, slot: Slot[M], end: int) -> None:
        """Go on with what only the bucket has, if that is missing."""
        partition = slot.partition
        if partition.recovery is not Recovery.OFFSETS or self._recoveries is None:
            self._replayed(slot, end)
            return
        self._recoveries.begin(
            slot,
            lambda: self._replayed(slot, partition.log.end_offset),
            lambda error: self._fail_load(slot, error),
        )

    def _replayed(self, slot: Slot[M], end: int) -> None:
        """Serve as soon as everything that was replayed is committed."""
        if slot.phase is not Phase.LOADING or not slot.leading:
            return
        if slot.partition.high_watermark < end:
            _HighWatermark(slot.partition, end, lambda: self._loop.call_soon(self._replayed, slot, end))
            return
        if slot.partition.recovery is Recovery.OFFSETS:
            slot.partition.recovered()
        slot.phase = Phase.ACTIVE
        try:
            self.run(slot, lambda machine, now_ms: machine.loaded(now_ms))
            self._on_active(slot)
        except Exception as error:
            logger.exception("%r: cannot begin to serve", slot.partition)
            self._fail_load(slot, error)

    def _fail_load(self, slot: Slot[M], error: Exception) -> None:
        logger.error("%r: cannot be loaded, tried again in %d s: %s", slot.partition, RETRY_LOAD_S, error)
        if slot.phase is not Phase.CLOSED:
            slot.phase = Phase.FAILED
            slot.retry_at = self._loop.time() + RETRY_LOAD_S

    def _unload(self, slot: Slot[M]) -> None:
        active = slot.phase is Phase.ACTIVE
        slot.phase = Phase.CLOSED
        if self._slots.get(slot.partition.index) is slot:
            del self._slots[slot.partition.index]
        self._timers.drop(slot)
        if self._recoveries is not None:
            self._recoveries.cancel(slot)
        if active:
            for ticket in slot.machine.unload():
                cast("Ticket", ticket).refuse(ErrorCode.NOT_COORDINATOR)
        slot.appends.clear()

    async def close(self) -> None:
        """Stop: everybody who waits is sent to look for another coordinator."""
        self._closed = True
        loader = self._loader
        if loader is not None:
            loader.cancel()
            await asyncio.gather(loader, return_exceptions=True)
        if self._recoveries is not None:
            await self._recoveries.close()
        for slot in list(self._slots.values()):
            self._unload(slot)
        self._timers.close()


class _HighWatermark:
    """Waits, as a fetch would, until the high watermark reaches an offset or the partition changes its role."""

    def __init__(self, partition: Partition, offset: int, reached: Callable[[], object]) -> None:
        self._partition = partition
        self._offset = offset
        self._reached = reached
        partition.fetch_waiters[self] = None

    def data_arrived(self, byte_count: int) -> None:
        """See `replica.waiters.FetchWaiter`."""
        if self._partition.high_watermark >= self._offset or not self._partition.is_leader:
            self._partition.fetch_waiters.pop(self, None)
            self._reached()
