"""Configurations of brokers and groups that clients may change."""

from __future__ import annotations

import pytest

from strandline_broker.cluster import broker_config, group_config
from strandline_broker.cluster.model import ALL_BROKERS, ClusterState
from strandline_broker.cluster.topic_config import InvalidTopicConfig

# What Apache Kafka 4.2 can change while it runs, of what exists here too.
KAFKAS_LOG_CONFIGS = [
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.type",
    "compression.zstd.level",
    "log.cleaner.delete.retention.ms",
    "log.cleaner.max.compaction.lag.ms",
    "log.cleaner.min.cleanable.ratio",
    "log.cleaner.min.compaction.lag.ms",
    "log.cleanup.policy",
    "log.flush.interval.messages",
    "log.flush.interval.ms",
    "log.index.interval.bytes",
    "log.index.size.max.bytes",
    "log.local.retention.bytes",
    "log.local.retention.ms",
    "log.message.timestamp.after.max.ms",
    "log.message.timestamp.before.max.ms",
    "log.message.timestamp.type",
    "log.preallocate",
    "log.retention.bytes",
    "log.retention.ms",
    "log.roll.jitter.ms",
    "log.roll.ms",
    "log.segment.bytes",
    "log.segment.delete.delay.ms",
    "message.max.bytes",
    "min.insync.replicas",
    "unclean.leader.election.enable",
]


def test_defaults_of_topics_have_kafkas_names() -> None:
    assert sorted(broker_config.TOPIC_DEFAULTS) == KAFKAS_LOG_CONFIGS


def test_every_default_is_valid_and_documented() -> None:
    for table in (group_config.GROUP_CONFIGS, broker_config.DYNAMIC_CONFIGS):
        for name, known in table.items():
            assert known.normalise(known.default) == known.default, name
            assert known.documentation.rstrip("`").endswith("."), name
    assert group_config.validate(group_config.effective({})) == group_config.effective({})
    assert list(group_config.GROUP_CONFIGS) == sorted(group_config.GROUP_CONFIGS)


def test_group_values_are_normalised() -> None:
    assert group_config.validate({"consumer.session.timeout.ms": " 50000 "}) == {
        "consumer.session.timeout.ms": "50000"
    }
    assert group_config.effective({"share.isolation.level": "read_committed"})["share.isolation.level"] == (
        "read_committed"
    )


@pytest.mark.parametrize(
    "text", ["earliest", "latest", "by_duration:P1D", "by_duration:PT36H", "by_duration:P1DT0.5S"]
)
def test_where_share_groups_may_begin(text: str) -> None:
    assert group_config.validate({"share.auto.offset.reset": text}) == {"share.auto.offset.reset": text}


@pytest.mark.parametrize(
    "text",
    ["EARLIEST", "none", "", "by_duration:", "by_duration:P", "by_duration:P1DT", "by_duration:-P1D", "P1D"],
)
def test_where_share_groups_may_not_begin(text: str) -> None:
    with pytest.raises(InvalidTopicConfig, match=r"by_duration:<PnDTnHnMn\.nS>"):
        group_config.validate({"share.auto.offset.reset": text})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("consumer.session.timeout.ms", "44999"),
        ("consumer.session.timeout.ms", "60001"),
        ("consumer.heartbeat.interval.ms", "4999"),
        ("share.record.lock.duration.ms", "14999"),
        ("streams.num.standby.replicas", "3"),
        ("share.isolation.level", "serializable"),
        ("session.timeout.ms", "50000"),
    ],
)
def test_group_values_out_of_range(name: str, text: str) -> None:
    with pytest.raises(InvalidTopicConfig, match=name.replace(".", r"\.")):
        group_config.validate({name: text})


def test_levels_of_brokers() -> None:
    both = {"max.connections": " 7 ", "leader.replication.throttled.rate": "1"}
    assert broker_config.validate(both, one_broker=True) == {**both, "max.connections": "7"}
    assert broker_config.validate(both, one_broker=False) == {**both, "max.connections": "7"}
    with pytest.raises(InvalidTopicConfig, match="hold for all brokers, not for one"):
        broker_config.validate({"log.retention.ms": "1"}, one_broker=True)
    assert broker_config.validate({"log.retention.ms": " 1"}, one_broker=False) == {"log.retention.ms": "1"}
    with pytest.raises(InvalidTopicConfig, match=r"log\.retention\.ms: Invalid value x"):
        broker_config.validate({"log.retention.ms": "x"}, one_broker=False)
    for name in ("leader.replication.throttled.rate", "follower.replication.throttled.rate"):
        with pytest.raises(InvalidTopicConfig, match="at least 0"):
            broker_config.validate({name: "-1"}, one_broker=True)
    with pytest.raises(InvalidTopicConfig, match=r"dynamically: a\.b, node\.id$"):
        broker_config.validate({"node.id": "1", "max.connections": "1", "a.b": ""}, one_broker=True)


STATE = ClusterState(
    "dev",
    broker_configs={
        ALL_BROKERS: {
            "max.connections": "7",
            "producer.id.expiration.ms": "soon",
            "log.retention.ms": "5",
            "log.cleanup.policy": "shrink",
            "segment.ms": "6",
        },
        "1": {
            "max.connections": "8",
            "max.connections.per.ip": "9",
            "leader.replication.throttled.rate": "1",
            "follower.replication.throttled.rate": "-1",
            "replica.alter.log.dirs.io.max.bytes.per.second": "1",
        },
    },
)


def test_what_a_running_broker_uses() -> None:
    assert broker_config.for_broker(STATE, 0) == {"max.connections": "7"}
    assert broker_config.for_broker(STATE, 1) == {
        "max.connections": "8",
        "max.connections.per.ip": "9",
        "leader.replication.throttled.rate": "1",
    }
    assert broker_config.for_broker(None, 0) == {}


def test_what_topics_inherit() -> None:
    assert broker_config.topic_defaults(STATE) == {"retention.ms": "5"}
    assert broker_config.topic_defaults(None) == {}
