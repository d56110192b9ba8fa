"""Targets of cluster objects: what a store, or a damaged copy on disk, may hand to a broker."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any
from uuid import UUID

import orjson
from tests.fuzz.target import Target

from strandline_broker.cluster.cache import ClusterCache
from strandline_broker.cluster.model import (
    MALFORMED,
    BrokerLease,
    Cluster,
    ClusterState,
    Endpoint,
    PartitionSet,
    PartitionState,
    ReplicaRef,
    Topic,
)

_REFUSALS = MALFORMED

_STATE = PartitionState(
    replicas=(0, 1, 2),
    isr=(ReplicaRef(0, 11), ReplicaRef(1, 12)),
    leader=1,
    leader_epoch=4,
    leader_incarnation="i",
    partition_epoch=9,
    adding=(2,),
    elr=(ReplicaRef(2, 13),),
)
_SET = PartitionSet(
    name="orders-x-0",
    uid="u",
    resource_version="3",
    cluster="dev",
    topic_id=UUID(int=5),
    topic_name="orders",
    slice_index=0,
    config={"min.insync.replicas": "2"},
    deleting=False,
    topic_epoch=1,
    partitions=(_STATE, _STATE),
)
_META = {"name": "dev", "uid": "u", "resourceVersion": "1", "labels": {"strandline.io/cluster": "dev"}}
_LEASE = BrokerLease(
    broker_id=0,
    incarnation="i",
    generation=7,
    listeners={"PLAIN": Endpoint("h", 1)},
    rack="r",
    http=Endpoint("h", 2),
    cluster="dev",
)
_CLUSTER = {"metadata": _META, "spec": {"brokers": 3, "config": {"log.retention.ms": "1"}}, "status": {}}
_TOPIC = {
    "metadata": _META,
    "spec": {"clusterRef": {"name": "dev"}, "partitions": 3, "replicas": 1, "config": {}},
}
_STATE_OBJECT = {
    "metadata": _META,
    "spec": {"nextProducerId": 1000, "brokerConfigs": {}, "purgedTopicIds": []},
}


def _object_target(name: str, parse: Callable[[Any], object], *seeds: Any) -> Target:
    def decode(data: bytes) -> None:
        parse(orjson.loads(data))

    usable = []
    for seed in seeds:
        try:
            parse(seed)
        except _REFUSALS as error:
            raise AssertionError(f"the seed of {name} is out of date: {error!r}") from error
        usable.append(orjson.dumps(seed))
    return Target(name, decode, _REFUSALS, tuple(usable))


def saved_view(data: bytes) -> None:
    """The copy of the cluster state on disk, with the right checksum: a checksum proves no meaning."""
    ClusterCache("dev").from_bytes(b"strandline-view 1 %08x\n%s" % (zlib.crc32(data), data))


def damaged_view(data: bytes) -> None:
    ClusterCache("dev").from_bytes(data)


_SAVED = {"cluster": "dev", "objects": {"PartitionSet": [_SET.to_object()], "Lease": [], "Cluster": []}}

CLUSTER_TARGETS = (
    _object_target("partition-set", PartitionSet.from_object, _SET.to_object()),
    _object_target("lease", BrokerLease.from_object, _LEASE.to_object()),
    _object_target("cluster-object", Cluster.from_object, _CLUSTER),
    _object_target("topic-object", Topic.from_object, _TOPIC),
    _object_target("cluster-state", ClusterState.from_object, _STATE_OBJECT),
    Target("saved-view", saved_view, _REFUSALS, (orjson.dumps(_SAVED),)),
    Target("damaged-view", damaged_view, (ValueError,), (ClusterCache("dev").to_bytes(),)),
)
