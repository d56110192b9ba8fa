"""Manifests for tests: by hand, and drawn by hypothesis."""

from __future__ import annotations

from uuid import UUID

from hypothesis import strategies as st

from strandline_tiered.epochs import EpochStart, History
from strandline_tiered.keys import MAX_EPOCH, MAX_SEQUENCE, ManifestName, PartitionKeys, SegmentName
from strandline_tiered.manifest import Entry, Manifest, PageRef, empty_manifest
from strandline_tiered.manifest_events import (
    EntriesRemoved,
    Event,
    LogStartRaised,
    Spilled,
    Stamped,
    Unspilled,
    Uploaded,
    apply,
    spillable,
)
from strandline_tiered.manifest_format import load_page, make_page

CLUSTER = UUID("0a0b0c0d-0000-4000-8000-000000000001")
TOPIC_ID = UUID("11111111-2222-4333-8444-555555555555")
KEYS = PartitionKeys(CLUSTER, "orders", TOPIC_ID, 3)
FOREIGN = PartitionKeys(UUID(int=9), "orders", UUID(int=10), 3).prefix
NOW_MS = 1_700_000_000_000
HISTORY = (EpochStart(4, 0),)


def entry(
    start: int,
    end: int,
    *,
    base: int | None = None,
    epoch: int = 4,
    number: int | None = None,
    log_bytes: int = 1000,
    position: int = 0,
    max_timestamp: int | None = None,
    aborted: bool = False,
    origin: str = "",
) -> Entry:
    name = SegmentName(start if base is None else base, epoch, UUID(int=end if number is None else number))
    return Entry(
        start_offset=start,
        end_offset=end,
        name=name,
        object_bytes=log_bytes + 50,
        log_bytes=log_bytes,
        start_position=position,
        base_timestamp=NOW_MS + start,
        max_timestamp=NOW_MS + end if max_timestamp is None else max_timestamp,
        has_aborted_transactions=aborted,
        origin=origin,
    )


def manifest_of(*entries: Entry, log_start: int = 0, epochs: History = HISTORY) -> Manifest:
    manifest = empty_manifest(TOPIC_ID, 3, log_start)
    for one in entries:
        manifest = apply(manifest, Uploaded(one, epochs))
    return apply(manifest, Stamped(ManifestName(4, 1), manifest.end_offset, NOW_MS))


class Drawn:
    """A partition whose records have one size and whose manifests follow each other by drawn events."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.manifest = empty_manifest(TOPIC_ID, 3, draw(st.integers(0, 50)))
        self.pages: dict[PageRef, bytes] = {}
        self.history: History = (EpochStart(1, 0),)
        self.happened: list[Event] = []

    def step(self) -> None:
        kind = self.draw(st.sampled_from(("upload", "upload", "upload", "raise", "remove", "spill", "load")))
        event = getattr(self, f"_{kind}")()
        if event is not None:
            self.manifest = apply(self.manifest, event)
            self.happened.append(event)

    def _upload(self) -> Event:
        start = self.manifest.upload_from
        end = start + self.draw(st.integers(1, 20))
        if self.draw(st.booleans()) and start > self.history[-1].start_offset:
            self.history = (*self.history, EpochStart(self.history[-1].epoch + 2, start))
        clipped = self.draw(st.integers(0, min(start, 5)))
        return Uploaded(
            entry(
                start,
                end,
                base=start - clipped,
                epoch=self.history[-1].epoch,
                number=end,
                log_bytes=10 * (end - start + clipped),
                position=10 * clipped,
                max_timestamp=self.draw(st.integers(-1, 1 << 45)),
                aborted=self.draw(st.booleans()),
                origin=self.draw(st.sampled_from(("", "", FOREIGN))),
            ),
            self.history,
        )

    def _raise(self) -> Event:
        return LogStartRaised(self.draw(st.integers(0, self.manifest.end_offset + 10)))

    def _remove(self) -> Event:
        return EntriesRemoved()

    def _spill(self) -> Event | None:
        entries = spillable(self.manifest, tail=0, count=self.draw(st.integers(1, 3)))
        if not entries:
            return None
        page, data = make_page(entries, 1, UUID(int=len(self.pages)))
        self.pages[page] = data
        return Spilled(page)

    def _load(self) -> Event | None:
        first = self.manifest.parts[0] if self.manifest.parts else None
        return Unspilled(load_page(first, self.pages[first])) if isinstance(first, PageRef) else None


@st.composite
def histories(draw: st.DrawFn) -> Drawn:
    history = Drawn(draw)
    for _ in range(draw(st.integers(0, 15))):
        history.step()
    name = ManifestName(draw(st.integers(1, MAX_EPOCH)), draw(st.integers(1, MAX_SEQUENCE)))
    history.manifest = apply(history.manifest, Stamped(name, draw(st.integers(0, 1000)), NOW_MS))
    return history
