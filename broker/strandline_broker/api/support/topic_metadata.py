"""One topic as Metadata shows it to a client of one listener. Pure.

Source: Apache Kafka 4.2, `KRaftMetadataCache.getPartitionMetadata`.
"""

from __future__ import annotations

from collections.abc import Sequence

from strandline_broker.api.support.brokers import is_live, offline_replicas
from strandline_broker.api.support.topic_names import is_internal
from strandline_broker.cluster.cache import ClusterCache, TopicView
from strandline_broker.cluster.model import NO_LEADER, PartitionState
from strandline_broker.errors import ErrorCode
from strandline_broker.wire.metadata import MetadataPartition, MetadataTopic

_FIRST_WITH_LISTENER_NOT_FOUND = 6


def describe_topic(
    view: ClusterCache,
    topic: TopicView,
    *,
    version: int,
    listener: str,
    own_id: int = -1,
    silent: frozenset[int] = frozenset(),
    authorized_operations: int,
) -> MetadataTopic:
    """Return a topic with its partitions, leaders and replicas; `silent` as for `offline_replicas`."""
    live = {broker_id for broker_id, lease in view.leases.items() if is_live(lease) or broker_id == own_id}
    reachable = {broker_id for broker_id in live if listener in view.leases[broker_id].listeners}
    return MetadataTopic(
        ErrorCode.NONE,
        topic.topic_name,
        topic.topic_id.bytes,
        is_internal(topic.topic_name),
        [_partition(index, state, live, reachable, silent, version) for index, state in topic.partitions()],
        authorized_operations,
    )


def _partition(
    index: int,
    state: PartitionState,
    live: set[int],
    reachable: set[int],
    silent: frozenset[int],
    version: int,
) -> MetadataPartition:
    replicas: Sequence[int] = state.replicas
    isr: Sequence[int] = state.isr_ids
    offline = offline_replicas(state, reachable, silent)
    error = ErrorCode.NONE
    leader = state.leader
    if leader not in reachable:
        error = ErrorCode.LEADER_NOT_AVAILABLE
        if leader in live and version >= _FIRST_WITH_LISTENER_NOT_FOUND:
            error = ErrorCode.LISTENER_NOT_FOUND
        leader = NO_LEADER
    if version == 0:
        # The oldest clients must not be told of brokers that are not in the list of brokers.
        shown, shown_isr = [r for r in replicas if r in reachable], [r for r in isr if r in reachable]
        if error is ErrorCode.NONE and (len(shown) < len(replicas) or len(shown_isr) < len(isr)):
            error = ErrorCode.REPLICA_NOT_AVAILABLE
        replicas, isr = shown, shown_isr
    return MetadataPartition(error, index, leader, state.leader_epoch, replicas, isr, offline)
