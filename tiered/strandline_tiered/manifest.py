"""A manifest: what of one partition lies in the bucket. An immutable value.

Who uses it: the leader that writes manifests, readers, retention, restore, the model checker. Pure. `manifest_events` says
how a manifest changes, `manifest_format` turns it into bytes.

An *entry* stands for the records [start, end) of one segment object. Old entries spill into *pages*, objects of their own,
of which the manifest keeps a reference with sums. Entries and references are its *parts*: they ascend and touch each
other; a hole between two lies below the log start. The *end* is where the next upload begins, except where the log start
lies above it (`upload_from`). Parts below the log start stay until `EntriesRemoved`: readers never look there.

A segment that covers the end of the manifest is uploaded whole, and its entry is clipped: `start_offset` is then above
`base_offset`, and `start_position` tells where in the object its records begin. Sums count what an entry stands for, and
nothing that is not in a manifest (KAFKA-17062).

Units: offsets; bytes; milliseconds since 1970, -1 where no record has a timestamp.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias, TypeVar
from uuid import UUID

from strandline_tiered.epochs import History, check_history
from strandline_tiered.keys import ManifestName, PageName, PartitionKeys, SegmentName

PAGE_ENTRIES = 512
"""Entries that a leader moves into one page."""
TAIL_ENTRIES = 1024
"""How many entries a leader leaves behind the last page of a manifest, at most."""
NO_TIMESTAMP = -1


@dataclass(frozen=True, slots=True)
class Entry:
    """Records [start_offset, end_offset) in one segment object.

    `name` is the object's; its log bytes are [0, log_bytes) of `object_bytes`, indexes and footer follow. A batch begins at
    `start_position`, in which, or somewhat behind which, the records of this entry begin. Timestamps are those of the
    whole segment. `has_aborted_transactions`: its aborted-transaction index is not empty. `origin`: the prefix of the
    partition whose object it is, empty for the manifest's own; objects of others are never deleted (restored
    clusters, clones).
    """

    start_offset: int
    end_offset: int
    name: SegmentName
    object_bytes: int
    log_bytes: int
    start_position: int
    base_timestamp: int
    max_timestamp: int
    has_aborted_transactions: bool = False
    origin: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.name.base_offset <= self.start_offset < self.end_offset:
            raise ValueError(f"an entry [{self.start_offset}, {self.end_offset}) in {self.name}")
        if not 0 <= self.start_position < self.log_bytes <= self.object_bytes:
            raise ValueError(f"{self.name}: position {self.start_position} of {self.log_bytes} bytes")

    @property
    def size(self) -> int:
        """Bytes of log that it stands for."""
        return self.log_bytes - self.start_position

    def clipped(self, start_offset: int) -> Entry:
        """Return the entry for what lies at or above an offset that it stands for. The position remains: see there."""
        return replace(self, start_offset=max(start_offset, self.start_offset))

    def key(self, keys: PartitionKeys) -> str:
        """Return the object's key in the bucket."""
        return f"{self.origin}{self.name}" if self.origin else keys.key(self.name)


@dataclass(frozen=True, slots=True)
class PageRef:
    """A page of `count` entries that stand for [start_offset, end_offset).

    `size`: bytes of log that its entries stand for; `object_bytes`: those of their objects. `page_bytes` and `checksum`
    (CRC-32C) are those of the page object itself.
    """

    start_offset: int
    end_offset: int
    name: PageName
    count: int
    size: int
    object_bytes: int
    max_timestamp: int
    page_bytes: int
    checksum: int
    origin: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.start_offset < self.end_offset or self.name.start_offset != self.start_offset:
            raise ValueError(f"a page [{self.start_offset}, {self.end_offset}) named {self.name}")
        if min(self.count, self.size, self.object_bytes, self.page_bytes) <= 0:
            raise ValueError(f"{self.name}: an empty page")

    def holds(self, entries: Sequence[Entry]) -> bool:
        """Whether these can be the entries of this page."""
        return bool(entries) and _sums(entries) == (
            self.start_offset,
            self.end_offset,
            self.count,
            self.size,
            self.object_bytes,
            self.max_timestamp,
        )

    def key(self, keys: PartitionKeys) -> str:
        """Return the page's key in the bucket."""
        return f"{self.origin}{self.name}" if self.origin else keys.key(self.name)


Part: TypeAlias = Entry | PageRef


