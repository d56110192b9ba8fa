"""Reads from the bucket for consumers' fetches: few at once, shared by who asks for the same, kept until they are fetched.

    asked ──▶ waiting for its turn ──▶ reading ──arrived──▶ kept ──fetched, or nobody came for it──▶ gone
                                          └──failed──▶ gone; the next fetch tries again

A fetch never waits longer than its client allows (design section 7.4): it is answered without the rows that are still being
read, the read goes on, and the next fetch finds what it brought. While the bucket is away rows stay empty, and after
`PATIENCE_S` of nothing but failures they say KAFKA_STORAGE_ERROR, at the end of each wait: clients retry on it, ask for the
leader again, and may log why nothing comes.

Who uses it: `FetchHandler`. Bounds: `CONCURRENCY` reads at once, `MAX_WAITING` that wait, `MAX_KEPT_BYTES` of what arrived
and is not older than `KEPT_S` (but always the newest); what is above is answered empty.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.replica.remote import NotRemote, RemoteCorrupt, RemoteError, RemoteGone

if TYPE_CHECKING:
    from strandline_broker.replica.partition import Partition
    from strandline_broker.replica.remote import RemoteLog
    from strandline_broker.seams.clock import Clock

logger = logging.getLogger(__name__)

CONCURRENCY = 16
MAX_WAITING = 1000
MAX_PER_FETCH = 8
"""Reads that one fetch, and so one connection, may start."""
MAX_READ_BYTES = 4 << 20
MAX_KEPT_BYTES = 32 << 20
KEPT_S = 10.0
PATIENCE_S = 30.0

_Key = tuple["Partition", int, int]


class RemoteWaiter(Protocol):
    """A fetch that waits for reads; `data_arrived(0)` has it answered at once, whatever it waits for otherwise."""

    def data_arrived(self, byte_count: int) -> None:
        """Look again."""
        ...


class RemoteRead:
    """One read; `data` or `error` is there when it has ended."""

    __slots__ = ("data", "ended_at", "error", "key", "started", "task", "waiters")

    def __init__(self, key: _Key) -> None:
        self.key = key
        self.started = False
        self.data: bytes | memoryview | None = None
        self.error: KafkaError | None = None
        self.ended_at = 0.0
        self.task: asyncio.Task[None] | None = None
        self.waiters: dict[RemoteWaiter, None] = {}


class RemoteReads:
    """See the module."""

    def __init__(
        self,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        *,
        concurrency: int = CONCURRENCY,
        max_waiting: int = MAX_WAITING,
        max_kept_bytes: int = MAX_KEPT_BYTES,
    ) -> None:
        self._clock = clock
        self._loop = loop
        self._turn = asyncio.Semaphore(concurrency)
        self._max_open = concurrency + max_waiting
        self._max_kept_bytes = max_kept_bytes
        self._open: dict[_Key, RemoteRead] = {}
        self._kept: OrderedDict[_Key, RemoteRead] = OrderedDict()
        self._kept_bytes = 0
        self._failing_since: float | None = None
        # For metrics.
        self.reads = 0
        self.read_bytes = 0
        self.failures = 0

    @property
    def open_count(self) -> int:
        """Reads that wait or are under way."""
        return len(self._open)

    @property
    def is_failing(self) -> bool:
        """Whether nothing has come from the bucket for so long that clients should be told."""
        return self._failing_since is not None and self._clock.monotonic() - self._failing_since > PATIENCE_S

    def ask(
        self, partition: Partition, remote: RemoteLog, offset: int, max_bytes: int, *, may_start: bool
    ) -> RemoteRead | None:
        """Return the read of these records, ended or not; None if it cannot be made now."""
        key = (partition, offset, min(max_bytes, MAX_READ_BYTES))
        read = self._kept.get(key) or self._open.get(key)
        if read is not None or not may_start or len(self._open) >= self._max_open:
            return read
        read = self._open[key] = RemoteRead(key)
        read.task = self._loop.create_task(self._run(read, remote))
        read.task.add_done_callback(_report)
        return read

    def taken(self, read: RemoteRead) -> None:
        """Let go of what a read brought, unless somebody else waits for it."""
        if not read.waiters:
            self._drop(read)

    def left(self, read: RemoteRead, waiter: RemoteWaiter, *, lost: bool = False) -> None:
        """Take note that a fetch waits no longer; `lost`: its client is gone, and so is the reason to begin reading."""
        read.waiters.pop(waiter, None)
        if lost and not read.waiters and not read.started and read.task is not None:
            read.task.cancel()
            self._open.pop(read.key, None)

    async def _run(self, read: RemoteRead, remote: RemoteLog) -> None:
        partition, offset, max_bytes = read.key
        try:
            async with self._turn:
                read.started = True
                self.reads += 1
                data = await remote.read(offset, max_bytes)
        except NotRemote as error:
            self._failing_since = None
            read.error = KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, str(error))
            if partition.tier is not None and partition.tier.holds(offset):
                logger.error("%r: offset %d is neither here nor in the bucket: %s", partition, offset, error)
                read.error = KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, str(error))
        except RemoteGone as error:
            # What clients retry, with the successor if there is one.
            logger.error("%r: %s", partition, error)
            read.error = KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, str(error))
        except RemoteCorrupt as error:
            logger.error("%r: %s", partition, error)
            read.error = KafkaError(ErrorCode.CORRUPT_MESSAGE, str(error))
        except RemoteError as error:
            self._failed(read, error)
            return
        else:
            self._failing_since = None
            self.read_bytes += len(data)
            read.data = data
        self._open.pop(read.key, None)
        self._keep(read)
        for waiter in list(read.waiters):
            waiter.data_arrived(0)

    def _failed(self, read: RemoteRead, error: RemoteError) -> None:
        """Let the fetches wait to their ends; the next ones try again."""
        self.failures += 1
        self._open.pop(read.key, None)
        if self._failing_since is None:
            self._failing_since = self._clock.monotonic()
            logger.warning("%r: cannot read offset %d from the bucket: %s", read.key[0], read.key[1], error)

    def _keep(self, read: RemoteRead) -> None:
        now = self._clock.monotonic()
        read.ended_at = now
        self._kept[read.key] = read
        self._kept_bytes += len(read.data or b"")
        while len(self._kept) > 1:
            oldest = next(iter(self._kept.values()))
            if self._kept_bytes <= self._max_kept_bytes and now - oldest.ended_at <= KEPT_S:
                break
            self._drop(oldest)

    def _drop(self, read: RemoteRead) -> None:
        if self._kept.pop(read.key, None) is not None:
            self._kept_bytes -= len(read.data or b"")

    async def close(self) -> None:
        """Cancel everything."""
        tasks = [read.task for read in self._open.values() if read.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._open.clear()
        self._kept.clear()
        self._kept_bytes = 0


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.critical("a read from the bucket died", exc_info=task.exception())
