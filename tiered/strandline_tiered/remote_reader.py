"""Reads segments in the bucket as if they were local: in chunks, each fetched once, kept for a while, and ahead of time.

Who uses it: a broker's fetch and lookup by timestamp, restore. A segment object's log is divided into chunks of a fixed
size, a multiple of the blocks that have checksums, so what a reader gets was verified against what the archiver read.

- *Single flight*: however many ask for a chunk, there is one request. It belongs to the reader, not to who asked: who stops
  waiting (a consumer's max wait) finds the chunk in the cache next time.
- *Read-ahead*: a reader that goes on where it stopped gets 1, 2, 4, ... chunks ahead of it, up to a bound, and into the
  segment that follows. Read-ahead takes only idle request slots and at most half of the memory with chunks that nobody has
  asked for yet. They stay as long as their reader comes nearer: what it is done with goes before.
- *Disk*: what memory has no room for goes there, but not what came for a sequential reader, read ahead or not. Who reads a
  whole topic would else write it all to a disk that has better things to do; who reads it again has it read ahead again.
- *Bounds*: memory (chunks, tails and what is on its way), requests at once, requests that wait. At the last bound callers
  get `Unavailable` and come again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from strandline_tiered.chunk_cache import ChunkCache, ChunkName
from strandline_tiered.disk_cache import MAX_PENDING, DiskCache
from strandline_tiered.envelope import FormatError
from strandline_tiered.object_store import ObjectStore, Unavailable
from strandline_tiered.segment_object import BLOCK_BYTES, Tail, parse_tail

T = TypeVar("T")

MAX_STREAMS = 1024
"""Sequential readers that are remembered; the one that was quiet longest is forgotten first."""
ATTEMPTS = 3
"""Times that a chunk which does not fit its checksum is fetched before it counts as damaged in the bucket."""
TAIL_SLOTS = 2
"""Tails fetched at once. Tails under way take half of the memory at most, chunks the other half."""

_log = logging.getLogger(__name__)


class SegmentRef(NamedTuple):
    """A segment object as the manifest names it: the log is its first `log_bytes` of `object_bytes`."""

    key: str
    object_bytes: int
    log_bytes: int


@dataclass(frozen=True, slots=True)
class ReaderConfig:
    """Bounds of one reader, in bytes and requests."""

    memory_bytes: int = 64 << 20
    chunk_bytes: int = 4 << 20
    max_requests: int = 8
    """Chunks fetched at once."""
    max_waiting: int = 64
    """Chunks and tails that are being fetched or wait for it."""
    max_ahead_chunks: int = 4
    """Chunks read ahead for one sequential reader."""

    def __post_init__(self) -> None:
        if self.chunk_bytes <= 0 or self.chunk_bytes % BLOCK_BYTES:
            raise ValueError(f"chunks of {self.chunk_bytes} bytes are no multiple of {BLOCK_BYTES}")
        if self.max_requests < 1 or self.max_waiting < self.max_requests:
            raise ValueError("at least one request at once, and as many waiting")


class ReaderCounters:
    """What happened so far; for metrics."""

    def __init__(self) -> None:
        self.requests = 0
        """GETs of chunks and tails."""
        self.bytes_fetched = 0
        self.bytes_read = 0
        """Bytes of logs handed to callers."""
        self.hits = 0
        """Chunks that were in memory, or on their way, when a caller asked."""
        self.disk_hits = 0
        self.read_ahead = 0
        self.unused = 0
        """Chunks read ahead that went before anybody asked."""
        self.damaged = 0
        """Answers that did not fit their checksum."""
        self.failures = 0
        """Fetches that failed for good."""


class RemoteReader:
    """See the module. Everything of one event loop may use it at once."""

    def __init__(
        self, store: ObjectStore, config: ReaderConfig | None = None, *, disk: DiskCache | None = None
    ) -> None:
        self._store = store
        self._config = config = config or ReaderConfig()
        # What waits to be written to the disk is memory, too.
        limit = config.memory_bytes - (0 if disk is None else MAX_PENDING * config.chunk_bytes)
        if limit < 2 * config.max_requests * config.chunk_bytes:
            raise ValueError(
                "memory for twice the chunks fetched at once, at least: tails need the other half"
            )
        self._max_tail_bytes = limit // 2 // TAIL_SLOTS
        self._cache: ChunkCache[bytes | Tail] = ChunkCache(limit)
        self._disk = disk
        self._slots = asyncio.Semaphore(config.max_requests)
        self._tail_slots = asyncio.Semaphore(TAIL_SLOTS)
        self._fetches: dict[ChunkName, asyncio.Task[Any]] = {}
        # Fetches that nobody has asked for yet.
        self._ahead: set[ChunkName] = set()
        # Where a sequential reader will go on: a chunk, and how many more to fetch behind it.
        self._streams: OrderedDict[ChunkName, int] = OrderedDict()
        self.counters = ReaderCounters()

    @property
    def memory_bytes(self) -> int:
        """Bytes cached and on their way, without the few chunks that wait to be written to the disk cache."""
        return self._cache.used_bytes

    async def read(
        self, segment: SegmentRef, position: int, max_bytes: int, *, then: SegmentRef | None = None
    ) -> bytes:
        """Return bytes [position, position + max_bytes) of a segment's log.

        Fewer only at its end, and where more than `max_requests` chunks would be needed at once. `then`:
        the segment that follows, where a sequential reader will go on. Raises NoSuchObject, Refused, Unavailable (also
        when too many reads wait), FormatError for an object that is damaged in the bucket.
        """
        size = self._config.chunk_bytes
        first = position // size * size
        end = min(position + max_bytes, segment.log_bytes, first + self._config.max_requests * size)
        if position < 0 or end <= position:
            return b""
        starts = range(first, end, size)
        goes_on = any(ChunkName(segment.key, start) in self._streams for start in (first, first + size))
        wanted = [self._chunk(segment, start, goes_on=goes_on) for start in starts]
        self._read_ahead(segment, starts, then)
        parts = []
        for start, chunk in zip(starts, wanted, strict=True):
            data = chunk if isinstance(chunk, bytes) else await asyncio.shield(chunk)
            parts.append(memoryview(data)[max(0, position - start) : end - start])
        self.counters.bytes_read += end - position
        return b"".join(parts)

    async def tail(self, segment: SegmentRef) -> Tail:
        """Return what stands behind the log. Raises what `read` does."""
        found = self._tail(segment)
        return found if isinstance(found, Tail) else await asyncio.shield(found)

    async def locate(self, segment: SegmentRef, offset: int) -> int:
        """Return a position at or before the batch that holds `offset` (`Tail.position_of`). Raises what `read` does."""
        return (await self.tail(segment)).position_of(offset)

    async def locate_time(self, segment: SegmentRef, timestamp: int) -> int:
        """Return a position at or before the first record with a timestamp (ms) at or after this one."""
        return (await self.tail(segment)).position_of_time(timestamp)

    def forget(self, key: str) -> None:
        """Drop what is cached of an object: it is deleted."""
        self._cache.discard_object(key)
        if self._disk is not None:
            self._disk.discard_object(key)

    async def close(self) -> None:
        """End all requests. The store and the disk cache are their owners' to close."""
        tasks = list(self._fetches.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _chunk(self, segment: SegmentRef, start: int, *, goes_on: bool) -> bytes | asyncio.Task[bytes]:
        """Return a chunk, or the fetch of it, for one who `goes_on` from an earlier read or has just come.

        Raises Unavailable at the bound of waiting fetches.
        """
        name = ChunkName(segment.key, start)
        cached = self._cache.get(name)
        if isinstance(cached, bytes):
            self.counters.hits += 1
            return cached
        self.counters.hits += name in self._fetches
        self._ahead.discard(name)
        self._check_waiting(name)
        return self._start(name, lambda: self._fetch_chunk(segment, name, goes_on=goes_on))

    def _tail(self, segment: SegmentRef, *, for_chunk: bool = False) -> Tail | asyncio.Task[Tail]:
        """Return the tail, or the fetch of it. A chunk's fetch has waited already."""
        name = ChunkName(segment.key, segment.log_bytes)
        cached = self._cache.get(name)
        if isinstance(cached, Tail):
            return cached
        if not for_chunk:
            self._check_waiting(name)
        return self._start(name, lambda: self._fetch_tail(segment, name))

    def _check_waiting(self, name: ChunkName) -> None:
        if len(self._fetches) >= self._config.max_waiting and name not in self._fetches:
            raise Unavailable(f"get {name.key}: {len(self._fetches)} reads of the bucket wait already")

    def _start(self, name: ChunkName, fetch: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Return the one fetch of a name; begin it if there is none."""
        running = self._fetches.get(name)
        if running is None:
            running = self._fetches[name] = asyncio.get_running_loop().create_task(fetch())
            running.add_done_callback(lambda task: self._ended(name, task))
        return running

    def _ended(self, name: ChunkName, task: asyncio.Task[Any]) -> None:
        del self._fetches[name]
        self._ahead.discard(name)
        # Who waited gets the error. Of a read ahead nobody else would ever hear.
        if not task.cancelled() and (error := task.exception()) is not None:
            self.counters.failures += 1
            _log.debug("%s from %d on: %s", name.key, name.start, error)

    def _read_ahead(self, segment: SegmentRef, starts: range, then: SegmentRef | None) -> None:
        """Fetch behind the chunks of a read what a sequential reader will want next."""
        size = self._config.chunk_bytes
        first, last = starts[0], starts[-1]
        # The reader's next position is near the end of what it got: it may come back to the beginning of a batch.
        grants = (self._streams.pop(ChunkName(segment.key, start), 0) for start in (first, first + size))
        grant = max(grants)
        following = segment if last + size < segment.log_bytes or then is None else then
        expected = last if following is segment else 0
        self._streams[ChunkName(segment.key, last)] = min(max(1, 2 * grant), self._config.max_ahead_chunks)
        if following is not segment:
            self._streams[ChunkName(following.key, expected)] = min(
                max(1, grant), self._config.max_ahead_chunks
            )
        while len(self._streams) > MAX_STREAMS:
            self._streams.popitem(last=False)
        target, start = segment, last + size
        for _ in range(grant):
            if start >= target.log_bytes:
                if target is not segment or then is None or then.log_bytes == 0:
                    return
                target, start = then, 0
            self._fetch_ahead(target, start)
            start += size

    def _fetch_ahead(self, segment: SegmentRef, start: int) -> None:
        name, size = ChunkName(segment.key, start), self._config.chunk_bytes
        # Who comes to a chunk needs its tail to find the way: of the two it would otherwise be the older one, and go first.
        self._cache.keep(ChunkName(segment.key, segment.log_bytes))
        if self._cache.keep(name) or name in self._fetches or len(self._fetches) >= self._config.max_requests:
            return
        if self._cache.unused_bytes + (len(self._ahead) + 1) * size > self._cache.limit_bytes // 2:
            return
        self.counters.read_ahead += 1
        self._ahead.add(name)
        self._start(name, lambda: self._fetch_chunk(segment, name, goes_on=True))

    async def _fetch_tail(self, segment: SegmentRef, name: ChunkName) -> Tail:
        size = segment.object_bytes - segment.log_bytes
        if size > self._max_tail_bytes:
            raise FormatError(f"{segment.key}: indexes of {size} bytes; {self._max_tail_bytes} are allowed")
        async with self._tail_slots:
            self._reserve(size)
            try:
                tail = await self._get_tail(segment)
            except BaseException:
                self._cache.release(size)
                raise
            self._cache.fill(name, tail, size, unused=False)
            return tail

    async def _fetch_chunk(self, segment: SegmentRef, name: ChunkName, *, goes_on: bool) -> bytes:
        size = min(self._config.chunk_bytes, segment.log_bytes - name.start)
        async with self._slots:
            self._reserve(size)
            try:
                data = None if self._disk is None else await self._disk.load(name)
                if data is None:
                    data = await self._get_chunk(segment, name.start, name.start + size)
                else:
                    self.counters.disk_hits += 1
            except BaseException:
                self._cache.release(size)
                raise
            # Also if it was asked for before it came: who reads on is often as fast as the bucket.
            self._cache.fill(name, data, size, unused=name in self._ahead, passing=goes_on)
            return data

    def _reserve(self, size: int) -> None:
        for evicted in self._cache.reserve(size):
            if evicted.unused:
                self.counters.unused += 1
            elif self._disk is not None and not evicted.passing and isinstance(evicted.value, bytes):
                self._disk.offer(evicted.name, evicted.value)

    async def _get_tail(self, segment: SegmentRef) -> Tail:
        def understood(data: bytes) -> Tail:
            tail = parse_tail(data, segment.object_bytes)
            if tail.footer.log_bytes != segment.log_bytes:
                raise FormatError(
                    f"a log of {tail.footer.log_bytes} bytes, {segment.log_bytes} in the manifest"
                )
            return tail

        data = await self._get(segment.key, segment.log_bytes, segment.object_bytes)
        return await self._sound(segment, segment.log_bytes, segment.object_bytes, data, understood)

    async def _get_chunk(self, segment: SegmentRef, start: int, end: int) -> bytes:
        """Fetch a chunk, and at the same time the tail that has its checksums."""
        found = self._tail(segment, for_chunk=True)
        data = await self._get(segment.key, start, end)
        tail = found if isinstance(found, Tail) else await asyncio.shield(found)

        def checked(data: bytes) -> bytes:
            tail.check(start, data)
            return data

        return await self._sound(segment, start, end, data, checked)

    async def _sound(
        self, segment: SegmentRef, start: int, end: int, data: bytes, understand: Callable[[bytes], T]
    ) -> T:
        """Fetch again what does not fit its checksums: it may have been damaged on the way. Raises FormatError."""
        for attempt in range(ATTEMPTS):
            try:
                return understand(data)
            except FormatError as error:
                self.counters.damaged += 1
                if attempt == ATTEMPTS - 1:
                    raise FormatError(f"{segment.key}: {error}") from error
                data = await self._get(segment.key, start, end)
        raise AssertionError("the last attempt raises")

    async def _get(self, key: str, start: int, end: int) -> bytes:
        self.counters.requests += 1
        data = await self._store.get(key, start, end)
        self.counters.bytes_fetched += len(data)
        if len(data) != end - start:
            raise FormatError(f"{key} ends before {end}")
        return data