@dataclass(frozen=True, slots=True)
class Manifest:
    """See the module. `name`: by which epoch and sequence it was, or will be, written.

    `high_watermark` and `written_at_ms` are those of the writing; `epochs` is the history of the records below the end.
    """

    topic_id: UUID
    partition: int
    name: ManifestName
    log_start: int
    end_offset: int
    high_watermark: int
    written_at_ms: int
    epochs: History = ()
    parts: tuple[Part, ...] = ()

    @property
    def upload_from(self) -> int:
        """The first offset that the next entry has to stand for."""
        return max(self.end_offset, self.log_start)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries that are not in pages."""
        return tuple(part for part in self.parts if isinstance(part, Entry))

    @property
    def size(self) -> int:
        """Bytes of log that the parts stand for, those below the log start included."""
        return sum(part.size for part in self.parts)

    @property
    def object_bytes(self) -> int:
        """Bytes of all objects that are named here: what the bucket is paid for."""
        return sum(part.object_bytes for part in self.parts) + sum(
            part.page_bytes for part in self.parts if isinstance(part, PageRef)
        )

    @property
    def entry_count(self) -> int:
        """Entries, those in pages included."""
        return sum(part.count if isinstance(part, PageRef) else 1 for part in self.parts)

    def find(self, offset: int) -> Part | None:
        """Return the entry that stands for `offset`, or the page to load and look into (`find_in`).

        None below the log start, at or above the end, and in a hole.
        """
        return find_in(self.parts, offset) if offset >= self.log_start else None

    def find_timestamp(self, timestamp: int, from_offset: int = 0) -> Part | None:
        """Return the first part that may hold a record at or after `timestamp` (ms), and ends above `from_offset`.

        It may disappoint, because a maximum is that of the whole segment, of which the beginning may be clipped: then
        go on with its end as `from_offset`.
        """
        floor = max(from_offset, self.log_start)
        for part in self.parts:
            if part.end_offset > floor and part.max_timestamp >= timestamp:
                return part
        return None

    def first_from(self, offset: int) -> Part | None:
        """Return the first part that ends above `offset` and the log start: where a scan goes on behind an entry's end."""
        floor = max(offset, self.log_start)
        after = bisect_right(self.parts, floor, key=lambda part: part.end_offset)
        return self.parts[after] if after < len(self.parts) else None


_P = TypeVar("_P", Entry, Part)


def find_in(parts: tuple[_P, ...], offset: int) -> _P | None:
    """Return what stands for `offset`, among the parts of a manifest or the entries of a page."""
    after = bisect_right(parts, offset, key=lambda part: part.start_offset)
    found = parts[after - 1] if after else None
    return found if found is not None and offset < found.end_offset else None


def empty_manifest(topic_id: UUID, partition: int, log_start: int) -> Manifest:
    """Return the manifest of a partition of which nothing is in the bucket. It has no place there yet."""
    return Manifest(
        topic_id,
        partition,
        ManifestName(0, 0),
        log_start=log_start,
        end_offset=log_start,
        high_watermark=log_start,
        written_at_ms=0,
    )


def page_ref(entries: Sequence[Entry], name: PageName, page_bytes: int, checksum: int) -> PageRef:
    """Return the reference to a page of these entries. Raises ValueError if there are none."""
    if not entries:
        raise ValueError("a page without entries")
    start, end, count, size, object_bytes, max_timestamp = _sums(entries)
    return PageRef(start, end, name, count, size, object_bytes, max_timestamp, page_bytes, checksum)


def _sums(entries: Sequence[Entry]) -> tuple[int, int, int, int, int, int]:
    return (
        entries[0].start_offset,
        entries[-1].end_offset,
        len(entries),
        sum(entry.size for entry in entries),
        sum(entry.object_bytes for entry in entries),
        max(entry.max_timestamp for entry in entries),
    )


def check(manifest: Manifest) -> None:
    """Raise ValueError if a manifest contradicts itself."""
    if min(manifest.log_start, manifest.end_offset, manifest.partition) < 0:
        raise ValueError("a negative offset or partition")
    check_history(manifest.epochs)
    if manifest.epochs and manifest.epochs[-1].start_offset >= manifest.end_offset:
        raise ValueError(f"epochs reach beyond the end, {manifest.end_offset}")
    check_sequence(manifest.parts, manifest.log_start)
    if manifest.parts and manifest.parts[-1].end_offset != manifest.end_offset:
        raise ValueError(
            f"parts end at {manifest.parts[-1].end_offset}, the manifest at {manifest.end_offset}"
        )
    if manifest.high_watermark < manifest.end_offset:
        raise ValueError(
            f"the high watermark {manifest.high_watermark} lies below the end {manifest.end_offset}"
        )


def check_sequence(parts: Sequence[Part], log_start: int) -> None:
    """Raise ValueError if parts do not ascend, or leave a hole that is not below the log start."""
    for before, part in pairwise(parts):
        if before.end_offset != part.start_offset and not before.end_offset < part.start_offset <= log_start:
            raise ValueError(f"{part.name} begins at {part.start_offset}, after {before.end_offset}")
