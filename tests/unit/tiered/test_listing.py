"""Listings taken apart: partitions one after the other, topics behind them."""

from __future__ import annotations

from uuid import UUID

from tests.unit.tiered.bucket_support import NEW, ORDERS

from strandline_tiered.keys import (
    ClaimName,
    ManifestName,
    OffsetsName,
    SegmentName,
    TopicKeys,
    TopicManifestName,
)
from strandline_tiered.listing import Grouping, Listing, PartitionListing, TopicListing

SEGMENT = SegmentName(0, 7, UUID(int=1))
OTHER = TopicKeys(NEW, "orders-2", UUID(int=5))


def grouped(keys: list[str]) -> tuple[list[Listing], int]:
    grouping = Grouping()
    found: list[Listing] = []
    for size, key in enumerate(sorted(keys)):
        found += grouping.add(key, size)
    return [*found, *grouping.end()], grouping.foreign


def test_names_come_together_by_partition_and_topic() -> None:
    first, tenth = ORDERS.partition(0), ORDERS.partition(10)
    keys = [
        first.key(SEGMENT),
        first.key(ClaimName(9)),
        first.key(ManifestName(7, 2)),
        first.key(ManifestName(7, 11)),
        tenth.key(OffsetsName(3, 1)),
        ORDERS.key(TopicManifestName(2, 1)),
        ORDERS.key(TopicManifestName(8, 1)),
        OTHER.partition(0).key(SEGMENT),
        "something/else",
        f"{ORDERS.prefix}7/unknown",
    ]
    listings, foreign = grouped(keys)
    assert foreign == 2
    zero, ten, orders, other, alone = listings
    assert isinstance(zero, PartitionListing)
    assert (zero.keys, zero.manifest, zero.claims, zero.highest_epoch) == (
        first,
        ManifestName(7, 11),
        (9,),
        9,
    )
    assert set(zero.sizes) == {SEGMENT, ClaimName(9), ManifestName(7, 2), ManifestName(7, 11)}
    assert isinstance(ten, PartitionListing)
    assert (ten.manifest, ten.offsets, ten.highest_epoch) == (None, OffsetsName(3, 1), 3)
    assert isinstance(orders, TopicListing)
    assert (orders.partitions, orders.manifest, orders.highest_epoch) == ((0, 10), TopicManifestName(8, 1), 8)
    assert other == PartitionListing(OTHER.partition(0), {SEGMENT: other.sizes[SEGMENT]})  # type: ignore[union-attr]
    assert alone == TopicListing(OTHER, (0,), ())


def test_a_topic_may_have_nothing_but_its_manifest() -> None:
    listings, _ = grouped([ORDERS.key(TopicManifestName(1, 1))])
    assert listings == [TopicListing(ORDERS, (), (TopicManifestName(1, 1),))]
    assert grouped([]) == ([], 0)
