"""A leadership, a local log and an imagined bucket, for tests of the protocol."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar
from uuid import UUID

from tests.unit.tiered.manifest_support import NOW_MS, TOPIC_ID

from strandline_tiered.epochs import EpochStart
from strandline_tiered.keys import ClaimName, ManifestName, Name, SegmentName
from strandline_tiered.leadership import Context, Leadership, LocalLog
from strandline_tiered.manifest import Entry, Manifest
from strandline_tiered.manifest_format import load_page, make_page
from strandline_tiered.protocol import begin, step
from strandline_tiered.protocol_messages import (
    Delete,
    Deleted,
    Effect,
    Event,
    ListAll,
    Listed,
    ListManifests,
    LogChanged,
    Look,
    ManifestRead,
    NotFound,
    PageRead,
    PageStored,
    PutClaim,
    PutManifest,
    PutPage,
    ReadManifest,
    ReadPage,
    SealedSegment,
    SegmentUploaded,
    Stored,
    Upload,
)

E = TypeVar("E", bound=Effect)
Pairs: TypeAlias = tuple[tuple[int, int], ...]


def log_of(
    end: int,
    *,
    start: int = 0,
    log_start: int = 0,
    size: int = 10,
    epochs: tuple[tuple[int, int], ...] = ((1, 0),),
) -> LocalLog:
    """A log of sealed segments of `size` records, all committed; what is left over is the active segment."""
    sealed = tuple(SealedSegment(base, base + size) for base in range(start, end - size + 1, size))
    return LocalLog(log_start, start, end, end, end, tuple(EpochStart(*pair) for pair in epochs), sealed)


@dataclass
class Leader:
    """One leadership, what it asked for, and the bucket that it works with."""

    epoch: int = 5
    may_write: bool = True
    recovering: bool = False
    local: LocalLog = field(default_factory=lambda: log_of(0))
    bucket: dict[Name, object] = field(default_factory=dict)
    asked: list[Effect] = field(default_factory=list)
    done: list[Effect] = field(default_factory=list)
    max_uploads: int = 2
    uploads: int = 0

    def __post_init__(self) -> None:
        self.state: Leadership
        self.state, effects = begin(
            TOPIC_ID, 3, self.epoch, may_write=self.may_write, recovering=self.recovering
        )
        self.asked += effects

    def hear(self, event: Event) -> None:
        """Take one step; what is asked for waits in `asked`."""
        self.state, effects = step(self.state, event, Context(self.local, NOW_MS, self.max_uploads))
        self.asked += effects

    def grow(self, end: int) -> None:
        """Let the log end at `end`, and the leader notice."""
        grown = log_of(end, start=self.local.start_offset, log_start=self.local.log_start)
        self.local = replace(grown, epochs=self.local.epochs)
        self.hear(LogChanged())

    def take(self, kind: type[E]) -> E:
        """Take the first effect of this kind out of `asked`."""
        found = next(effect for effect in self.asked if isinstance(effect, kind))
        self.asked.remove(found)
        return found

    def waits_for(self, kind: type[Effect]) -> bool:
        return any(isinstance(effect, kind) for effect in self.asked)

    def answer(self, kind: type[Effect]) -> None:
        """Carry out the first effect of this kind."""
        self.carry_out(self.take(kind))

    def run(self) -> None:
        """Carry out whatever is asked for, until nothing is."""
        while self.asked:
            self.carry_out(self.asked.pop(0))

    def carry_out(self, effect: Effect) -> None:
        self.done.append(effect)
        event = self._event(effect)
        if event is not None:
            self.hear(event)

    def _event(self, effect: Effect) -> Event | None:
        match effect:
            case PutClaim(own):
                self.bucket[own] = b""
                return Stored(effect)
            case PutManifest(manifest):
                assert manifest.name not in self.bucket
                self.bucket[manifest.name] = manifest
                return Stored(effect)
            case ListManifests():
                names = [name for name in self.bucket if isinstance(name, ManifestName | ClaimName)]
                return Listed(effect, tuple(names))
            case Look():
                names = [name for name in self.bucket if isinstance(name, ManifestName | ClaimName)]
                return Listed(effect, tuple(name for name in names if name.leader_epoch > self.epoch))
            case ListAll():
                return Listed(effect, tuple(self.bucket))
            case ReadManifest(manifest_name):
                found = self.bucket.get(manifest_name)
                return ManifestRead(manifest_name, found) if isinstance(found, Manifest) else NotFound(effect)
            case Upload():
                return self.uploaded(effect)
            case PutPage(entries):
                page, data = make_page(entries, self.epoch, UUID(int=len(self.bucket)))
                self.bucket[page.name] = data
                return PageStored(page)
            case ReadPage(page):
                stored = self.bucket.get(page.name)
                return (
                    PageRead(page, load_page(page, stored)) if isinstance(stored, bytes) else NotFound(effect)
                )
            case Delete(names):
                for gone in names:
                    self.bucket.pop(gone, None)
                return Deleted(names)
            case _:
                return None

    def uploaded(self, effect: Upload) -> SegmentUploaded:
        """Carry out an upload."""
        self.uploads += 1
        segment = effect.segment
        name = SegmentName(segment.base_offset, self.epoch, UUID(int=self.uploads))
        size = 10 * (segment.end_offset - segment.base_offset)
        position = 10 * (effect.start_offset - segment.base_offset)
        entry = Entry(effect.start_offset, segment.end_offset, name, size + 5, size, position, NOW_MS, NOW_MS)
        self.bucket[name] = segment
        return SegmentUploaded(entry)

    @property
    def truth(self) -> Manifest:
        """The highest manifest in the bucket."""
        name = max(name for name in self.bucket if isinstance(name, ManifestName))
        manifest = self.bucket[name]
        assert isinstance(manifest, Manifest)
        return manifest

    def spans(self) -> list[tuple[int, int]]:
        return [(part.start_offset, part.end_offset) for part in self.truth.parts]


def successor(leader: Leader, **more: object) -> Leader:
    """The next leader, with the same bucket and log."""
    return replace(leader, epoch=leader.epoch + 1, asked=[], done=[], **more)  # type: ignore[arg-type]
