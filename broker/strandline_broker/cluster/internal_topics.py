"""The topics that a cluster makes for itself. Pure.

`__consumer_offsets` is a PartitionSet that the controller makes with the Cluster; it belongs to no Topic object. Its number
of partitions is fixed at that moment: groups are found by it. Its replicas become more when the cluster does.

Source: Apache Kafka 4.2, `org.apache.kafka.common.internals.Topic`, `GroupCoordinatorConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from strandline_broker.cluster.cluster_settings import (
    OFFSETS_PARTITIONS,
    OFFSETS_REPLICATION_FACTOR,
    OFFSETS_SEGMENT_BYTES,
    InvalidClusterConfig,
    setting,
)
from strandline_broker.cluster.topic_config import TOPIC_CONFIGS, InvalidTopicConfig

CONSUMER_OFFSETS = "__consumer_offsets"
TRANSACTION_STATE = "__transaction_state"
SHARE_GROUP_STATE = "__share_group_state"
INTERNAL_TOPICS = frozenset((CONSUMER_OFFSETS, TRANSACTION_STATE, SHARE_GROUP_STATE))

_MIN_ISR = "min.insync.replicas"
# With so many replicas, a committed offset must be on two of them, unless the Cluster says otherwise.
_GUARDED_FACTOR = 3


@dataclass(frozen=True, slots=True)
class InternalTopic:
    """How an internal topic is made."""

    name: str
    partitions: int
    replication_factor: int
    config: dict[str, str]


def consumer_offsets(cluster_config: Mapping[str, str], *, brokers: int) -> InternalTopic:
    """Return how `__consumer_offsets` is made on `brokers` brokers. Raises InvalidClusterConfig.

    A cluster smaller than the replication factor gets as many replicas as it has brokers. `min.insync.replicas` is what
    the Cluster says; else 2 from three replicas on, and 1 below.
    """
    factor = min(setting(cluster_config, OFFSETS_REPLICATION_FACTOR), max(brokers, 1))
    config = {
        "cleanup.policy": "compact",
        "compression.type": "producer",
        "segment.bytes": str(setting(cluster_config, OFFSETS_SEGMENT_BYTES)),
    }
    try:
        if _MIN_ISR in cluster_config:
            config[_MIN_ISR] = TOPIC_CONFIGS[_MIN_ISR].normalise(cluster_config[_MIN_ISR])
        elif factor >= _GUARDED_FACTOR:
            config[_MIN_ISR] = "2"
    except InvalidTopicConfig as error:
        raise InvalidClusterConfig(str(error)) from error
    return InternalTopic(CONSUMER_OFFSETS, setting(cluster_config, OFFSETS_PARTITIONS), factor, config)
