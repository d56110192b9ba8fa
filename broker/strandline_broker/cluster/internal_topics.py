"""The topics that a cluster makes for itself, and the Cluster's settings that shape them. Pure.

`__consumer_offsets` is a PartitionSet that the controller makes with the Cluster; it belongs to no Topic object. Its number
of partitions is fixed at that moment: groups are found by it.

Source: Apache Kafka 4.2, `org.apache.kafka.common.internals.Topic`, `GroupCoordinatorConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CONSUMER_OFFSETS = "__consumer_offsets"
TRANSACTION_STATE = "__transaction_state"
SHARE_GROUP_STATE = "__share_group_state"
INTERNAL_TOPICS = frozenset((CONSUMER_OFFSETS, TRANSACTION_STATE, SHARE_GROUP_STATE))

OFFSETS_PARTITIONS = "offsets.topic.num.partitions"
OFFSETS_REPLICATION_FACTOR = "offsets.topic.replication.factor"
OFFSETS_SEGMENT_BYTES = "offsets.topic.segment.bytes"


class InvalidClusterConfig(ValueError):  # noqa: N818 - named like InvalidTopicConfig
    """A setting of `Cluster.spec.config` makes no sense; the text says which and why."""


@dataclass(frozen=True, slots=True)
class ClusterSetting:
    """A whole number in `Cluster.spec.config` that is no default for topics."""

    name: str
    default: int
    minimum: int
    maximum: int
    documentation: str

    def parse(self, text: str) -> int:
        """Return the value of `text`. Raises InvalidClusterConfig."""
        digits = text.strip()
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
            raise InvalidClusterConfig(f"{self.name}: {text!r} is not a whole number")
        value = int(digits)
        if not self.minimum <= value <= self.maximum:
            raise InvalidClusterConfig(f"{self.name}: {value} is not in {self.minimum}..{self.maximum}")
        return value


CLUSTER_SETTINGS: Mapping[str, ClusterSetting] = {
    setting.name: setting
    for setting in (
        ClusterSetting(
            OFFSETS_PARTITIONS,
            50,
            1,
            10_000,
            "Partitions of __consumer_offsets; used when the topic is made, and never after.",
        ),
        ClusterSetting(
            OFFSETS_REPLICATION_FACTOR,
            3,
            1,
            32_767,
            "Replicas of __consumer_offsets, as far as there are brokers; used when the topic is made.",
        ),
        ClusterSetting(
            OFFSETS_SEGMENT_BYTES,
            104_857_600,
            1 << 20,
            (1 << 31) - 1,
            "Segment size of __consumer_offsets: small, so that compaction and loading are quick.",
        ),
    )
}
"""What `Cluster.spec.config` may hold besides defaults for topic configurations."""


@dataclass(frozen=True, slots=True)
class InternalTopic:
    """How an internal topic is made."""

    name: str
    partitions: int
    replication_factor: int
    config: dict[str, str]


def topic_defaults(cluster_config: Mapping[str, str]) -> dict[str, str]:
    """Return the part of `Cluster.spec.config` that is defaults for topics."""
    return {name: text for name, text in cluster_config.items() if name not in CLUSTER_SETTINGS}


def setting(cluster_config: Mapping[str, str], name: str) -> int:
    """Return one of `CLUSTER_SETTINGS`. Raises InvalidClusterConfig."""
    known = CLUSTER_SETTINGS[name]
    text = cluster_config.get(name)
    return known.default if text is None else known.parse(text)


def check_settings(cluster_config: Mapping[str, str]) -> None:
    """Check all settings that are given. Raises InvalidClusterConfig."""
    for name in CLUSTER_SETTINGS:
        setting(cluster_config, name)


def consumer_offsets(cluster_config: Mapping[str, str], *, brokers: int, served_factor: int) -> InternalTopic:
    """Return how `__consumer_offsets` is made on `brokers` brokers. Raises InvalidClusterConfig.

    A cluster smaller than the replication factor gets as many replicas as it has brokers, and never more than
    `served_factor`.
    """
    factor = min(setting(cluster_config, OFFSETS_REPLICATION_FACTOR), max(brokers, 1), served_factor)
    return InternalTopic(
        CONSUMER_OFFSETS,
        setting(cluster_config, OFFSETS_PARTITIONS),
        factor,
        {
            "cleanup.policy": "compact",
            "compression.type": "producer",
            "segment.bytes": str(setting(cluster_config, OFFSETS_SEGMENT_BYTES)),
        },
    )
