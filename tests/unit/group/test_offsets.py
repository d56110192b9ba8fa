"""The offset store: transactions of replayed logs, order of writing; housekeeping in slices."""

from __future__ import annotations

import random
from uuid import UUID

import pytest
from tests.unit.group.support import Driver

from strandline_broker.errors import ErrorCode
from strandline_broker.group.config import GroupConfig
from strandline_broker.group.records import (
    OffsetKey,
    OffsetValue,
    decode_key,
    decode_offset_value,
    encode_group_key,
    encode_offset_key,
    encode_offset_value,
)
from strandline_broker.group.requests import (
    CommitRequest,
    DeleteOffsetsRequest,
    FetchOffsetsRequest,
    PartitionCommit,
    TopicCommit,
    TopicPartitions,
)
from strandline_broker.group.shard import GroupShard
from strandline_tiered.offsets_snapshot import CommittedOffset, TopicPartition


def replayed(*records: tuple[str, int | None, int]) -> GroupShard:
    """Return a shard that read (topic, offset or None, producer id) of partition 0 of group g."""
    shard = GroupShard(GroupConfig(), random.Random(0))
    for position, (topic, offset, producer_id) in enumerate(records):
        value = None if offset is None else encode_offset_value(OffsetValue(offset, -1, "", 0))
        key = encode_offset_key("g", topic, 0)
        shard.replay(key, value, offset=position, timestamp_ms=0, producer_id=producer_id)
    return shard


def fetch(shard: GroupShard, topic: str = "a", *, stable: bool = False) -> int | ErrorCode:
    body = shard.fetch_offsets(
        FetchOffsetsRequest("g", (TopicPartitions(topic, (0,)),), require_stable=stable)
    )
    partition = body["topics"][0]["partitions"][0]
    answer: int | ErrorCode = partition["error_code"] or partition["committed_offset"]
    return answer


def test_an_open_transaction_makes_offsets_unstable() -> None:
    shard = replayed(("a", 1, -1), ("a", 2, 77))
    assert fetch(shard) == 1
    assert fetch(shard, stable=True) is ErrorCode.UNSTABLE_OFFSET_COMMIT
    assert fetch(shard, "b", stable=True) == -1


@pytest.mark.parametrize(("committed", "offset"), [(True, 2), (False, 1)])
def test_the_end_of_a_transaction(committed: bool, offset: int) -> None:
    shard = replayed(("a", 1, -1), ("a", 2, 77))
    shard.replay_end_transaction(77, committed=committed)
    assert fetch(shard, stable=True) == offset
    shard.replay_end_transaction(77, committed=True)
    assert fetch(shard) == offset


def test_the_last_written_wins_over_a_transaction_that_ends_later() -> None:
    shard = replayed(("a", 2, 77), ("a", 3, -1))
    shard.replay_end_transaction(77, committed=True)
    assert fetch(shard) == 3


def test_a_commit_after_loading_is_later_than_anything_loaded() -> None:
    driver = Driver(GroupConfig())
    driver.shard = replayed(*[("a", 2, 77)] * 5)
    commit = CommitRequest("g", (TopicCommit("a", (PartitionCommit(0, 9),)),))
    driver.carry_out(driver.shard.commit_offsets(driver.ask("t"), commit, 0))
    driver.shard.replay_end_transaction(77, committed=True)
    assert fetch(driver.shard) == 9


def test_a_tombstone_ends_what_a_transaction_holds() -> None:
    shard = replayed(("a", 2, 77), ("a", None, -1))
    assert fetch(shard, stable=True) == -1
    shard.replay_end_transaction(77, committed=True)
    assert fetch(shard) == -1


def test_offsets_in_a_transaction_can_be_deleted_and_do_not_expire() -> None:
    driver = Driver(GroupConfig(offsets_retention_minutes=1))
    driver.shard = replayed(("a", 1, -1), ("a", 2, 77))
    driver.carry_out(driver.shard.expire_offsets(10**9))
    assert fetch(driver.shard) == 1
    assert [entry["group_id"] for entry in driver.shard.list_groups()] == ["g"]
    request = DeleteOffsetsRequest("g", (TopicPartitions("a", (0,)),))
    driver.carry_out(driver.shard.delete_offsets(driver.ask("t"), request, 10**9))
    assert fetch(driver.shard, stable=True) == -1


