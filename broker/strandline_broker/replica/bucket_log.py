"""A partition's records in the bucket: what `RemoteLog` and `TierBootstrap` promise, on verified chunks.

An offset is found by the manifest (which object), the offset index in that object's tail (where about), and the batches
from there on. `strandline_tiered.remote_reader` fetches chunks and tails, ahead of who reads on, and keeps them.

Who uses it: `server.tiering` makes one `BucketReader` for a broker, which makes a `BucketLog` for each led partition.
Errors of the store become RemoteUnavailable; what cannot be decoded, or has a wrong checksum, RemoteCorrupt.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

from strandline_broker.log.producer_snapshot import CorruptSnapshot
from strandline_broker.log.producer_snapshot import decode as decode_snapshot
from strandline_broker.replica.bucket_cache import BucketCache
from strandline_broker.replica.remote import (
    NotRemote,
    OffsetAt,
    RemoteCorrupt,
    RemoteGone,
    RemoteUnavailable,
    TailState,
)
from strandline_broker.wire.batch import HEADER_SIZE, MAGIC, iter_records, read_header
from strandline_broker.wire.errors import DecodeError
from strandline_tiered.disk_cache import MAX_PENDING
from strandline_tiered.envelope import FormatError
from strandline_tiered.manifest import Entry, PageRef, find_in
from strandline_tiered.manifest_format import load_page
from strandline_tiered.object_store import NoSuchObject, ObjectStoreError
from strandline_tiered.remote_reader import ReaderConfig, RemoteReader, SegmentRef
from strandline_tiered.segment_object import FOOTER_BYTES, parse_footer, parse_tail

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from strandline_broker.wire.batch import BatchHeader
    from strandline_tiered.disk_cache import DiskCache
    from strandline_tiered.epochs import History
    from strandline_tiered.keys import PartitionKeys
    from strandline_tiered.manifest import Manifest
    from strandline_tiered.object_store import ObjectStore

T = TypeVar("T")

MIN_MEMORY_BYTES = 24 << 20
"""The least that a reader makes do with."""
_CHUNK_BYTES = 4 << 20
_MAX_REQUESTS = 8
_PAGE_SHARE = 16
"""Of the memory, the part for pages of old manifest entries."""
_SCANNED_BYTES = 256 << 10
"""Bytes of one step of who looks for a time."""
_INDEX_SLACK = 8 << 10
"""About what lies between two entries of an offset index: read besides, to find where a batch begins."""


def reader_config(memory_bytes: int, *, has_disk: bool) -> ReaderConfig:
    """Return bounds for `memory_bytes`, MIN_MEMORY_BYTES at least: fewer requests at once where that is little."""
    room = memory_bytes - (MAX_PENDING * _CHUNK_BYTES if has_disk else 0)
    requests = max(1, min(_MAX_REQUESTS, room // (2 * _CHUNK_BYTES)))
    # One reader alone may keep all requests busy: a connection to a bucket is slow, many are not.
    return ReaderConfig(
        memory_bytes=memory_bytes,
        chunk_bytes=_CHUNK_BYTES,
        max_requests=requests,
        max_ahead_chunks=requests,
    )


class BucketReader:
    """What the readers of one broker share. `memory_bytes` bounds what is kept; `disk` takes what it has no room for."""

    def __init__(self, store: ObjectStore, memory_bytes: int, disk: DiskCache | None = None) -> None:
        self._store = store
        self._disk = disk
        pages = memory_bytes // _PAGE_SHARE
        self.segments = RemoteReader(
            store, reader_config(memory_bytes - pages, has_disk=disk is not None), disk=disk
        )
        self._pages: BucketCache[tuple[Entry, ...]] = BucketCache(pages)

    @property
    def kept_bytes(self) -> int:
        """Bytes of memory of what is kept."""
        return self.segments.memory_bytes + self._pages.kept_bytes

    async def close(self) -> None:
        """End all requests, and what is written to the disk."""
        await self.segments.close()
        if self._disk is not None:
            await self._disk.close()

    def log_of(self, keys: PartitionKeys, manifest: Manifest) -> BucketLog:
        """Return the part of one partition, as its leader's manifest has it."""
        return BucketLog(self, keys, manifest)

    async def page(self, key: str, page: PageRef) -> tuple[Entry, ...]:
        """Return the entries of a page. Raises ObjectStoreError, FormatError."""

        async def load() -> tuple[tuple[Entry, ...], int]:
            data = await self._store.get(key)
            return load_page(page, data), 8 * len(data)

        return await self._pages.get(key, load)

    async def state_at(self, keys: PartitionKeys, last: Entry | PageRef | None, epochs: History) -> TailState:
        """Return what came before the end of a manifest, whose last part and history these are.

        Raises RemoteUnavailable, RemoteCorrupt.
        """
        if isinstance(last, PageRef):
            try:
                last = (await self.page(last.key(keys), last))[-1]
            except (NoSuchObject, FormatError) as error:
                raise RemoteCorrupt(f"{last.name}: {error}") from error
            except ObjectStoreError as error:
                raise RemoteUnavailable(f"{last.name}: {error}") from error
        tail = await self.tail_state(last.key(keys), last.end_offset) if last is not None else None
        return TailState(
            [(one.epoch, one.start_offset) for one in epochs], tail.producers if tail is not None else []
        )

    async def tail_state(self, segment_key: str, offset: int) -> TailState:
        """See `TierBootstrap.tail_state`."""
        try:
            size = (await self._store.head(segment_key)).size
            footer = parse_footer(await self._store.get(segment_key, max(size - FOOTER_BYTES, 0), size), size)
            tail = parse_tail(await self._store.get(segment_key, footer.log_bytes, size), size)
            if footer.info.end_offset != offset:
                raise RemoteCorrupt(f"{segment_key} ends at {footer.info.end_offset}, not at {offset}")
            known = tail.companions
            producers = decode_snapshot(known.producers) if known.producers else []
        except (NoSuchObject, FormatError, CorruptSnapshot) as error:
            raise RemoteCorrupt(f"{segment_key}: {error}") from error
        except ObjectStoreError as error:
            raise RemoteUnavailable(f"{segment_key}: {error}") from error
        return TailState(list(known.epochs), producers)


