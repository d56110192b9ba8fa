"""What `Cluster.spec.config` may hold besides defaults for topic configurations. Pure.

How `__consumer_offsets` is made, and how the controller moves leaderships and partitions. Kafka's names and meanings where
Kafka has them.

Source: Apache Kafka 4.2, `GroupCoordinatorConfig`, `ReplicationConfigs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OFFSETS_PARTITIONS = "offsets.topic.num.partitions"
OFFSETS_REPLICATION_FACTOR = "offsets.topic.replication.factor"
OFFSETS_SEGMENT_BYTES = "offsets.topic.segment.bytes"
AUTO_LEADER_REBALANCE = "auto.leader.rebalance.enable"
LEADER_IMBALANCE_CHECK_INTERVAL = "leader.imbalance.check.interval.seconds"
REASSIGNMENT_MAX_PARTITIONS = "reassignment.max.partitions"


class InvalidClusterConfig(ValueError):  # noqa: N818 - named like InvalidTopicConfig
    """A setting of `Cluster.spec.config` makes no sense; the text says which and why."""


@dataclass(frozen=True, slots=True)
class ClusterSetting:
    """A setting that is no default for topics: a whole number, or 0 and 1 for `false` and `true`."""

    name: str
    default: int
    minimum: int
    maximum: int
    documentation: str
    flag: bool = False

    def parse(self, text: str) -> int:
        """Return the value of `text`. Raises InvalidClusterConfig."""
        word = text.strip()
        if self.flag:
            if word.lower() not in ("true", "false"):
                raise InvalidClusterConfig(f"{self.name}: {text!r} is neither true nor false")
            return int(word.lower() == "true")
        if not (word.isascii() and word.isdigit() and len(word) <= 10):
            raise InvalidClusterConfig(f"{self.name}: {text!r} is not a whole number")
        value = int(word)
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
            "Replicas of __consumer_offsets, as far as there are brokers; raised when there are more, never lowered.",
        ),
        ClusterSetting(
            OFFSETS_SEGMENT_BYTES,
            104_857_600,
            1 << 20,
            (1 << 31) - 1,
            "Segment size of __consumer_offsets: small, so that compaction and loading are quick.",
        ),
        ClusterSetting(
            AUTO_LEADER_REBALANCE,
            1,
            0,
            1,
            "Whether leaderships return to their preferred replicas by themselves.",
            flag=True,
        ),
        ClusterSetting(
            LEADER_IMBALANCE_CHECK_INTERVAL,
            10,
            1,
            86_400,
            "Time for which every broker must have run undisturbed before leaderships return.",
        ),
        ClusterSetting(
            REASSIGNMENT_MAX_PARTITIONS,
            20,
            1,
            10_000,
            "Partitions that are copied to other brokers at once; the rest wait for their turn.",
        ),
    )
}
"""All of them, by name."""


def topic_defaults(cluster_config: Mapping[str, str]) -> dict[str, str]:
    """Return the part of `Cluster.spec.config` that is defaults for topics."""
    return {name: text for name, text in cluster_config.items() if name not in CLUSTER_SETTINGS}


def setting(cluster_config: Mapping[str, str], name: str) -> int:
    """Return one of `CLUSTER_SETTINGS`. Raises InvalidClusterConfig."""
    known = CLUSTER_SETTINGS[name]
    text = cluster_config.get(name)
    return known.default if text is None else known.parse(text)


def setting_or_default(cluster_config: Mapping[str, str], name: str) -> int:
    """Return one of `CLUSTER_SETTINGS`; its default where what is given makes no sense (the Cluster's status says so)."""
    try:
        return setting(cluster_config, name)
    except InvalidClusterConfig:
        return CLUSTER_SETTINGS[name].default


def check_settings(cluster_config: Mapping[str, str]) -> None:
    """Check all settings that are given. Raises InvalidClusterConfig."""
    for name in CLUSTER_SETTINGS:
        setting(cluster_config, name)
