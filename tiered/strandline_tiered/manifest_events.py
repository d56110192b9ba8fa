"""How a manifest changes: `apply(manifest, event) -> manifest`.

Who uses it: the leader that writes manifests, and the model checker. Pure. Nothing here touches a bucket: an event tells
what already happened there (`Uploaded`, `Spilled`, `Unspilled`), or what readers shall see from the next manifest on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TypeAlias

from strandline_tiered.epochs import History, extended, without_before
from strandline_tiered.keys import ManifestName
from strandline_tiered.manifest import Entry, Manifest, PageRef, Part


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
    """`page.count` entries, from the first one behind the last page, are in a page of the bucket."""

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
            kept, entries = manifest.parts[: _behind_pages(manifest)], spillable(manifest, page.count)
            if not page.holds(entries):
                raise ValueError(f"{page.name} does not hold the {page.count} entries that are to spill")
            rest = manifest.parts[len(kept) + len(entries) :]
            return replace(manifest, parts=(*kept, page, *rest))
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
    log_start = manifest.log_start
    return tuple(takewhile(lambda entry: entry.end_offset <= log_start, _leading(manifest.parts)))


def spillable(manifest: Manifest, count: int) -> tuple[Entry, ...]:
    """Return the entries that a page of `count` would hold, fewer if there are fewer."""
    behind = manifest.parts[_behind_pages(manifest) :]
    return tuple(_leading(behind))[:count]


def _leading(parts: tuple[Part, ...]) -> Iterator[Entry]:
    for part in parts:
        if not isinstance(part, Entry):
            return
        yield part


def _behind_pages(manifest: Manifest) -> int:
    """Return the index of the first part behind the last page."""
    pages = [index for index, part in enumerate(manifest.parts) if isinstance(part, PageRef)]
    return pages[-1] + 1 if pages else 0


def _holds(part: Part, entries: tuple[Entry, ...]) -> bool:
    return isinstance(part, PageRef) and part.holds(entries)
