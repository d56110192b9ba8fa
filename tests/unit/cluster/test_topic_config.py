"""Topic configurations are accepted and refused exactly as Kafka 4.2 does (recorded from its LogConfig)."""

from __future__ import annotations

import pytest

from strandline_broker.cluster import topic_config
from strandline_broker.cluster.topic_config import InvalidTopicConfig


@pytest.mark.parametrize(
    ("name", "text", "stored"),
    [
        ("cleanup.policy", "", ""),
        ("cleanup.policy", "compact, delete", "compact,delete"),
        ("cleanup.policy", "delete,delete", "delete"),
        ("segment.bytes", " 1048576 ", "1048576"),
        ("segment.bytes", "+1048576", "1048576"),
        ("internal.segment.bytes", "4096", "4096"),
        ("retention.bytes", "-5", "-5"),
        ("retention.ms", "-1", "-1"),
        ("preallocate", " TRUE ", "true"),
        ("compression.gzip.level", "-1", "-1"),
        ("compression.type", " gzip ", "gzip"),
        ("min.cleanable.dirty.ratio", "5e-1", "0.5"),
        ("leader.replication.throttled.replicas", "*", "*"),
        ("leader.replication.throttled.replicas", "0:1, 1:2", "0:1,1:2"),
    ],
)
def test_valid_values_come_back_in_canonical_spelling(name: str, text: str, stored: str) -> None:
    assert topic_config.validate({name: text}) == {name: stored}


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("cleanup.policy", "Delete", "String must be one of: compact, delete"),
        ("cleanup.policy", ",", "must not be empty"),
        ("segment.bytes", "1048575", "Value must be at least 1048576"),
        ("segment.bytes", "1e6", "Not a number of type INT"),
        ("segment.bytes", "1_048_576", "Not a number of type INT"),
        ("max.message.bytes", "2147483648", "Not a number of type INT"),
        ("retention.ms", "9223372036854775808", "Not a number of type LONG"),
        ("retention.ms", "-2", "Value must be at least -1"),
        ("retention.ms", "", "Not a number of type LONG"),
        ("preallocate", "yes", "Expected value to be either true or false"),
        ("compression.gzip.level", "0", "Value must be at least 1"),
        ("compression.lz4.level", "18", "Value must be no more than 17"),
        ("compression.zstd.level", "-131073", "Value must be at least -131072"),
        ("compression.type", "GZIP", "String must be one of"),
        ("min.cleanable.dirty.ratio", "1.1", "Value must be no more than 1"),
        ("min.cleanable.dirty.ratio", "abc", "Not a number of type DOUBLE"),
        ("min.cleanable.dirty.ratio", "nan", "Not a number of type DOUBLE"),
        ("leader.replication.throttled.replicas", "x", "must be the literal"),
        ("message.timestamp.type", "createtime", "String must be one of"),
        ("min.insync.replicas", "0", "Value must be at least 1"),
        ("message.format.version", "2.8", "Unknown topic config name: message.format.version"),
        ("retention.mss", "1", r"Unknown topic config name: retention.mss \(did you mean retention.ms\?\)"),
    ],
)
def test_invalid_values_are_refused_with_the_reason(name: str, text: str, why: str) -> None:
    with pytest.raises(InvalidTopicConfig, match=why):
        topic_config.validate({name: text})


@pytest.mark.parametrize(
    "configs",
    [
        {"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "5"},
        {"remote.storage.enable": "true", "cleanup.policy": "compact"},
        {"remote.storage.enable": "true", "retention.ms": "100", "local.retention.ms": "101"},
        {"remote.storage.enable": "true", "retention.bytes": "100", "local.retention.bytes": "-1"},
        {
            "remote.storage.enable": "true",
            "remote.log.copy.disable": "true",
            "retention.ms": "100",
            "local.retention.ms": "10",
        },
    ],
)
def test_refused_combinations(configs: dict[str, str]) -> None:
    with pytest.raises(InvalidTopicConfig):
        topic_config.validate(configs, tiering=True)


def test_tiering_needs_a_bucket() -> None:
    topic_config.validate({"remote.storage.enable": "true"}, tiering=True)
    with pytest.raises(InvalidTopicConfig, match="needs a bucket"):
        topic_config.validate({"remote.storage.enable": "true"})


def test_combinations_see_the_defaults() -> None:
    with pytest.raises(InvalidTopicConfig):
        topic_config.validate({"max.compaction.lag.ms": "5"}, defaults={"min.compaction.lag.ms": "10"})


def test_effective_prefers_the_topic_then_the_broker_then_kafka() -> None:
    values = topic_config.effective({"retention.ms": "1"}, {"retention.ms": "2", "segment.ms": "3"})
    assert (values["retention.ms"], values["segment.ms"], values["segment.bytes"]) == ("1", "3", "1073741824")
    assert "internal.segment.bytes" not in values


def test_defaults_are_valid() -> None:
    for config in topic_config.TOPIC_CONFIGS.values():
        assert config.normalise(config.default) == config.default
        assert config.documentation.endswith(".")
    assert list(topic_config.TOPIC_CONFIGS) == sorted(topic_config.TOPIC_CONFIGS)
