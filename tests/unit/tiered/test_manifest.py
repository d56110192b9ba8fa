from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.tiered.manifest_support import FOREIGN, KEYS, NOW_MS, Drawn, entry, histories, manifest_of

from strandline_tiered.epochs import EpochStart, epoch_at
from strandline_tiered.keys import ManifestName
from strandline_tiered.manifest import Entry, PageRef, check, find_in
from strandline_tiered.manifest_events import (
    EntriesRemoved,
    LogStartRaised,
    Spilled,
    Stamped,
    Unspilled,
    Uploaded,
    apply,
    removable,
    spillable,
)
from strandline_tiered.manifest_format import load_page, make_page

THREE = (entry(0, 10), entry(10, 25), entry(25, 30))


def test_an_entry_follows_the_end() -> None:
    manifest = manifest_of(*THREE)
    assert (manifest.end_offset, manifest.upload_from, manifest.entry_count) == (30, 30, 3)
    for start in (29, 31):
        with pytest.raises(ValueError, match=f"begins at {start}, not at 30"):
            apply(manifest, Uploaded(entry(start, 40)))


def test_a_segment_that_covers_the_end_is_clipped() -> None:
    clipped = entry(30, 40, base=20, log_bytes=1000, position=400)
    manifest = apply(manifest_of(*THREE), Uploaded(clipped))
    assert manifest.size == 3 * 1000 + 600, "what an entry does not stand for counts twice otherwise"
    assert manifest.object_bytes == 4 * 1050
    assert manifest.find(29) == THREE[2]
    assert manifest.find(30) == clipped


def test_the_log_start_never_falls() -> None:
    manifest = apply(apply(manifest_of(*THREE), LogStartRaised(12)), LogStartRaised(5))
    assert manifest.log_start == 12
    assert manifest.find(11) is None
    assert manifest.find(12) == THREE[1]


def test_entries_leave_only_below_the_log_start() -> None:
    manifest = apply(manifest_of(*THREE), LogStartRaised(24))
    assert removable(manifest) == THREE[:1]
    manifest = apply(manifest, EntriesRemoved())
    assert manifest.entries == THREE[1:]
    assert manifest.end_offset == 30


def test_uploads_go_on_at_a_log_start_beyond_the_end() -> None:
    manifest = apply(manifest_of(*THREE), LogStartRaised(50))
    assert manifest.upload_from == 50
    with_hole = apply(manifest, Uploaded(entry(50, 60, base=45, position=3)))
    check(replace(with_hole, high_watermark=60))
    assert removable(with_hole) == THREE
    emptied = apply(manifest, EntriesRemoved())
    assert emptied.parts == ()
    assert emptied.end_offset == 30
    assert apply(emptied, Uploaded(entry(50, 60))).end_offset == 60


def test_an_object_of_another_cluster_keeps_its_key() -> None:
    assert entry(0, 5, origin=FOREIGN).key(KEYS).startswith(FOREIGN)
    assert entry(0, 5).key(KEYS).startswith(KEYS.prefix)


def test_old_entries_spill_and_come_back() -> None:
    manifest = manifest_of(*THREE)
    page, data = make_page(manifest.entries[:2], 4, UUID(int=1))
    spilled = apply(manifest, Spilled(page))
    assert spilled.parts == (page, THREE[2])
    assert (spilled.size, spilled.entry_count) == (manifest.size, 3)
    found = spilled.find(10)
    assert found == page
    assert find_in(load_page(page, data), 10) == THREE[1]
    assert spilled.find_timestamp(NOW_MS + 20) == page
    assert apply(spilled, Unspilled(load_page(page, data))) == manifest


def test_a_page_of_other_entries_is_refused() -> None:
    manifest = manifest_of(*THREE)
    page, _ = make_page((entry(10, 30),), 4, UUID(int=1))
    with pytest.raises(ValueError, match="does not hold"):
        apply(manifest, Spilled(page))
    first, _ = make_page(THREE[:2], 4, UUID(int=1))
    with pytest.raises(ValueError, match="not the entries"):
        apply(apply(manifest, Spilled(first)), Unspilled(THREE[:1]))
    with pytest.raises(ValueError, match="not the entries"):
        apply(manifest, Unspilled(THREE[:1]))


def test_what_spills_is_the_oldest_that_retention_does_not_need_next() -> None:
    manifest = manifest_of(*(entry(i, i + 1) for i in range(8)))
    assert spillable(manifest, tail=6, count=2) == ()
    first = spillable(manifest, tail=5, count=2)
    assert first == manifest.entries[2:4]
    page, _ = make_page(first, 4, UUID(int=1))
    spilled = apply(manifest, Spilled(page))
    assert spilled.parts == (*manifest.entries[:2], page, *manifest.entries[4:])
    assert spillable(spilled, tail=4, count=2) == ()
    assert spillable(spilled, tail=3, count=2) == manifest.entries[4:6]


