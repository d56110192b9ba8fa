"""Shared by the tests of coordinators: a loop whose time stands still, a scripted shard, a led partition on a real log."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

from tests.unit.replica.support import lead_alone, state_of

from strandline_broker.cluster.model import ReplicaRef
from strandline_broker.coordinator.recovering import Recoveries
from strandline_broker.coordinator.runtime import CoordinatorRuntime
from strandline_broker.coordinator.slot import Slot
from strandline_broker.errors import ErrorCode
from strandline_broker.group.effects import Effects
from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.replica.manager import ReplicaManager, TopicReplicas
from strandline_broker.replica.partition import FlushMode, Partition
from strandline_broker.replica.recovery import Recovery
from strandline_broker.seams.clock import ManualClock
from strandline_broker.seams.local_disk import LocalDisk
from strandline_broker.wire.batch import Record, build_batch

TOPIC = "__consumer_offsets"
NOW_MS = 1_700_000_000_000


class FakeHandle:
    """What `call_at` returns."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """As much of an event loop as timers need; `advance` lets its time pass."""

    def __init__(self) -> None:
        self.now = 0.0
        self.armed = 0
        self._numbers = itertools.count()
        self._queue: list[tuple[float, int, FakeHandle, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, callback: Callable[[], None]) -> FakeHandle:
        self.armed += 1
        handle = FakeHandle(at)
        heapq.heappush(self._queue, (at, next(self._numbers), handle, callback))
        return handle

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            at, _, handle, callback = heapq.heappop(self._queue)
            self.now = max(self.now, at)
            if not handle.cancelled:
                callback()
        self.now = end


class FakeTicket:
    """Somebody who waits; remembers every answer."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.answers: list[Any] = []

    def answer(self, body: Mapping[str, Any]) -> None:
        self.answers.append(body)

    def refuse(self, code: ErrorCode) -> None:
        self.answers.append(code)


class FakeShard:
    """A shard that keeps what it is told, and asks for what the test says."""

    def __init__(self) -> None:
        self.replayed: list[tuple[bytes, bytes | None, int]] = []
        self.ended: list[tuple[int, bool]] = []
        self.committed: list[object] = []
        self.failed: list[tuple[object, ErrorCode]] = []
        self.fired: list[tuple[Hashable, int]] = []
        self.waiting: list[FakeTicket] = []
        self.on_loaded = Effects()
        self.on_failed = Effects()
        self.on_committed = Effects()
        self.unloaded = 0

    def replay(
        self, key: bytes, value: bytes | None, *, offset: int, timestamp_ms: int, producer_id: int = -1
    ) -> None:
        if key == b"bad":
            raise ValueError("bad record")
        self.replayed.append((key, value, offset))

    def replay_end_transaction(self, producer_id: int, *, committed: bool) -> None:
        self.ended.append((producer_id, committed))

    def loaded(self, now_ms: int) -> Effects:
        return self.on_loaded

    def unload(self) -> list[FakeTicket]:
        self.unloaded += 1
        return self.waiting

    def on_timer(self, key: Hashable, now_ms: int) -> Effects:
        self.fired.append((key, now_ms))
        return Effects()

    def append_committed(self, token: object, now_ms: int) -> Effects:
        self.committed.append(token)
        effects, self.on_committed = self.on_committed, Effects()
        return effects

    def append_failed(self, token: object, error: ErrorCode, now_ms: int) -> Effects:
        self.failed.append((token, error))
        effects, self.on_failed = self.on_failed, Effects()
        return effects


class Replicas:
    """The part of a replica manager that the runtime looks at."""

    def __init__(self) -> None:
        self.by_key: dict[str | bytes, TopicReplicas] = {}


Lacking: TypeAlias = "Callable[[Slot[FakeShard]], Awaitable[Iterable[tuple[bytes, bytes]]]]"


