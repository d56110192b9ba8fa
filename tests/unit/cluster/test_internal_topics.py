from __future__ import annotations

import pytest

from strandline_broker.cluster import internal_topics
from strandline_broker.cluster.internal_topics import InvalidClusterConfig
from strandline_broker.cluster.topic_config import validate


def test_the_defaults_are_kafkas() -> None:
    made = internal_topics.consumer_offsets({}, brokers=3, served_factor=3)
    assert (made.name, made.partitions, made.replication_factor) == ("__consumer_offsets", 50, 3)
    assert made.config == {
        "cleanup.policy": "compact",
        "compression.type": "producer",
        "segment.bytes": "104857600",
    }
    assert validate(made.config) == made.config


@pytest.mark.parametrize(
    ("brokers", "served", "configured", "expected"),
    [(1, 3, None, 1), (5, 3, None, 3), (5, 1, None, 1), (5, 5, "2", 2), (0, 3, None, 1)],
)
def test_there_are_no_more_replicas_than_brokers_and_than_are_served(
    brokers: int, served: int, configured: str | None, expected: int
) -> None:
    config = {} if configured is None else {"offsets.topic.replication.factor": configured}
    made = internal_topics.consumer_offsets(config, brokers=brokers, served_factor=served)
    assert made.replication_factor == expected


@pytest.mark.parametrize("text", ["", "none", "0", "-3", "10001", "1.5", "٣"])
def test_numbers_that_make_no_sense_are_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidClusterConfig, match=r"offsets\.topic\.num\.partitions"):
        internal_topics.check_settings({"offsets.topic.num.partitions": text})


def test_settings_of_internal_topics_are_no_defaults_for_topics() -> None:
    config = {"offsets.topic.num.partitions": "5", "retention.ms": "1"}
    assert internal_topics.topic_defaults(config) == {"retention.ms": "1"}
