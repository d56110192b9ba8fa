"""What somebody without a leadership may say of objects that no manifest needs."""

from __future__ import annotations

import asyncio
from uuid import UUID

from tests.unit.tiered.bucket_support import ORDERS, put_partition

from strandline_tiered.bucket_reads import scan
from strandline_tiered.keys import ClaimName, ManifestName, Name, PageName, SegmentName
from strandline_tiered.listing import PartitionListing
from strandline_tiered.manifest import Manifest
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.scrub_report import Leftover, leftovers

KEYS = ORDERS.partition(0)


def look(*names: Name, paged: int = 0) -> dict[Name, Leftover]:
    """Return what is left over beside a partition of epoch 4 that holds [0, 60)."""

    async def work() -> tuple[PartitionListing, Manifest, set[Name]]:
        store = MemoryStore()
        manifest = await put_partition(
            store, KEYS, (0, 20, 45, 60), epoch=4, sequence=5, paged=paged, claims=(4,)
        )
        named: set[Name] = {
            name for key in store.objects if isinstance(name := KEYS.parse(key), SegmentName | PageName)
        }
        for name in names:
            await store.put(KEYS.key(name), (b"left",))
        listing = await anext(scan(store))
        assert isinstance(listing, PartitionListing)
        return listing, manifest, named

    return {one.name: one for one in leftovers(*asyncio.run(work()))}


def test_of_a_tidy_partition_nothing_is_left_over() -> None:
    assert look() == {}
    assert look(paged=2) == {}


def test_what_lower_epochs_left_is_for_the_leader_to_collect() -> None:
    names = (ClaimName(2), ManifestName(3, 9), SegmentName(20, 3, UUID(int=7)), PageName(0, 3, UUID(int=8)))
    found = look(*names)
    assert set(found) == set(names)
    assert {one.waits_for for one in found.values()} == {""}
    assert found[names[0]].size == 4


def test_what_may_be_published_yet_waits() -> None:
    own, later = SegmentName(60, 4, UUID(int=7)), SegmentName(60, 6, UUID(int=8))
    found = look(own, later, ClaimName(6), ManifestName(4, 3))
    assert "a later epoch than 4" in found[own].waits_for
    assert "a later epoch than 6" in found[later].waits_for
    assert "which deletes its own manifests itself" in found[ManifestName(4, 3)].waits_for
    assert ClaimName(6) not in found


def test_below_a_page_segments_are_hidden_from_a_scrub() -> None:
    hidden, behind = SegmentName(10, 3, UUID(int=7)), SegmentName(45, 3, UUID(int=8))
    found = look(hidden, behind, paged=2)
    assert "pages of old entries" in found[hidden].waits_for
    assert found[behind].waits_for == ""
