from __future__ import annotations

import pytest

from strandline_broker.cluster import cluster_settings, internal_topics
from strandline_broker.cluster.cluster_settings import CLUSTER_SETTINGS, InvalidClusterConfig
from strandline_broker.cluster.topic_config import validate


def test_the_defaults_are_kafkas() -> None:
    made = internal_topics.consumer_offsets({}, brokers=3)
    assert (made.name, made.partitions, made.replication_factor) == ("__consumer_offsets", 50, 3)
    assert made.config == {
        "cleanup.policy": "compact",
        "compression.type": "producer",
        "min.insync.replicas": "2",
        "segment.bytes": "104857600",
    }
    assert validate(made.config) == made.config


@pytest.mark.parametrize(
    ("brokers", "configured", "expected"),
    [(1, None, 1), (5, None, 3), (5, "2", 2), (2, "3", 2), (0, None, 1)],
)
def test_there_are_no_more_replicas_than_brokers(brokers: int, configured: str | None, expected: int) -> None:
    config = {} if configured is None else {"offsets.topic.replication.factor": configured}
    made = internal_topics.consumer_offsets(config, brokers=brokers)
    assert made.replication_factor == expected


@pytest.mark.parametrize(
    ("config", "brokers", "expected"),
    [
        ({}, 1, None),
        ({}, 2, None),
        ({}, 3, "2"),
        ({"offsets.topic.replication.factor": "2"}, 5, None),
        ({"min.insync.replicas": " 1 "}, 3, "1"),
        ({"min.insync.replicas": "3"}, 1, "3"),
    ],
)
def test_commits_are_on_two_replicas_where_there_are_three(
    config: dict[str, str], brokers: int, expected: str | None
) -> None:
    made = internal_topics.consumer_offsets(config, brokers=brokers)
    assert made.config.get("min.insync.replicas") == expected


@pytest.mark.parametrize("text", ["", "none", "0", "-3", "10001", "1.5", "٣"])
def test_numbers_that_make_no_sense_are_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidClusterConfig, match=r"offsets\.topic\.num\.partitions"):
        cluster_settings.check_settings({"offsets.topic.num.partitions": text})


def test_settings_of_internal_topics_are_no_defaults_for_topics() -> None:
    config = {"offsets.topic.num.partitions": "5", "retention.ms": "1"}
    assert cluster_settings.topic_defaults(config) == {"retention.ms": "1"}


def test_other_settings() -> None:
    assert cluster_settings.setting({}, "auto.leader.rebalance.enable") == 1
    assert (
        cluster_settings.setting({"auto.leader.rebalance.enable": " False"}, "auto.leader.rebalance.enable")
        == 0
    )
    most = "reassignment.max.partitions"
    for text in ("yes", "0", ""):
        with pytest.raises(InvalidClusterConfig, match="neither true nor false"):
            cluster_settings.check_settings({"auto.leader.rebalance.enable": text})
        assert cluster_settings.setting_or_default({most: text}, most) == 20
    with pytest.raises(InvalidClusterConfig, match=r"min\.insync\.replicas"):
        internal_topics.consumer_offsets({"min.insync.replicas": "none"}, brokers=3)
    assert all(known.documentation.endswith(".") for known in CLUSTER_SETTINGS.values())
