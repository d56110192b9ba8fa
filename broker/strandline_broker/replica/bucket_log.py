"""A partition's records in the bucket, read with ranged GETs: what `RemoteLog` and `TierBootstrap` promise.

An offset is found by the manifest (which object), the offset index in that object's tail (where about), and the batches
from there on. Tails and pages are kept, the last used ones within a bound, and read once however many wait. Where a reader
stopped is remembered, so that who reads on asks for exactly what follows.

Who uses it: `server.tiering` makes one `BucketReader` for a broker, which makes a `BucketLog` for each led partition.
Errors of the store become RemoteUnavailable; what cannot be decoded, or has a wrong checksum, RemoteCorrupt.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from strandline_broker.log.producer_snapshot import CorruptSnapshot
from strandline_broker.log.producer_snapshot import decode as decode_snapshot
from strandline_broker.replica.bucket_cache import BucketCache
from strandline_broker.replica.remote import (
    NotRemote,
    OffsetAt,
    RemoteCorrupt,
    RemoteUnavailable,
    TailState,
)
from strandline_broker.wire.batch import HEADER_SIZE, MAGIC, crc_ok, iter_records, read_header
from strandline_broker.wire.errors import DecodeError
from strandline_tiered.envelope import FormatError
from strandline_tiered.manifest import Entry, PageRef, find_in
from strandline_tiered.manifest_format import load_page
from strandline_tiered.object_store import NoSuchObject, ObjectStoreError
from strandline_tiered.segment_object import FOOTER_BYTES, Tail, parse_footer, parse_tail

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from strandline_broker.wire.batch import BatchHeader
    from strandline_tiered.keys import PartitionKeys
    from strandline_tiered.manifest import Manifest
    from strandline_tiered.object_store import ObjectStore

_SCANNED_BYTES = 256 << 10
"""Bytes of one GET of who looks for a time."""
_INDEX_SLACK = 8 << 10
"""About what lies between two entries of an offset index: read besides, where it is not known where a batch begins."""
_MAX_HINTS = 4096


class BucketReader:
    """What the readers of one broker share. `memory_bytes` bounds the tails and pages that are kept."""

    def __init__(self, store: ObjectStore, memory_bytes: int) -> None:
        self._store = store
        self._tails: BucketCache[Tail] = BucketCache(memory_bytes)
        self._pages: BucketCache[tuple[Entry, ...]] = BucketCache(max(memory_bytes // 8, 1 << 20))
        self._hints: OrderedDict[tuple[str, int], int] = OrderedDict()
        # For metrics.
        self.requests = 0
        self.read_bytes = 0

    @property
    def hits(self) -> int:
        """Tails and pages that were at hand."""
        return self._tails.hits + self._pages.hits

    @property
    def misses(self) -> int:
        """Tails and pages that had to be read."""
        return self._tails.misses + self._pages.misses

    @property
    def kept_bytes(self) -> int:
        """Bytes of what is kept."""
        return self._tails.kept_bytes + self._pages.kept_bytes

    def log_of(self, keys: PartitionKeys, manifest: Manifest) -> BucketLog:
        """Return the part of one partition, as its leader's manifest has it."""
        return BucketLog(self, keys, manifest)

    async def get(self, key: str, start: int, end: int | None) -> bytes:
        """Read bytes of an object. Raises RemoteUnavailable, NoSuchObject."""
        self.requests += 1
        try:
            data = await self._store.get(key, start, end)
        except NoSuchObject:
            raise
        except ObjectStoreError as error:
            raise RemoteUnavailable(f"{key}: {error}") from error
        self.read_bytes += len(data)
        return data

    async def tail_of(self, key: str, entry: Entry) -> Tail:
        """Return the tail of an entry's object. Raises RemoteError, NoSuchObject."""

        async def load() -> tuple[Tail, int]:
            data = await self.get(key, entry.log_bytes, entry.object_bytes)
            try:
                return parse_tail(data, entry.object_bytes), len(data)
            except FormatError as error:
                raise RemoteCorrupt(f"{key}: {error}") from error

        return await self._tails.get(key, load)

    async def page(self, key: str, page: PageRef) -> tuple[Entry, ...]:
        """Return the entries of a page. Raises RemoteError, NoSuchObject."""

        async def load() -> tuple[tuple[Entry, ...], int]:
            data = await self.get(key, 0, None)
            try:
                return load_page(page, data), 8 * len(data)
            except FormatError as error:
                raise RemoteCorrupt(f"{key}: {error}") from error

        return await self._pages.get(key, load)

    async def tail_state(self, segment_key: str, offset: int) -> TailState:
        """See `TierBootstrap.tail_state`."""
        try:
            size = (await self._store.head(segment_key)).size
            footer = parse_footer(await self.get(segment_key, max(size - FOOTER_BYTES, 0), size), size)
            tail = parse_tail(await self.get(segment_key, footer.log_bytes, size), size)
            if footer.info.end_offset != offset:
                raise RemoteCorrupt(f"{segment_key} ends at {footer.info.end_offset}, not at {offset}")
            known = tail.companions
            producers = decode_snapshot(known.producers) if known.producers else []
        except (NoSuchObject, FormatError, CorruptSnapshot) as error:
            raise RemoteCorrupt(f"{segment_key}: {error}") from error
        except ObjectStoreError as error:
            raise RemoteUnavailable(f"{segment_key}: {error}") from error
        return TailState(list(known.epochs), producers)

    def remember(self, key: str, offset: int, position: int) -> None:
        """Keep in mind where the batch begins that a reader will ask for next."""
        hints = self._hints
        hints[(key, offset)] = position
        if len(hints) > _MAX_HINTS:
            hints.popitem(last=False)

    def recall(self, key: str, offset: int) -> int | None:
        """Return where the batch at `offset` begins, if a reader stopped there."""
        return self._hints.get((key, offset))


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
        entry = await self._entry(offset)
        key = entry.key(self._keys)
        try:
            return await self._read(key, entry, offset, max_bytes)
        except NoSuchObject:
            raise self._gone(offset, key) from None

    async def _read(self, key: str, entry: Entry, offset: int, max_bytes: int) -> memoryview:
        reader = self._reader
        position = reader.recall(key, offset)
        wanted = max_bytes
        if position is None:
            tail = await reader.tail_of(key, entry)
            position = max(tail.position_of(offset), entry.start_position)
            wanted += _INDEX_SLACK
        while True:
            data = memoryview(
                await reader.get(key, position, min(position + max(wanted, HEADER_SIZE), entry.log_bytes))
            )
            start, end, needed = _cut(key, position, data, offset, max_bytes)
            if end > start:
                if position + end < entry.log_bytes:
                    last = _last_offset(data, start, end)
                    reader.remember(key, last + 1, position + end)
                return data[start:end]
            # Not even one batch of those asked for is whole in it.
            position += start
            if position >= entry.log_bytes:
                raise RemoteCorrupt(f"{key} has no batch that holds offset {offset}")
            wanted = max(needed, max_bytes)

    async def _entry(self, offset: int) -> Entry:
        found = self.manifest.find(offset)
        if isinstance(found, PageRef):
            key = found.key(self._keys)
            try:
                found = find_in(await self._reader.page(key, found), offset)
            except NoSuchObject:
                raise self._gone(offset, key) from None
        if found is None:
            raise NotRemote(f"offset {offset} is not in [{self.manifest.log_start}, {self.end_offset})")
        return found

    def _gone(self, offset: int, key: str) -> NotRemote | RemoteCorrupt:
        """Return what it means that an object is not there: retention was faster, or it is lost."""
        if offset < self.manifest.log_start:
            return NotRemote(f"offset {offset} is below the log start {self.manifest.log_start}")
        return RemoteCorrupt(f"{key} is gone from the bucket")

    # -- times ---------------------------------------------------------------------------------------------------------

    async def offset_for_timestamp(self, timestamp: int, end: int) -> OffsetAt | None:
        """See `RemoteLog.offset_for_timestamp`."""
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
        key = part.key(self._keys)
        try:
            return await self._reader.page(key, part)
        except NoSuchObject:
            raise self._gone(part.end_offset - 1, key) from None

    async def _first_at(self, entry: Entry, timestamp: int, floor: int) -> OffsetAt | None:
        """Return the first record of an entry, from `floor` on, that is not before `timestamp`."""
        floor = max(floor, entry.start_offset)
        key = entry.key(self._keys)
        try:
            tail = await self._reader.tail_of(key, entry)
            position = max(tail.position_of_time(timestamp), tail.position_of(floor))
            async for header, batch in self._batches(key, entry, position):
                if header.max_timestamp >= timestamp and header.last_offset >= floor:
                    for at in _times(key, header, batch):
                        if at.timestamp >= timestamp and at.offset >= floor:
                            return at
        except NoSuchObject:
            raise self._gone(entry.end_offset - 1, key) from None
        return None

    async def _latest(self, entry: Entry, floor: int, end: int) -> OffsetAt | None:
        """Return the first of the records of an entry in [floor, end) that have the highest timestamp."""
        floor = max(floor, entry.start_offset)
        key = entry.key(self._keys)
        best: OffsetAt | None = None
        try:
            tail = await self._reader.tail_of(key, entry)
            async for header, batch in self._batches(key, entry, tail.position_of(floor)):
                if header.base_offset >= end:
                    break
                if header.max_timestamp <= (best.timestamp if best is not None else -1):
                    continue
                for at in _times(key, header, batch):
                    if floor <= at.offset < end and at.timestamp > (
                        best.timestamp if best is not None else -1
                    ):
                        best = at
                if best is not None and best.timestamp >= entry.max_timestamp:
                    break
        except NoSuchObject:
            raise self._gone(entry.end_offset - 1, key) from None
        return best

    async def _batches(
        self, key: str, entry: Entry, position: int
    ) -> AsyncIterator[tuple[BatchHeader, memoryview]]:
        """Yield the batches of an object from a position on."""
        wanted = _SCANNED_BYTES
        while position < entry.log_bytes:
            data = memoryview(await self._reader.get(key, position, min(position + wanted, entry.log_bytes)))
            at, needed = 0, 0
            while at + HEADER_SIZE <= len(data):
                header = _header(key, position + at, data, at)
                needed = header.size
                if at + needed > len(data):
                    break
                yield header, data[at : at + needed]
                at += needed
            if at == 0 and position + len(data) >= entry.log_bytes:
                raise RemoteCorrupt(f"{key} ends within a batch")
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
            if not crc_ok(data[at:after]):
                raise RemoteCorrupt(f"{key}: wrong checksum of the batch at {position + at}")
            end = after
        elif after > len(data):
            # A large batch before the one that is asked for: go on behind it.
            return after, after, HEADER_SIZE
        at = after
    return (start, end, 0) if start >= 0 else (at, at, HEADER_SIZE)


def _last_offset(data: memoryview, start: int, end: int) -> int:
    at = start
    last = -1
    while at < end:
        header = read_header(data, at)
        last = header.last_offset
        at += header.size
    return last


def _times(key: str, header: BatchHeader, batch: memoryview) -> list[OffsetAt]:
    """Return when each record of a batch was."""
    if header.is_log_append_time and header.record_count == header.last_offset_delta + 1:
        return [
            OffsetAt(header.max_timestamp, offset, header.leader_epoch)
            for offset in range(header.base_offset, header.next_offset)
        ]
    try:
        return [OffsetAt(one.timestamp, one.offset, header.leader_epoch) for one in iter_records(batch)]
    except DecodeError as error:
        raise RemoteCorrupt(f"{key}: the batch at offset {header.base_offset}: {error}") from error