class BucketLog:
    """See `RemoteLog`, and the module."""

    def __init__(self, reader: BucketReader, keys: PartitionKeys, manifest: Manifest) -> None:
        self._reader = reader
        self._keys = keys
        self.manifest = manifest
        """The newest one of its leader; set when it wrote another."""

    @property
    def end_offset(self) -> int:
        """See `RemoteLog.end_offset`."""
        return self.manifest.end_offset

    # -- records -------------------------------------------------------------------------------------------------------

    async def read(self, offset: int, max_bytes: int) -> bytes | memoryview:
        """See `RemoteLog.read`."""

        async def read() -> memoryview:
            with self._errors(offset):
                return await self._read(await self._entry(offset), offset, max_bytes)

        return await self._by_the_newest(read)

    async def _by_the_newest(self, look: Callable[[], Awaitable[T]]) -> T:
        """Look by one manifest, and by the next if what the former names is gone by then: a page, or deleted records."""
        while True:
            manifest = self.manifest
            try:
                return await look()
            except (NotRemote, RemoteGone):
                if self.manifest is manifest:
                    raise

    async def _read(self, entry: Entry, offset: int, max_bytes: int) -> memoryview:
        segment, reader = self._ref(entry), self._reader.segments
        following = self.manifest.first_from(entry.end_offset)
        then = self._ref(following) if isinstance(following, Entry) else None
        position = max(await reader.locate(segment, offset), entry.start_position)
        wanted = max_bytes + _INDEX_SLACK
        while position < segment.log_bytes:
            data = memoryview(await reader.read(segment, position, wanted, then=then))
            start, end, needed = _cut(segment.key, position, data, offset, max_bytes)
            if end > start:
                return data[start:end]
            # Not even one batch of those asked for is whole in it.
            position += start
            wanted = max(needed, max_bytes)
        raise RemoteCorrupt(f"{segment.key} has no batch that holds offset {offset}")

    def _ref(self, entry: Entry) -> SegmentRef:
        return SegmentRef(entry.key(self._keys), entry.object_bytes, entry.log_bytes)

    async def _entry(self, offset: int) -> Entry:
        found = self.manifest.find(offset)
        if isinstance(found, PageRef):
            found = find_in(await self._reader.page(found.key(self._keys), found), offset)
        if found is None:
            raise NotRemote(f"offset {offset} is not in [{self.manifest.log_start}, {self.end_offset})")
        return found

    @contextlib.contextmanager
    def _errors(self, offset: int) -> Iterator[None]:
        """Turn what goes wrong with the object that holds `offset` into RemoteError."""
        try:
            yield
        except NoSuchObject as error:
            # Retention was faster, or it is lost.
            if offset < self.manifest.log_start:
                raise NotRemote(
                    f"offset {offset} is below the log start {self.manifest.log_start}"
                ) from error
            raise RemoteGone(f"{error} is gone from the bucket") from error
        except FormatError as error:
            raise RemoteCorrupt(str(error)) from error
        except ObjectStoreError as error:
            raise RemoteUnavailable(str(error)) from error

    # -- times ---------------------------------------------------------------------------------------------------------

    async def offset_for_timestamp(self, timestamp: int, end: int) -> OffsetAt | None:
        """See `RemoteLog.offset_for_timestamp`."""
        return await self._by_the_newest(lambda: self._offset_for_timestamp(timestamp, end))

    async def _offset_for_timestamp(self, timestamp: int, end: int) -> OffsetAt | None:
        floor = self.manifest.log_start
        while True:
            part = self.manifest.find_timestamp(timestamp, floor)
            if part is None or part.start_offset >= end:
                return None
            for entry in await self._expand(part):
                if entry.end_offset > floor and entry.max_timestamp >= timestamp:
                    found = await self._first_at(entry, timestamp, floor)
                    if found is not None:
                        return found if found.offset < end else None
            floor = part.end_offset

    async def max_timestamp(self, end: int) -> OffsetAt | None:
        """See `RemoteLog.max_timestamp`."""
        return await self._by_the_newest(lambda: self._max_timestamp(end))

    async def _max_timestamp(self, end: int) -> OffsetAt | None:
        floor = self.manifest.log_start
        best: OffsetAt | None = None
        parts = [part for part in self.manifest.parts if part.end_offset > floor and part.start_offset < end]
        for part in sorted(parts, key=lambda one: (-one.max_timestamp, one.start_offset)):
            if part.max_timestamp < 0 or (best is not None and not _may_be_better(part, best)):
                break
            for entry in await self._expand(part):
                if entry.end_offset > floor and entry.start_offset < end and _may_be_better(entry, best):
                    found = await self._latest(entry, floor, end)
                    if found is not None and (
                        best is None or (-found.timestamp, found.offset) < (-best.timestamp, best.offset)
                    ):
                        best = found
        return best

    async def _expand(self, part: Entry | PageRef) -> tuple[Entry, ...]:
        if isinstance(part, Entry):
            return (part,)
        with self._errors(part.end_offset - 1):
            return await self._reader.page(part.key(self._keys), part)

    async def _first_at(self, entry: Entry, timestamp: int, floor: int) -> OffsetAt | None:
        """Return the first record of an entry, from `floor` on, that is not before `timestamp`."""
        floor = max(floor, entry.start_offset)
        with self._errors(entry.end_offset - 1):
            tail = await self._reader.segments.tail(self._ref(entry))
            position = max(tail.position_of_time(timestamp), tail.position_of(floor))
            async for header, batch in self._batches(entry, position):
                if header.max_timestamp >= timestamp and header.last_offset >= floor:
                    for at in _times(entry, header, batch):
                        if at.timestamp >= timestamp and at.offset >= floor:
                            return at
        return None

    async def _latest(self, entry: Entry, floor: int, end: int) -> OffsetAt | None:
        """Return the first of the records of an entry in [floor, end) that have the highest timestamp."""
        floor = max(floor, entry.start_offset)
        best: OffsetAt | None = None
        with self._errors(entry.end_offset - 1):
            tail = await self._reader.segments.tail(self._ref(entry))
            async for header, batch in self._batches(entry, tail.position_of(floor)):
                if header.base_offset >= end:
                    break
                if header.max_timestamp <= (best.timestamp if best is not None else -1):
                    continue
                for at in _times(entry, header, batch):
                    if floor <= at.offset < end and at.timestamp > (
                        best.timestamp if best is not None else -1
                    ):
                        best = at
                if best is not None and best.timestamp >= entry.max_timestamp:
                    break
        return best

    async def _batches(self, entry: Entry, position: int) -> AsyncIterator[tuple[BatchHeader, memoryview]]:
        """Yield the batches of an object from a position on."""
        segment = self._ref(entry)
        wanted = _SCANNED_BYTES
        while position < entry.log_bytes:
            data = memoryview(await self._reader.segments.read(segment, position, wanted))
            at, needed = 0, HEADER_SIZE
            while at + HEADER_SIZE <= len(data):
                header = _header(segment.key, position + at, data, at)
                needed = header.size
                if at + needed > len(data):
                    break
                yield header, data[at : at + needed]
                at += needed
            if at == 0 and len(data) >= min(needed, entry.log_bytes - position):
                raise RemoteCorrupt(f"{segment.key} ends within a batch")
            position += at
            wanted = max(_SCANNED_BYTES, needed)