def test_removal_stops_at_a_page() -> None:
    manifest = manifest_of(*THREE)
    page, _ = make_page(THREE[:2], 4, UUID(int=1))
    manifest = apply(apply(manifest, Spilled(page)), LogStartRaised(30))
    assert removable(manifest) == ()
    assert apply(manifest, EntriesRemoved()).parts == (page, THREE[2])


def test_names_rise() -> None:
    manifest = manifest_of(*THREE)
    for name in (manifest.name, ManifestName(3, 9)):
        with pytest.raises(ValueError, match="does not rise"):
            apply(manifest, Stamped(name, 30, NOW_MS))
    later = apply(manifest, Stamped(ManifestName(5, 1), 12, NOW_MS))
    assert later.high_watermark == 30, "whatever is uploaded is committed"


def test_lookup_by_timestamp_finds_the_first_that_may_hold_it() -> None:
    manifest = manifest_of(
        *(entry(10 * i, 10 * i + 10, max_timestamp=t) for i, t in enumerate((5, 9, 7, 12)))
    )
    first, second, _, last = manifest.entries
    assert manifest.find_timestamp(3) == first
    assert manifest.find_timestamp(8) == second
    assert manifest.find_timestamp(8, from_offset=20) == last
    assert manifest.find_timestamp(13) is None
    assert apply(manifest, LogStartRaised(20)).find_timestamp(3) == manifest.entries[2]


def test_scans_go_on_behind_an_entry() -> None:
    manifest = manifest_of(*THREE)
    assert manifest.first_from(10) == THREE[1]
    assert manifest.first_from(30) is None
    assert apply(manifest, LogStartRaised(25)).first_from(0) == THREE[2]


@pytest.mark.parametrize(
    ("start", "end", "base", "position"), [(5, 5, 5, 0), (5, 9, 6, 0), (5, 9, 5, 1000), (-1, 9, -1, 0)]
)
def test_an_entry_that_cannot_be_is_refused(start: int, end: int, base: int, position: int) -> None:
    with pytest.raises(ValueError, match=r"an entry|position"):
        entry(start, end, base=base, position=position)


def test_epochs_are_those_of_what_is_uploaded() -> None:
    leader = (EpochStart(1, 0), EpochStart(3, 12), EpochStart(4, 40))
    manifest = manifest_of(*THREE, epochs=leader)
    assert manifest.epochs == leader[:2]
    manifest = apply(apply(manifest, LogStartRaised(26)), EntriesRemoved())
    assert manifest.epochs == leader[1:2]


@settings(max_examples=40, deadline=None)
@given(histories())
def test_every_manifest_is_consistent_and_finds_what_it_stands_for(drawn: Drawn) -> None:
    manifest = drawn.manifest
    check(manifest)
    loaded = {page: load_page(page, data) for page, data in drawn.pages.items()}
    expected: dict[int, Entry] = {}
    removed_below = min([part.start_offset for part in manifest.parts], default=manifest.end_offset)
    for event in drawn.happened:
        if isinstance(event, Uploaded):
            one = event.entry
            expected |= dict.fromkeys(range(max(one.start_offset, manifest.log_start), one.end_offset), one)
    for offset in range(manifest.end_offset + 5):
        part = manifest.find(offset)
        found = find_in(loaded[part], offset) if isinstance(part, PageRef) else part
        assert found == expected.get(offset)
        if found is not None:
            assert offset >= removed_below
            assert epoch_at(manifest.epochs, offset) == epoch_at(drawn.history, offset)
    flat = [e for part in manifest.parts for e in (loaded[part] if isinstance(part, PageRef) else (part,))]
    assert manifest.size == sum(e.size for e in flat)
    assert manifest.entry_count == len(flat)


@settings(max_examples=40, deadline=None)
@given(histories(), st.integers(-2, 1 << 45), st.integers(0, 200))
def test_lookup_by_timestamp_misses_nothing(drawn: Drawn, timestamp: int, floor: int) -> None:
    manifest = drawn.manifest
    found = manifest.find_timestamp(timestamp, floor)
    candidates = [
        part
        for part in manifest.parts
        if part.max_timestamp >= timestamp and part.end_offset > max(floor, manifest.log_start)
    ]
    assert found == (candidates[0] if candidates else None)
