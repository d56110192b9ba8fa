"""The cluster objects of a restored cluster: PartitionSets and Topics, from the plan for its bucket. Pure.

Used by `strandline tier restore`. Partitions are made without a leader and with nobody in sync: nobody's volume has their
records, the bucket has them. They are *recovering* (design 7.3): the first broker that leads one begins at the manifest's
end, in an epoch above the one that stands here, and takes records only behind a manifest of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from strandline_broker.cluster import internal_topics, topic_config, transitions
from strandline_broker.cluster.model import (
    SLICE_SIZE,
    TOPIC,
    Object,
    PartitionState,
    new_object,
    new_partition_set,
    topic_object_name,
)
from strandline_operator.validation import validate
from strandline_tiered.restore_offsets import OffsetsPlan
from strandline_tiered.restore_plan import TIERING, Tiers, TopicPlan

ANNOTATION_RESTORED_FROM = "strandline.io/restored-from"
"""Id of the cluster whose records these are."""
_MIN_ISR = "min.insync.replicas"


@dataclass(frozen=True, slots=True)
class RestoredObjects:
    """What is created, in this order: offsets and whole topics before the objects that name them."""

    partition_sets: tuple[Object, ...]
    topics: tuple[Object, ...]


def tiers(config: Mapping[str, str]) -> Tiers:
    """Say whether a topic of a cluster with a bucket is tiered (design 7.2)."""
    if topic_config.is_compacted(config):
        return Tiers.NEVER
    return Tiers.SWITCHED_OFF if config.get(TIERING) == "false" else Tiers.YES


def make_objects(
    topics: Sequence[TopicPlan],
    offsets: OffsetsPlan,
    *,
    source: UUID,
    cluster: str,
    brokers: int,
    cluster_config: Mapping[str, str] | None = None,
) -> RestoredObjects:
    """Return the objects for a cluster of `brokers` brokers, numbered from 0.

    Replicas go where they are fewest; a topic that had more of them than there are brokers gets as many as there are, and
    its Topic still asks for all. Raises ManifestError for a configuration that a Topic may not have, InvalidClusterConfig.
    """
    load = transitions.Load()
    sets: list[Object] = []

    def make(
        name: str, topic_id: UUID, config: Mapping[str, str], factor: int, epochs: Sequence[int]
    ) -> None:
        replicas = transitions.assign_replicas(
            len(epochs), min(factor, brokers), [(broker, None) for broker in range(brokers)], load=load
        )
        for chosen in replicas:
            load.replicas.update(chosen)
            load.leaders.update(chosen[:1])
        states = [
            PartitionState(replicas=chosen, isr=(), leader_epoch=epoch, recovering=True)
            for chosen, epoch in zip(replicas, epochs, strict=True)
        ]
        sets.extend(_slices(name, topic_id, dict(config), states, cluster, source))

    if offsets.keys is not None:
        internal = internal_topics.consumer_offsets(cluster_config or {}, brokers=brokers)
        epochs = [offsets.leader_epoch] * len(offsets.snapshots)
        make(internal.name, offsets.keys.topic_id, internal.config, internal.replication_factor, epochs)
    for topic in topics:
        if topic.partitions:
            manifest = topic.manifest
            epochs = [partition.leader_epoch for partition in topic.partitions]
            make(manifest.topic, manifest.topic_id, _config(topic), manifest.replicas, epochs)
    return RestoredObjects(
        tuple(sets), tuple(_topic_object(topic, cluster=cluster, source=source) for topic in topics)
    )


def _config(topic: TopicPlan) -> dict[str, str]:
    """Return a topic's configuration. A minimum in sync above the replicas, as a Cluster's default may be, is lowered."""
    config = dict(topic.manifest.config)
    if int(config.get(_MIN_ISR, "1")) > topic.manifest.replicas:
        config[_MIN_ISR] = str(topic.manifest.replicas)
    return config


def _slices(
    name: str,
    topic_id: UUID,
    config: dict[str, str],
    states: Sequence[PartitionState],
    cluster: str,
    source: UUID,
) -> Iterator[Object]:
    """Yield the slices of a topic; slice 0 comes last: with it the topic appears, and should appear whole."""
    for first in reversed(range(0, len(states), SLICE_SIZE)):
        made = new_partition_set(
            cluster=cluster,
            topic_id=topic_id,
            topic_name=name,
            slice_index=first // SLICE_SIZE,
            config=config,
            partitions=tuple(states[first : first + SLICE_SIZE]),
        )
        obj = made.to_object()
        obj["metadata"]["annotations"] = {ANNOTATION_RESTORED_FROM: str(source)}
        yield obj


def _topic_object(topic: TopicPlan, *, cluster: str, source: UUID) -> Object:
    manifest = topic.manifest
    name = topic_object_name(manifest.topic)
    spec = {
        "clusterRef": {"name": cluster},
        **({} if name == manifest.topic else {"topicName": manifest.topic}),
        "partitions": manifest.partitions,
        "replicas": manifest.replicas,
        "config": _config(topic),
    }
    return validate(new_object(TOPIC, name, spec, annotations={ANNOTATION_RESTORED_FROM: str(source)}))