def _may_be_better(part: Entry | PageRef, best: OffsetAt | None) -> bool:
    if best is None:
        return True
    return (-part.max_timestamp, part.start_offset) < (-best.timestamp, best.offset)


def _header(key: str, position: int, data: memoryview, at: int) -> BatchHeader:
    header = read_header(data, at)
    if header.magic != MAGIC or header.size < HEADER_SIZE or header.last_offset_delta < 0:
        raise RemoteCorrupt(f"{key}: there is no batch at {position}")
    return header


def _cut(key: str, position: int, data: memoryview, offset: int, max_bytes: int) -> tuple[int, int, int]:
    """Return where in `data` the batches from the one that holds `offset` on begin and end.

    The end is the beginning if not even that one is whole; the third number is then its size, as far as it is known.
    """
    start = end = -1
    at = 0
    while at + HEADER_SIZE <= len(data):
        header = _header(key, position + at, data, at)
        after = at + header.size
        if header.last_offset >= offset:
            if start < 0:
                start = end = at
            if after > len(data):
                return start, end, header.size
            if after - start > max_bytes and end > start:
                break
            end = after
        elif after > len(data):
            # A large batch before the one that is asked for: go on behind it.
            return after, after, HEADER_SIZE
        at = after
    return (start, end, 0) if start >= 0 else (at, at, HEADER_SIZE)


def _times(entry: Entry, header: BatchHeader, batch: memoryview) -> list[OffsetAt]:
    """Return when each record of a batch was."""
    if header.is_log_append_time and header.record_count == header.last_offset_delta + 1:
        return [
            OffsetAt(header.max_timestamp, offset, header.leader_epoch)
            for offset in range(header.base_offset, header.next_offset)
        ]
    try:
        return [OffsetAt(one.timestamp, one.offset, header.leader_epoch) for one in iter_records(batch)]
    except DecodeError as error:
        raise RemoteCorrupt(f"{entry.name}: the batch at offset {header.base_offset}: {error}") from error
