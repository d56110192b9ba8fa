"""What a leader tells followers of a tiered partition: where its log begins, what is in the bucket, where to begin."""

from __future__ import annotations

from typing import Any, cast

from tests.unit.api.test_replica_fetch import Follower, Leader, settled

from strandline_broker.errors import ErrorCode
from strandline_broker.replica.partition import Partition
from strandline_broker.replica.tier import PartitionTier
from strandline_broker.wire.fetch import TierNews

KEY = "a/segment.seg"


class Remote:
    """A manifest that ends at 10."""

    end_offset = 10


def tiered(leader: Leader) -> tuple[Partition, PartitionTier]:
    partition = leader.replicas.partitions[0]
    tier = partition.start_tiering()
    tier.remote = cast("Any", Remote())
    for _ in range(5):
        leader.write(0)
    return partition, tier


def give_up_locally(partition: Partition, offset: int) -> None:
    """Let the local log begin at `offset`, as after local retention."""
    partition.log.advance_start(offset)


def test_news_is_told_once_and_soon() -> None:
    leader = Leader(1)
    _, tier = tiered(leader)
    follower = settled(leader)
    assert follower.waiting is not None
    tier.authorise(3, KEY)
    rows = follower.turn(0.05)
    assert rows is not None
    assert rows[0].tier == TierNews(3, 0, KEY)
    follower.settle()
    leader.write(0)
    rows = follower.turn()
    assert rows is not None
    assert (rows[0].tier, len(rows[0].records) > 0) == (None, True)


def test_the_log_start_of_both_tiers_is_told() -> None:
    leader = Leader(1)
    partition, tier = tiered(leader)
    tier.authorise(4, KEY)
    follower = settled(leader)
    partition.raise_log_start(1)
    give_up_locally(partition, 4)
    rows = follower.turn(0.05)
    assert rows is not None
    assert rows[0].log_start_offset == 1


def test_who_lacks_what_is_only_in_the_bucket_begins_behind_it() -> None:
    leader = Leader(1)
    partition, tier = tiered(leader)
    tier.authorise(4, KEY)
    give_up_locally(partition, 3)
    follower = Follower(leader)
    follower.ends[0] = 2
    follower.fetch()
    assert follower.rows is not None
    row = follower.rows[0]
    assert (row.error_code, row.log_start_offset) == (ErrorCode.OFFSET_MOVED_TO_TIERED_STORAGE, 0)
    assert row.tier == TierNews(4, 3, KEY)
    assert partition.leadership is not None
    assert not partition.leadership.followers, "what it has does not count"


def test_a_new_replica_begins_behind_the_bucket_although_more_is_here() -> None:
    leader = Leader(1)
    _, tier = tiered(leader)
    tier.authorise(4, KEY)
    new = Follower(leader)
    new.fetch()
    assert new.rows is not None
    assert new.rows[0].error_code == ErrorCode.OFFSET_MOVED_TO_TIERED_STORAGE
    behind = Follower(leader)
    behind.ends[0] = 2
    behind.fetch()
    assert behind.rows is not None
    assert (behind.rows[0].error_code, len(behind.rows[0].records) > 0) == (0, True), (
        "it has a log: it copies on"
    )


def test_a_leader_that_has_not_looked_gives_what_it_has() -> None:
    leader = Leader(1)
    partition, tier = tiered(leader)
    tier.forget_role()
    new = Follower(leader)
    new.fetch()
    assert new.rows is not None
    assert len(new.rows[0].records)
    give_up_locally(partition, 3)
    other = Follower(leader)
    other.fetch()
    assert other.rows is not None
    assert other.rows[0].tier == TierNews(0, 3, "")