def test_a_group_whose_only_offset_is_in_a_transaction_stays() -> None:
    driver = Driver(GroupConfig(offsets_retention_minutes=1))
    driver.shard = replayed(("a", 2, 77))
    driver.carry_out(driver.shard.expire_offsets(10**9))
    assert [entry["group_id"] for entry in driver.shard.list_groups()] == ["g"]
    driver.carry_out(driver.shard.partitions_deleted(["a"], 10**9))
    assert driver.lines[-2:] == ["append 1: offset g a-0 tombstone", "committed 1"]


def test_broken_and_unknown_records() -> None:
    shard = replayed(("a", 1, -1))
    with pytest.raises(ValueError, match="broken offset"):
        shard.replay(encode_offset_key("g", "a", 0), b"\x00\x03", offset=9, timestamp_ms=0)
    with pytest.raises(ValueError, match="broken group"):
        shard.replay(encode_group_key("g"), b"\x00\x03", offset=9, timestamp_ms=0)
    with pytest.raises(ValueError, match="broken key"):
        shard.replay(b"\x00", b"", offset=9, timestamp_ms=0)
    shard.replay(b"\x00\x05\x00\x01g", b"a record of another kind of group", offset=9, timestamp_ms=0)
    assert fetch(shard) == 1


def big(groups: int, partitions: int) -> Driver:
    driver = Driver(GroupConfig(offsets_retention_minutes=1), auto_commit=False)
    for number in range(groups):
        for partition in range(partitions):
            key = encode_offset_key(f"g{number}", "a", partition)
            value = encode_offset_value(OffsetValue(1, -1, "", 0))
            driver.shard.replay(key, value, offset=0, timestamp_ms=0)
    return driver


@pytest.mark.parametrize(("groups", "partitions"), [(1, 1_700), (1_000, 2)])
def test_expiry_goes_in_slices(groups: int, partitions: int) -> None:
    driver = big(groups, partitions)
    driver.now_ms = 60_000
    driver.carry_out(driver.shard.expire_offsets(driver.now_ms))
    driver.run_until(driver.now_ms)
    sizes = [len(effects.records) for _, effects in driver.in_flight]
    assert sum(sizes) == groups * partitions + groups
    assert max(sizes) <= 501
    while driver.in_flight:
        driver.commit_next()
    assert driver.shard.list_groups() == []
    assert driver.timers == {("expiry",): 660_000}


def test_deleted_topics_go_in_slices() -> None:
    driver = big(3, 600)
    driver.carry_out(driver.shard.partitions_deleted(["a", "b"], 0))
    driver.run_until(0)
    sizes = [len(effects.records) for _, effects in driver.in_flight]
    assert sizes == [500, 500, 500, 300]
    while driver.in_flight:
        driver.commit_next()
    assert all(not driver.shard.fetch_offsets(FetchOffsetsRequest(f"g{n}", None))["topics"] for n in range(3))
    assert len(driver.shard.list_groups()) == 3


# -- out of the bucket --


def test_of_a_snapshot_a_shard_takes_what_it_lacks_as_it_was_committed() -> None:
    shard = replayed(("a", 7, -1), ("b", None, -1))
    topic_id = UUID(int=9)
    snapshot = {
        "g": {
            TopicPartition("a", 0): CommittedOffset(3, 1, "older", 5),
            TopicPartition("b", 0): CommittedOffset(4, 2, "text", 6, topic_id=topic_id),
        },
        "h": {TopicPartition("a", 2): CommittedOffset(5, -1, "", 7, expires_at_ms=8)},
    }
    records = list(shard.lacking_offsets(snapshot))
    assert [(decode_key(key), decode_offset_value(value)) for key, value in records] == [
        (OffsetKey("g", "b", 0), OffsetValue(4, 2, "text", 6, topic_id=topic_id)),
        (OffsetKey("h", "a", 2), OffsetValue(5, -1, "", 7, 8)),
    ]
    for position, (key, value) in enumerate(records, 2):
        shard.replay(key, value, offset=position, timestamp_ms=0)
    assert (fetch(shard, "a"), fetch(shard, "b")) == (7, 4)
    assert list(shard.lacking_offsets(snapshot)) == []
    assert {group["group_id"] for group in shard.list_groups()} == {"g", "h"}
