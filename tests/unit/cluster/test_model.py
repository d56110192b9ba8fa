"""Objects keep everything on their way to JSON and back, and names are what Kubernetes takes."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.cluster.support import TOPIC_ID, partition, partition_set, topic_object

from strandline_broker.cluster.model import (
    MALFORMED,
    BrokerLease,
    BrokerPhase,
    Cluster,
    ClusterState,
    Endpoint,
    Object,
    PartitionSet,
    PartitionState,
    ReplicaRef,
    StorageReport,
    Topic,
    derive_topic_id,
    is_object_name,
    new_partition_set,
    partition_set_name,
    topic_label,
    topic_object_name,
)
from strandline_broker.log.config import LogConfig

broker_ids = st.integers(0, 500)
members = st.lists(st.builds(ReplicaRef, broker_ids, st.integers(1, 2**53 - 1)), max_size=4).map(tuple)
ids = st.lists(broker_ids, max_size=4).map(tuple)
partitions = st.builds(
    PartitionState,
    replicas=ids,
    adding=ids,
    removing=ids,
    isr=members,
    elr=members,
    leader=st.integers(-1, 500),
    leader_epoch=st.integers(0, 2**31 - 1),
    leader_incarnation=st.text(max_size=8),
    partition_epoch=st.integers(0, 2**31 - 1),
    recovering=st.booleans(),
)
endpoints = st.builds(Endpoint, st.text(max_size=9), st.integers(1, 65535))
topic_names = st.text("abcXYZ019._-", min_size=1, max_size=249)


@given(st.lists(partitions, max_size=5), topic_names, st.booleans(), st.integers(0, 99))
def test_partition_sets_survive_json(
    states: list[PartitionState], name: str, deleting: bool, slice_index: int
) -> None:
    part = PartitionSet(
        name=partition_set_name(name, TOPIC_ID, slice_index),
        uid="u",
        resource_version="5",
        cluster="dev",
        topic_id=TOPIC_ID,
        topic_name=name,
        slice_index=slice_index,
        config={"retention.ms": "5"},
        deleting=deleting,
        deleting_since="2026-01-01T00:00:00Z" if deleting else None,
        topic_epoch=3,
        partitions=tuple(states),
        creation_timestamp="2026-01-01T00:00:00Z",
    )
    assert PartitionSet.from_object(part.to_object()) == part


def test_the_json_shape_of_a_partition_set() -> None:
    state = partition(1, 2, adding=(2,), isr=(ReplicaRef(1, 7),), elr=())
    assert partition_set(state, config={"a": "b"}).to_object() == {
        "apiVersion": "strandline.io/v1alpha1",
        "kind": "PartitionSet",
        "metadata": {
            "name": partition_set_name("orders", TOPIC_ID, 0),
            "labels": {"strandline.io/cluster": "dev", "strandline.io/topic": "orders"},
        },
        "spec": {
            "topicId": str(TOPIC_ID),
            "topicName": "orders",
            "slice": 0,
            "config": {"a": "b"},
            "deleting": False,
            "topicEpoch": 0,
            "partitions": [
                {
                    "replicas": [1, 2],
                    "adding": [2],
                    "removing": [],
                    "leader": 1,
                    "leaderEpoch": 3,
                    "leaderIncarnation": "start-1",
                    "partitionEpoch": 10,
                    "isr": [{"broker": 1, "generation": 7}],
                    "elr": [],
                }
            ],
        },
    }


def test_a_partition_is_recovering_only_where_its_object_says_so() -> None:
    intact, recovering = partition(1), partition(1, recovering=True)
    assert recovering.to_object() == {**intact.to_object(), "recovering": True}
    # As stored before there was such a thing.
    assert "recovering" not in intact.to_object()
    assert not PartitionState.from_object(intact.to_object()).recovering


def test_partitions_are_numbered_across_slices() -> None:
    part = partition_set(partition(1), partition(2), slice_index=3)
    assert part.first_partition == 300
    assert part.partition(301).leader == 2
    for outside in (299, 302, 1):
        with pytest.raises(KeyError):
            part.partition(outside)
    with pytest.raises(ValueError, match="limit"):
        new_partition_set(
            cluster="dev",
            topic_id=TOPIC_ID,
            topic_name="t",
            slice_index=0,
            config={},
            partitions=(partition(1),) * 101,
        )


def test_settings_that_decide_elections_are_read_from_the_config() -> None:
    assert partition_set(partition(1)).min_insync_replicas == 1
    assert not partition_set(partition(1)).unclean_leader_election
    config = {"min.insync.replicas": "2", "unclean.leader.election.enable": "True"}
    assert partition_set(partition(1), config=config).min_insync_replicas == 2
    assert partition_set(partition(1), config=config).unclean_leader_election


@pytest.mark.parametrize(
    ("config", "tierable"),
    [
        ({}, True),
        ({"remote.storage.enable": "true", "cleanup.policy": "delete"}, True),
        ({"remote.storage.enable": "false"}, False),
        ({"cleanup.policy": "compact"}, False),
        ({"cleanup.policy": "compact,delete"}, False),
    ],
)
def test_topics_move_to_the_bucket_as_their_config_says(config: dict[str, str], tierable: bool) -> None:
    assert partition_set(partition(1), config=config).tierable == tierable
    assert LogConfig.from_topic_config(config).tierable == tierable, "brokers see it in the same way"


@given(
    st.builds(
        BrokerLease,
        broker_id=broker_ids,
        incarnation=st.text("abc-", max_size=9),
        generation=st.integers(1, 2**53 - 1),
        listeners=st.dictionaries(st.text("ABC_", min_size=1, max_size=5), endpoints, max_size=3),
        rack=st.none() | st.text("abc", min_size=1),
        state=st.sampled_from(BrokerPhase),
        http=st.none()
        | st.builds(Endpoint, st.sampled_from(["h", "::1", "10.0.0.1"]), st.integers(1, 65535)),
        writable=st.booleans(),
        storage=st.builds(
            StorageReport,
            bucket=st.sampled_from(["", "Ready", "AccessDenied"]),
            message=st.text(max_size=300),
            conditional_writes=st.booleans(),
            away_since=st.sampled_from(["", "2026-01-01T00:00:00Z"]),
            unprotected_since=st.sampled_from(["", "2026-01-01T00:00:00Z"]),
            stuck=st.integers(0, 9),
            producers=st.sampled_from(["free", "throttled", "refused"]),
        ),
        cluster=st.just("dev"),
        lease_duration_ms=st.integers(1, 60).map(lambda seconds: seconds * 1000),
        acquire_time=st.just("2026-01-01T00:00:00.000001Z"),
        renew_time=st.just("2026-01-01T00:00:00.000002Z"),
        transitions=st.integers(0, 9),
        uid=st.just("u"),
        resource_version=st.just("7"),
    )
)
def test_leases_survive_json(lease: BrokerLease) -> None:
    assert BrokerLease.from_object(lease.to_object()) == lease
    assert lease.held == bool(lease.incarnation)
    assert lease.identity.draining == (lease.state is BrokerPhase.DRAINING or not lease.writable)


def test_a_lease_is_one_that_kubernetes_knows() -> None:
    obj = BrokerLease(
        2, "start", 5, {"PLAIN": Endpoint("h", 9092)}, cluster="dev", lease_duration_ms=1500
    ).to_object()
    assert (obj["apiVersion"], obj["kind"], obj["metadata"]["name"]) == (
        "coordination.k8s.io/v1",
        "Lease",
        "dev-broker-2",
    )
    assert obj["spec"]["holderIdentity"] == "start"
    assert obj["spec"]["leaseDurationSeconds"] == 2
    assert all(isinstance(value, str) for value in obj["metadata"]["annotations"].values())
    # One of a broker that knows nothing of it.
    del obj["metadata"]["annotations"]["strandline.io/writable"]
    assert BrokerLease.from_object(obj).writable


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"bucket": 3, "stuck": "x", "producers": null}', '{"stuck": -1}']
)
def test_a_report_that_cannot_be_read_says_nothing(text: str) -> None:
    assert StorageReport.parse(text) == StorageReport()


def test_who_has_nothing_to_report_does_not() -> None:
    assert StorageReport().to_annotation() == ""
    assert len(StorageReport(message="x" * 5000).to_annotation()) < 400


def test_cluster_state_survives_json() -> None:
    state = ClusterState(
        "dev",
        next_producer_id_block=7,
        broker_configs={"default": {"a": "b"}, "1": {}},
        group_configs={"g": {"c": "d"}},
        purged_topic_ids=(TOPIC_ID,),
        cluster_id="5f1c",
        uid="u",
        resource_version="3",
    )
    assert ClusterState.from_object(state.to_object()) == state


def test_views_of_resources_read_the_same_before_and_after_defaulting() -> None:
    bare: Object = {"metadata": {"name": "orders"}, "spec": {"clusterRef": {"name": "dev"}}}
    topic = Topic.from_object(bare)
    assert (topic.topic_name, topic.partitions, topic.replicas, topic.deletion_policy) == (
        "orders",
        1,
        1,
        "Retain",
    )
    named = topic_object("orders-x", topicName="Orders")
    assert Topic.from_object(named).topic_name == "Orders"
    assert not Topic.from_object(named).deleting
    named["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert Topic.from_object(named).deleting
    cluster = Cluster.from_object({"metadata": {"name": "dev"}, "spec": {"flush": "Replicated"}})
    assert (cluster.replicas, cluster.flush_replicated, cluster.kafka_admin) == (3, True, "All")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda obj: obj["spec"].pop("topicId"),
        lambda obj: obj["spec"].update(topicId="x"),
        lambda obj: obj["spec"].update(partitions=None),
        lambda obj: obj["spec"].update(partitions=[5]),
        lambda obj: obj["spec"]["partitions"][0].pop("leader"),
        lambda obj: obj["spec"]["partitions"][0].update(isr=[1]),
        lambda obj: obj.pop("spec"),
        lambda obj: obj.update(spec=None),
        lambda obj: obj.update(metadata=None),
    ],
)
def test_objects_of_another_shape_raise_what_malformed_names(spoil: Any) -> None:
    obj = partition_set(partition(1)).to_object()
    spoil(obj)
    with pytest.raises(MALFORMED):
        PartitionSet.from_object(obj)


# -- names --


@given(topic_names, st.uuids(), st.integers(0, 99))
def test_generated_names_are_legal(name: str, topic_id: UUID, slice_index: int) -> None:
    generated = partition_set_name(name, topic_id, slice_index)
    assert is_object_name(generated)
    assert len(generated) <= 63
    assert is_object_name(topic_object_name(name))
    label = topic_label(name)
    assert 0 < len(label) <= 63
    assert label[0].isalnum()
    assert label[-1].isalnum()


def test_names_that_would_collide_do_not() -> None:
    assert topic_object_name("orders.v1") == "orders.v1"
    assert topic_object_name("Orders") != topic_object_name("orders")
    assert topic_object_name("a_b") != topic_object_name("a.b")
    one, two = UUID(int=1), UUID(int=2)
    assert partition_set_name("a", one, 0) != partition_set_name("a", two, 0)
    assert partition_set_name("A", one, 0) != partition_set_name("a", one, 0)


@given(st.uuids().map(str), topic_names)
def test_topic_ids_are_derived_and_never_look_like_options(uid: str, name: str) -> None:
    topic_id = derive_topic_id(uid, name)
    assert topic_id == derive_topic_id(uid, name)
    assert topic_id != derive_topic_id(uid, name + "x")
    assert topic_id.bytes[0] >> 2 != 62
