"""What a leader's side of tiering asks for (effects), and what it hears (events).

Who uses it: `protocol`; the archiver of a broker, which carries out effects and reports what came of them; the model
checker. Values only.

An effect is carried out at once or later, in order where nothing else is said, and answered by one event: `Stored`,
`Listed`, `ManifestRead`, `PageRead`, `SegmentUploaded`, `PageStored`, `Deleted`; or `NotFound`, `Damaged`; or `Failed`,
after which a write may still have happened, or happen later. Effects come again after `Failed`; to wait, with jitter, is up
to who carries them out. Of `Release`, `ResetLocalLog` and `Report` nothing is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from strandline_tiered.epochs import History
from strandline_tiered.keys import ClaimName, ManifestName, Name
from strandline_tiered.manifest import Entry, Manifest, PageRef


@dataclass(frozen=True, slots=True)
class SealedSegment:
    """A sealed segment of the local log: records [base_offset, end_offset)."""

    base_offset: int
    end_offset: int


# What a leader asks for.


@dataclass(frozen=True, slots=True)
class PutClaim:
    """Store an empty object. Always the same one."""

    name: ClaimName


@dataclass(frozen=True, slots=True)
class ListManifests:
    """List `keys.MANIFESTS` from its beginning."""


@dataclass(frozen=True, slots=True)
class ReadManifest:
    """Read and decode a manifest."""

    name: ManifestName


@dataclass(frozen=True, slots=True)
class ResetLocalLog:
    """Drop the local log, and start again, empty, at an offset, with these epochs, before any other step is taken.

    The producer snapshot of the end of `last` is in its object, if it is an entry, or of the last one in that page. Records
    between that and `start_offset` were deleted.
    """

    start_offset: int
    log_start: int
    epochs: History
    last: Entry | PageRef | None


@dataclass(frozen=True, slots=True)
class Upload:
    """Upload a whole segment under a new name, and report the entry that stands for it from `start_offset` on."""

    start_offset: int
    segment: SealedSegment


@dataclass(frozen=True, slots=True)
class PutPage:
    """Store a page of these entries under a new name."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class ReadPage:
    """Read and decode a page."""

    page: PageRef


@dataclass(frozen=True, slots=True)
class PutManifest:
    """Store a manifest under its name. After `Failed` it is never sent again: the next one has another name."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Look:
    """List `keys.MANIFESTS` behind the own epoch (`PartitionKeys.after_epoch`). `name`: what was written before."""

    name: ManifestName


@dataclass(frozen=True, slots=True)
class ListAll:
    """List everything of the partition, for a scrub."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete objects, whenever."""

    names: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """From now on local segments below `tiered_through` may be deleted here and by followers of this epoch.

    `log_start`: what followers may be told, and readers shown, for good.
    """

    tiered_through: int
    log_start: int


@dataclass(frozen=True, slots=True)
class Report:
    """Tell people: something is wrong that no retry mends. What still works goes on."""

    problem: str


Effect: TypeAlias = (
    PutClaim
    | ListManifests
    | ReadManifest
    | ResetLocalLog
    | Upload
    | PutPage
    | ReadPage
    | PutManifest
    | Look
    | ListAll
    | Delete
    | Release
    | Report
)


# What a leader hears.


@dataclass(frozen=True, slots=True)
class LogChanged:
    """The local log may have changed: it grew, its high watermark rose, a segment was sealed."""


@dataclass(frozen=True, slots=True)
class RaiseLogStart:
    """Retention, or a client, wants records below to be gone. Ignored while not ready: ask again."""

    log_start: int


@dataclass(frozen=True, slots=True)
class PageNeeded:
    """Retention has reached the first page, and has to know its entries."""


@dataclass(frozen=True, slots=True)
class ScrubDue:
    """It is time to look for objects that nobody needs."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A claim or manifest is in the bucket."""

    effect: PutClaim | PutManifest


@dataclass(frozen=True, slots=True)
class Listed:
    """What a listing showed. Names that are none of ours are left out."""

    effect: ListManifests | Look | ListAll
    names: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class ManifestRead:
    """A manifest was read."""

    name: ManifestName
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class PageRead:
    """A page was read."""

    page: PageRef
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class SegmentUploaded:
    """A segment is in the bucket."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class PageStored:
    """A page is in the bucket."""

    page: PageRef


@dataclass(frozen=True, slots=True)
class Deleted:
    """Objects are gone."""

    names: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class NotFound:
    """There is no such object."""

    effect: ReadManifest | ReadPage


@dataclass(frozen=True, slots=True)
class Damaged:
    """An object cannot be decoded, or is of a later version."""

    effect: ReadManifest | ReadPage
    problem: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The bucket is away, or answered with an error: the outcome of a write is unknown."""

    effect: Effect


Event: TypeAlias = (
    LogChanged
    | RaiseLogStart
    | PageNeeded
    | ScrubDue
    | Stored
    | Listed
    | ManifestRead
    | PageRead
    | SegmentUploaded
    | PageStored
    | Deleted
    | NotFound
    | Damaged
    | Failed
)
