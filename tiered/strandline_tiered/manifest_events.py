"""How a manifest changes: `apply(manifest, event) -> manifest`.

Who uses it: the leader that writes manifests, and the model checker. Pure. Nothing here touches a bucket: an event tells
what already happened there (`Uploaded`, `Spilled`, `Unspilled`), or what readers shall see from the next manifest on.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import TypeAlias

from strandline_tiered.epochs import History, extended, without_before
from strandline_tiered.keys import ManifestName
from strandline_tiered.manifest import PAGE_ENTRIES, TAIL_ENTRIES, Entry, Manifest, PageRef, Part


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A segment object is in the bucket. `epochs`: the leader's history, of which what lies below its end is taken."""

    entry: Entry
    epochs: History = ()


@dataclass(frozen=True, slots=True)
class LogStartRaised:
    """Records below are gone for readers. A lower log start than there is changes nothing: it never falls."""

    log_start: int


@dataclass(frozen=True, slots=True)
class EntriesRemoved:
    """Entries that end at or below the log start are forgotten, up to the first page."""


@dataclass(frozen=True, slots=True)
class Spilled:
    """`page.count` entries, from the one that begins where the page does, are in a page of the bucket."""

    page: PageRef


@dataclass(frozen=True, slots=True)
class Unspilled:
    """The first part, a page, was loaded; its entries stand in the manifest again: retention has reached them."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Stamped:
    """What the manifest is written as: its name, the high watermark, and the wall clock (ms), which decides nothing."""

    name: ManifestName
    high_watermark: int
    now_ms: int


Event: TypeAlias = Uploaded | LogStartRaised | EntriesRemoved | Spilled | Unspilled | Stamped


def apply(manifest: Manifest, event: Event) -> Manifest:
    """Return the manifest after an event.

    Raises ValueError for an event that does not fit: an entry that leaves a hole or overlaps, a page that holds other
    entries than the first ones, a name that does not rise.
    """
    match event:
        case Uploaded():
            return _uploaded(manifest, event)
        case LogStartRaised(log_start):
            return replace(manifest, log_start=max(manifest.log_start, log_start))
        case EntriesRemoved():
            rest = manifest.parts[len(removable(manifest)) :]
            return replace(manifest, parts=rest, epochs=without_before(manifest.epochs, manifest.log_start))
        case Spilled(page):
            first = _index_of(manifest, page.start_offset)
            behind = first + page.count
            if not page.holds(_entries(manifest.parts[first:behind])):
                raise ValueError(f"{page.name} does not hold the {page.count} entries that are to spill")
            return replace(manifest, parts=(*manifest.parts[:first], page, *manifest.parts[behind:]))
        case Unspilled(entries):
            if not manifest.parts or not _holds(manifest.parts[0], entries):
                raise ValueError("these are not the entries of the first page")
            return replace(manifest, parts=(*entries, *manifest.parts[1:]))
        case Stamped(name, high_watermark, now_ms):
            if name <= manifest.name:
                raise ValueError(f"{name} does not rise above {manifest.name}")
            high_watermark = max(high_watermark, manifest.end_offset)
            return replace(manifest, name=name, high_watermark=high_watermark, written_at_ms=now_ms)


def _uploaded(manifest: Manifest, event: Uploaded) -> Manifest:
    entry = event.entry
    if entry.start_offset != manifest.upload_from:
        raise ValueError(f"{entry.name} begins at {entry.start_offset}, not at {manifest.upload_from}")
    return replace(
        manifest,
        parts=(*manifest.parts, entry),
        end_offset=entry.end_offset,
        epochs=extended(manifest.epochs, event.epochs, entry.end_offset),
    )


def removable(manifest: Manifest) -> tuple[Entry, ...]:
    """Return the entries that `EntriesRemoved` would remove."""
    gone: list[Entry] = []
    for part in manifest.parts:
        if isinstance(part, PageRef) or part.end_offset > manifest.log_start:
            break
        gone.append(part)
    return tuple(gone)


def spillable(manifest: Manifest, tail: int = TAIL_ENTRIES, count: int = PAGE_ENTRIES) -> tuple[Entry, ...]:
    """Return the entries for the next page, none while there are few.

    These are the oldest `count` behind the last page, once there are more than `tail`. Where there is no page, the first
    `count` stay: they are where retention goes on, and would only be loaded again.
    """
    behind = _entries(manifest.parts)
    if not any(isinstance(part, PageRef) for part in manifest.parts):
        behind = behind[count:]
    return behind[:count] if len(behind) > tail else ()


def _entries(parts: tuple[Part, ...]) -> tuple[Entry, ...]:
    """Return the entries behind the last page among these."""
    entries: list[Entry] = []
    for part in reversed(parts):
        if isinstance(part, PageRef):
            break
        entries.append(part)
    return tuple(reversed(entries))


def _index_of(manifest: Manifest, start_offset: int) -> int:
    return bisect_left(manifest.parts, start_offset, key=lambda part: part.start_offset)


def _holds(part: Part, entries: tuple[Entry, ...]) -> bool:
    return isinstance(part, PageRef) and part.holds(entries)
