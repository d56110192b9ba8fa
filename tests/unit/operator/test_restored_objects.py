"""The cluster objects that a restore makes: without a leader, recovering, above every epoch in the bucket."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from tests.unit.tiered.bucket_support import NEW, OFFSETS, OLD, ORDERS

from strandline_broker.cluster.model import NO_LEADER, PartitionSet, Topic
from strandline_operator.cli.restored_objects import ANNOTATION_RESTORED_FROM, make_objects, tiers
from strandline_operator.validation import ManifestError
from strandline_operator.validation.definitions import definitions
from strandline_operator.validation.structural import schema_problems, unknown_fields
from strandline_tiered.keys import ManifestName, OffsetsName, TopicKeys, TopicManifestName
from strandline_tiered.manifest import empty_manifest
from strandline_tiered.offsets_snapshot import OffsetsSnapshot
from strandline_tiered.restore_offsets import OffsetsPlan
from strandline_tiered.restore_plan import PartitionPlan, Tiers, TopicPlan
from strandline_tiered.topic_manifest import TopicManifest


def topic(
    name: str = "orders",
    partitions: int = 2,
    *,
    replicas: int = 3,
    config: Mapping[str, str] | None = None,
    definition_only: bool = False,
) -> TopicPlan:
    keys = TopicKeys(NEW, name, ORDERS.topic_id)
    manifest = TopicManifest(
        name, keys.topic_id, TopicManifestName(4, 1), 0, partitions, replicas, dict(config or {})
    )
    plans = tuple(
        PartitionPlan(
            keys.partition(number),
            replace(empty_manifest(keys.topic_id, number, 0), name=ManifestName(number + 5, 1)),
        )
        for number in range(partitions)
    )
    return TopicPlan(keys, manifest, () if definition_only else plans)


def made(
    *topics: TopicPlan, offsets: OffsetsPlan | None = None, brokers: int = 3
) -> tuple[list[PartitionSet], list[Topic]]:
    objects = make_objects(topics, offsets or OffsetsPlan(), source=OLD, cluster="dev", brokers=brokers)
    for obj in (*objects.partition_sets, *objects.topics):
        assert obj["metadata"]["annotations"] == {ANNOTATION_RESTORED_FROM: str(OLD)}
        schema = definitions()[obj["kind"]].schema
        assert not [*unknown_fields(obj, schema), *schema_problems(obj["kind"], obj)]
    return (
        [PartitionSet.from_object(obj) for obj in objects.partition_sets],
        [Topic.from_object(obj) for obj in objects.topics],
    )


def test_partitions_have_no_leader_and_are_recovering() -> None:
    ((found,), (declared,)) = made(topic(config={"retention.ms": "-1", "segment.bytes": "1048576"}))
    assert (found.topic_id, found.topic_name, found.cluster) == (ORDERS.topic_id, "orders", "dev")
    assert found.config == {"retention.ms": "-1", "segment.bytes": "1048576"}
    for number, state in enumerate(found.partitions):
        assert (state.leader, state.leader_epoch, state.isr, state.elr) == (NO_LEADER, number + 5, (), ())
        assert state.recovering
        assert sorted(state.replicas) == [0, 1, 2]
    assert (declared.name, declared.topic_name, declared.cluster) == ("orders", "orders", "dev")
    assert (declared.partitions, declared.replicas, declared.config) == (2, 3, found.config)


def test_names_that_kubernetes_does_not_allow_are_kept() -> None:
    ((found,), (declared,)) = made(topic("Orders_1"))
    assert (found.topic_name, declared.topic_name) == ("Orders_1", "Orders_1")
    assert declared.name.startswith("orders-1-")


def test_offsets_come_first_and_slice_0_last() -> None:
    snapshots = tuple(OffsetsSnapshot(number, OffsetsName(9, 1), 0, {}) for number in range(120))
    offsets = OffsetsPlan(TopicKeys(NEW, OFFSETS.topic, OFFSETS.topic_id), 9, snapshots)
    found, _ = made(topic(partitions=201), offsets=offsets)
    assert [(one.topic_name, one.slice_index, len(one.partitions)) for one in found] == [
        ("__consumer_offsets", 1, 20),
        ("__consumer_offsets", 0, 100),
        ("orders", 2, 1),
        ("orders", 1, 100),
        ("orders", 0, 100),
    ]
    assert {state.leader_epoch for one in found[:2] for state in one.partitions} == {9}
    assert [state.leader_epoch for state in found[2].partitions] == [205]
    assert found[0].config["cleanup.policy"] == "compact"
    assert found[0].config["min.insync.replicas"] == "2"
    leaders = Counter(state.replicas[0] for one in found for state in one.partitions)
    assert max(leaders.values()) - min(leaders.values()) <= 3


def test_fewer_brokers_than_replicas_get_as_many_as_there_are() -> None:
    ((found,), (declared,)) = made(topic(config={"min.insync.replicas": "2"}), brokers=1)
    assert {state.replicas for state in found.partitions} == {(0,)}
    assert (declared.replicas, declared.config["min.insync.replicas"]) == (3, "2")


def test_a_minimum_that_was_a_default_of_the_cluster_fits_a_topic_with_fewer_replicas() -> None:
    ((found,), (declared,)) = made(topic(replicas=1, config={"min.insync.replicas": "2"}))
    assert found.config["min.insync.replicas"] == declared.config["min.insync.replicas"] == "1"


def test_of_a_definition_only_the_topic_is_made() -> None:
    found, (declared,) = made(topic(config={"cleanup.policy": "compact"}, definition_only=True))
    assert found == []
    assert (declared.topic_name, declared.partitions) == ("orders", 2)


def test_a_configuration_that_no_topic_may_have_is_refused() -> None:
    with pytest.raises(ManifestError, match="orders"):
        made(
            topic(config={"cleanup.policy": "compact", "remote.storage.enable": "true"}, definition_only=True)
        )


def test_which_topics_are_tiered() -> None:
    assert tiers({}) is tiers({"remote.storage.enable": "true"}) is Tiers.YES
    assert tiers({"remote.storage.enable": "false"}) is Tiers.SWITCHED_OFF
    assert tiers({"cleanup.policy": "compact,delete"}) is Tiers.NEVER
