from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.tiered.manifest_support import Drawn, entry, histories, manifest_of

from strandline_tiered.manifest import Entry, Manifest, PageRef
from strandline_tiered.manifest_events import LogStartRaised, Spilled, apply
from strandline_tiered.manifest_format import make_page
from strandline_tiered.retention import (
    LocalSegment,
    Policy,
    RemotePlan,
    local_retention,
    remote_retention,
)


def three(*timestamps: int, size: int = 100) -> Manifest:
    return manifest_of(
        *(entry(10 * i, 10 * i + 10, log_bytes=size, max_timestamp=t) for i, t in enumerate(timestamps))
    )


def test_without_limits_nothing_goes() -> None:
    assert remote_retention(three(1, 2, 3), 1 << 40, 1 << 40, Policy()) == RemotePlan(0)


def test_entries_go_by_age_oldest_first() -> None:
    policy = Policy(retention_ms=10)
    assert remote_retention(three(1, 2, 3), 0, 11, policy).log_start == 0
    assert remote_retention(three(1, 2, 3), 0, 12, policy).log_start == 10
    assert remote_retention(three(1, 2, 3), 0, 99, policy).log_start == 30
    assert remote_retention(three(1, 80, 3), 0, 30, policy).log_start == 10, "nothing behind what stays"


@pytest.mark.parametrize("timestamp", [-1, 1 << 60])
def test_strange_timestamps_delay(timestamp: int) -> None:
    assert remote_retention(three(timestamp, 2, 3), 0, 99, Policy(retention_ms=10)).log_start == 0


def test_entries_go_by_size_and_what_stays_is_at_least_the_limit() -> None:
    for limit, log_start in ((300, 0), (299, 0), (201, 0), (200, 10), (100, 20), (0, 30)):
        assert remote_retention(three(1, 2, 3), 0, 0, Policy(retention_bytes=limit)).log_start == log_start


def test_local_bytes_behind_the_end_count() -> None:
    assert remote_retention(three(1, 2, 3), 150, 0, Policy(retention_bytes=300)).log_start == 10


def test_what_is_below_the_log_start_counts_no_more() -> None:
    manifest = apply(three(1, 2, 3), LogStartRaised(10))
    assert remote_retention(manifest, 0, 0, Policy(retention_bytes=200)).log_start == 10


def test_a_clipped_entry_counts_with_what_it_stands_for() -> None:
    manifest = manifest_of(entry(0, 10, log_bytes=100), entry(10, 12, base=0, log_bytes=110, position=100))
    assert remote_retention(manifest, 0, 0, Policy(retention_bytes=100)).log_start == 0


def spilled(manifest: Manifest, count: int) -> tuple[Manifest, PageRef]:
    page, _ = make_page(manifest.entries[:count], 4, UUID(int=1))
    return apply(manifest, Spilled(page)), page


def test_a_page_goes_whole_or_is_needed() -> None:
    manifest, page = spilled(three(1, 5, 20), 2)
    assert remote_retention(manifest, 0, 99, Policy(retention_ms=10)) == RemotePlan(30)
    assert remote_retention(manifest, 0, 16, Policy(retention_ms=10)) == RemotePlan(20)
    assert remote_retention(manifest, 0, 13, Policy(retention_ms=10)) == RemotePlan(0, page)
    assert remote_retention(manifest, 0, 0, Policy(retention_bytes=300)) == RemotePlan(0)
    assert remote_retention(manifest, 0, 0, Policy(retention_bytes=200)) == RemotePlan(0, page)
    assert remote_retention(manifest, 0, 0, Policy(retention_bytes=100)) == RemotePlan(20)


@settings(max_examples=60, deadline=None)
@given(
    histories(), st.integers(0, 1 << 46), st.integers(-1, 1 << 46), st.integers(-1, 1000), st.integers(0, 300)
)
def test_retention_keeps_what_it_promises(
    drawn: Drawn, now_ms: int, age_ms: int, limit: int, local: int
) -> None:
    manifest = drawn.manifest
    policy = Policy(retention_ms=age_ms, retention_bytes=limit)
    log_start, _ = remote_retention(manifest, local, now_ms, policy)
    assert manifest.log_start <= log_start <= max(manifest.end_offset, manifest.log_start)
    before = [part for part in manifest.parts if part.end_offset > manifest.log_start]
    kept = [part for part in before if part.end_offset > log_start]
    for index, part in enumerate(before[: len(before) - len(kept)]):
        young = age_ms < 0 or now_ms - part.max_timestamp <= age_ms
        if young:
            assert limit >= 0
            behind = sum(p.size for p in before[index + 1 :])
            assert behind + local >= limit, "a young part went that the limit had room for"
    if kept and isinstance(kept[0], Entry):
        first = kept[0]
        assert age_ms < 0 or first.max_timestamp < 0 or now_ms - first.max_timestamp <= age_ms
        assert limit < 0 or sum(p.size for p in kept) + local - first.size < limit


LOCAL = [LocalSegment(10 * i + 10, 100, i) for i in range(3)]


def below(
    *, through: int = 100, start: int = 0, now: int = 0, size: int = 400, full: bool = False, **limits: int
) -> int:
    return local_retention(LOCAL, size, through, start, now, Policy(**limits), is_full=full)


def test_local_segments_go_by_size_and_age_once_they_are_tiered() -> None:
    assert below(local_retention_bytes=200) == 20
    assert below(local_retention_bytes=200, through=15) == 10
    assert below(local_retention_bytes=200, through=0) == 0
    assert below(local_retention_ms=10, now=12) == 20
    assert below(local_retention_ms=10, now=12, through=10) == 10


def test_local_limits_are_the_total_ones_unless_they_are_set() -> None:
    assert below(retention_bytes=300) == 10
    assert below(retention_bytes=300, local_retention_bytes=400) == 0
    assert below(retention_ms=10, now=12) == 20
    assert below(retention_ms=10, local_retention_ms=-1, now=12) == 0


def test_nothing_is_below_a_log_start_on_any_disk() -> None:
    assert below(through=0, start=20) == 20
    assert below(through=0, start=19) == 10


def test_a_full_disk_keeps_only_what_is_not_tiered() -> None:
    assert below(through=25, full=True) == 20
    assert below(through=0, full=True) == 0