class Bench:
    """A runtime over partition 0 of the internal topic, whose syncs are made by the test."""

    def __init__(
        self, directory: Path, *, disk: LocalDisk | None = None, lacking: Lacking | None = None
    ) -> None:
        """`lacking`: what the bucket has for the shard, where there is one."""
        self.disk = disk if disk is not None else LocalDisk(directory)
        self.clock = ManualClock(wall_ms=NOW_MS)
        self.log = Log.open(self.disk, f"{TOPIC}-0", LogConfig(), now_ms=NOW_MS, clean=False)
        self.partition = Partition(TOPIC, bytes(16), 0, self.log, FlushMode.FSYNC, self.log.synced_end)
        self.shards: list[FakeShard] = []
        self.sync_requests = 0
        self.replicas = Replicas()
        served = TopicReplicas(TOPIC, cast("Any", None))
        served.partitions[0] = self.partition
        self.replicas.by_key[TOPIC] = served
        self.active: list[int] = []
        self.runtime: CoordinatorRuntime[FakeShard] = CoordinatorRuntime(
            TOPIC,
            self._make,
            replicas=cast("ReplicaManager", self.replicas),
            clock=self.clock,
            loop=asyncio.get_running_loop(),
            request_sync=self._request_sync,
            run_blocking=_blocking,
            commit_timeout_ms=5000,
            on_active=lambda slot: self.active.append(slot.partition.index),
            recoveries=None if lacking is None else self._recoveries(lacking),
        )

    def _recoveries(self, lacking: Lacking) -> Recoveries[FakeShard]:
        return Recoveries(
            lacking,
            clock=self.clock,
            loop=asyncio.get_running_loop(),
            rng=random.Random(1),
            request_sync=self._request_sync,
        )

    def _make(self) -> FakeShard:
        self.shards.append(FakeShard())
        return self.shards[-1]

    def _request_sync(self, partition: Partition) -> None:
        assert partition is self.partition
        self.sync_requests += 1

    @property
    def shard(self) -> FakeShard:
        """The newest shard."""
        return self.shards[-1]

    def lead(self, epoch: int) -> None:
        """Become the leader in `epoch`."""
        lead_alone(self.partition, epoch)
        self.runtime.reconcile()

    def lead_recovering(self, epoch: int, *, min_isr: int = 1) -> None:
        """Become the leader in `epoch` of a partition that is recovering, or learn of another minimum."""
        state = state_of((0, 1), epoch=epoch, recovering=True)
        self.partition.lead(ReplicaRef(0, 1), state, min_isr, 0.0, recovery=Recovery.OFFSETS)
        self.runtime.reconcile()

    def resign(self) -> None:
        self.partition.resign(1, self.partition.leader_epoch + 1)
        self.runtime.reconcile()

    def sync(self) -> None:
        """Do what the flusher does."""
        work = self.log.begin_sync()
        if work is None:
            return
        work.run()
        if self.log.finish_sync(work):
            self.partition.synced()
        else:
            self.partition.sync_failed()

    def fill(
        self, count: int, *, batch_size: int = 100, key: bytes = b"k", compact_keys: bool = False
    ) -> None:
        """Write records as an earlier leader did."""
        for first in range(0, count, batch_size):
            size = min(batch_size, count - first)
            records = [
                Record(timestamp=NOW_MS, key=key + b"%d" % (first + i), value=b"v") for i in range(size)
            ]
            self.append(build_batch(records, base_offset=self.log.end_offset, leader_epoch=0))
        self.sync()

    def append(self, batch: bytes) -> None:
        self.log.append_follower(memoryview(bytearray(batch)))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0)

    async def settle(self) -> None:
        """Let everything happen that is due."""
        for _ in range(4):
            await asyncio.sleep(0)

    def write(self, ticket: FakeTicket, token: object = "token", *records: bytes) -> None:
        """Have the shard append records, and answer `ticket` when they are committed."""
        effects = Effects(
            records=[(record, b"v") for record in records or (b"k",)],
            committed=[(ticket, {"done": token})],
            token=token,
        )
        self.runtime.run(self.runtime.slot(0), lambda shard, now_ms: effects)


async def _blocking(work: Callable[[], object]) -> object:
    return await asyncio.get_running_loop().run_in_executor(None, work)


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine, with a limit that only a bug reaches."""

    async def limited() -> None:
        async with asyncio.timeout(30):
            await test

    asyncio.run(limited())
