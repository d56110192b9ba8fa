"""Every write tests what it was decided from."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.cluster.support import partition, partition_set, refs

from strandline_broker.cluster import json_patch
from strandline_broker.cluster.model import PartitionSet
from strandline_broker.cluster.patches import Patch, patch_partition, patch_partitions, patch_topic_epoch
from strandline_broker.cluster.transitions import (
    add_partitions,
    change_config,
    mark_deleting,
    shrink_isr,
    unmark_deleting,
)


def applied(part: PartitionSet, patch: Patch) -> PartitionSet:
    """Return what a store would make of it."""
    obj = part.to_object()
    assert not json_patch.failed_tests(obj, patch.tests)
    return PartitionSet.from_object(json_patch.apply(obj, patch.operations))


def test_a_partition_patch_tests_its_epoch_and_the_topics() -> None:
    part = partition_set(partition(1, 2), partition(2, 1), slice_index=1)
    state = shrink_isr(part.partition(101), out_of_sync=[1], min_isr=1)
    patch = patch_partition(part, 101, state)
    assert patch.tests == [("/spec/topicEpoch", 0), ("/spec/partitions/1/partitionEpoch", 10)]
    assert applied(part, patch).partitions == (part.partitions[0], state)


def test_many_partitions_go_in_one_patch() -> None:
    part = partition_set(*(partition(1, 2) for _ in range(3)))
    new = {index: shrink_isr(part.partition(index), out_of_sync=[2], min_isr=1) for index in (2, 0)}
    after = applied(part, patch_partitions(part, new))
    assert after.partitions == (new[0], part.partitions[1], new[2])


def test_a_change_without_a_new_epoch_is_a_mistake() -> None:
    part = partition_set(partition(1, 2))
    with pytest.raises(ValueError, match="epoch"):
        patch_partition(part, 0, replace(part.partitions[0], isr=refs(1)))
    with pytest.raises(KeyError):
        patch_partition(part, 5, part.partitions[0])


def test_topic_changes_reach_the_store_completely() -> None:
    part = partition_set(
        partition(1, 2, 3, isr=refs(1), elr=refs(2)), partition(1, 2, 3), config={"min.insync.replicas": "2"}
    )
    for changed in (
        change_config(part, {}),
        change_config(part, {"min.insync.replicas": "2", "retention.ms": "1"}),
        mark_deleting(part, "2026-01-01T00:00:00Z"),
        add_partitions(part, [partition(3, 1, partition_epoch=0)] * 2),
    ):
        patch = patch_topic_epoch(part, changed)
        assert patch.tests[0] == ("/spec/topicEpoch", 0)
        assert applied(part, patch) == changed
    lowered = patch_topic_epoch(part, change_config(part, {}))
    assert ("/spec/partitions/0/partitionEpoch", 10) in lowered.tests
    assert ("/spec/partitions/1/partitionEpoch", 10) not in lowered.tests
    deleting = mark_deleting(part, "2026-01-01T00:00:00Z")
    assert mark_deleting(deleting, "2027-01-01T00:00:00Z") is deleting
    assert applied(deleting, patch_topic_epoch(deleting, unmark_deleting(deleting))) == replace(
        part, topic_epoch=2
    )
    assert unmark_deleting(part) is part


def test_a_topic_change_needs_the_next_epoch_and_keeps_partitions() -> None:
    part = partition_set(partition(1), partition(1))
    with pytest.raises(ValueError, match="epoch"):
        patch_topic_epoch(part, part)
    with pytest.raises(ValueError, match="lost"):
        patch_topic_epoch(part, replace(part, partitions=part.partitions[:1], topic_epoch=1))
    with pytest.raises(ValueError, match="slice"):
        add_partitions(part, [partition(1)] * 99)
    assert add_partitions(part, []) is part


def test_an_isr_change_decided_before_a_config_change_is_refused() -> None:
    part = partition_set(partition(1, 2), config={"min.insync.replicas": "2"})
    shrink = patch_partition(part, 0, shrink_isr(part.partitions[0], out_of_sync=[2], min_isr=2))
    stored = applied(part, patch_topic_epoch(part, change_config(part, {})))
    failed = json_patch.failed_tests(stored.to_object(), shrink.tests)
    assert failed == [("/spec/topicEpoch", 0, 1)]
