"""Configurations of brokers that can be changed while they run, through the Kafka admin API. Pure.

They are kept in `ClusterState.brokerConfigs`: by broker id, or under `ALL_BROKERS` as the default for all. A
broker's own value wins over the default, and that over what the broker was started with. Three kinds:

- settings of a running broker (`RUNNING`), for one broker or for all;
- defaults of topic configurations, under their broker-level names (`log.retention.ms`): for all brokers only,
  because a topic has one configuration wherever its partitions live. They win over `Cluster.spec.config`;
- throttles of replication (`THROTTLES`), for one broker or for all, as `kafka-reassign-partitions --throttle` sets and
  clears them.

Everything else is read when a broker starts and is refused here.

Source: Apache Kafka 4.2, `DynamicBrokerConfig`, `DynamicConfig.Broker`.
"""

from __future__ import annotations

from collections.abc import Mapping

from strandline_broker.cluster.model import ALL_BROKERS, ClusterState
from strandline_broker.cluster.topic_config import TOPIC_CONFIGS
from strandline_broker.cluster.topic_config_values import LONG_MAX, ConfigType, InvalidTopicConfig
from strandline_broker.cluster.topic_config_values import TopicConfig as ConfigKey

__all__ = [
    "DYNAMIC_CONFIGS",
    "RUNNING",
    "THROTTLES",
    "TOPIC_DEFAULTS",
    "for_broker",
    "topic_defaults",
    "validate",
]

_INT_MAX = (1 << 31) - 1


def _throttle(name: str, documentation: str, *, supported: bool = True) -> ConfigKey:
    return ConfigKey(name, ConfigType.LONG, str(LONG_MAX), documentation, minimum=0, supported=supported)


RUNNING: Mapping[str, ConfigKey] = {
    config.name: config
    for config in (
        ConfigKey(
            "max.connections", ConfigType.INT, "10000", "Connections at once.", minimum=1, maximum=_INT_MAX
        ),
        ConfigKey(
            "max.connections.per.ip",
            ConfigType.INT,
            "10000",
            "Connections at once from one address.",
            minimum=1,
            maximum=_INT_MAX,
        ),
        ConfigKey(
            "producer.id.expiration.ms",
            ConfigType.INT,
            "86400000",
            "Idle time after which an idempotent producer's sequence is forgotten.",
            minimum=1,
        ),
    )
}
"""Settings that a running broker takes over, with Kafka's names; their defaults are those of `BrokerConfig`."""

THROTTLES: Mapping[str, ConfigKey] = {
    config.name: config
    for config in (
        _throttle(
            "follower.replication.throttled.rate",
            "Bytes per second that a broker receives of the replicas in follower.replication.throttled.replicas.",
        ),
        _throttle(
            "leader.replication.throttled.rate",
            "Bytes per second that a broker sends of the replicas in leader.replication.throttled.replicas.",
        ),
        _throttle(
            "replica.alter.log.dirs.io.max.bytes.per.second",
            "Bytes per second of moves between directories. Accepted, without effect: a broker has one.",
            supported=False,
        ),
    )
}
"""Limits of replication; shown only where they are set, as in Kafka."""

TOPIC_DEFAULTS: Mapping[str, str] = {
    config.broker_synonyms[0]: config.name for config in TOPIC_CONFIGS.values() if config.broker_synonyms
}
"""Topic configuration that each broker-level name is the default of."""

DYNAMIC_CONFIGS: Mapping[str, ConfigKey] = {
    **RUNNING,
    **THROTTLES,
    **{name: TOPIC_CONFIGS[topic_name] for name, topic_name in TOPIC_DEFAULTS.items()},
}
"""Every name that can be altered; defaults of topics stand under their broker-level names."""


def validate(configs: Mapping[str, str], *, one_broker: bool) -> dict[str, str]:
    """Return the given dynamic configurations in canonical spelling.

    `one_broker`: they are for one broker, not for all. Raises InvalidTopicConfig, whose text is for the user,
    for what is not dynamic at all or not at this level, and for values out of range.
    """
    fixed = sorted(configs.keys() - DYNAMIC_CONFIGS.keys())
    if fixed:
        raise InvalidTopicConfig(f"Cannot update these configs dynamically: {', '.join(fixed)}")
    shared = sorted(configs.keys() & TOPIC_DEFAULTS.keys()) if one_broker else []
    if shared:
        raise InvalidTopicConfig(
            f"These configs hold for all brokers, not for one of them: {', '.join(shared)}. "
            "Leave the broker id out to change the default."
        )
    return {name: _normalise(name, text) for name, text in configs.items()}


def _normalise(name: str, text: str) -> str:
    known = DYNAMIC_CONFIGS[name]
    try:
        return known.normalise(text)
    except InvalidTopicConfig as error:
        if name == known.name:
            raise
        raise InvalidTopicConfig(f"{name}: {error}") from error


def topic_defaults(state: ClusterState | None) -> dict[str, str]:
    """Return the dynamic defaults of topic configurations, under their topic-level names.

    What does not make sense (it was written around the admin API) is left out.
    """
    defaults = {}
    for name, text in (state.broker_configs.get(ALL_BROKERS, {}) if state is not None else {}).items():
        topic_name = TOPIC_DEFAULTS.get(name)
        if topic_name is None:
            continue
        try:
            defaults[topic_name] = TOPIC_CONFIGS[topic_name].normalise(text)
        except InvalidTopicConfig:
            continue
    return defaults


def for_broker(state: ClusterState | None, broker_id: int) -> dict[str, str]:
    """Return the dynamic settings that one running broker is to use, each if set and valid.

    They are those of `RUNNING`, and the throttles that have an effect.
    """
    if state is None:
        return {}
    given = {**state.broker_configs.get(ALL_BROKERS, {}), **state.broker_configs.get(str(broker_id), {})}
    settings = {}
    for name, known in (*RUNNING.items(), *THROTTLES.items()):
        if name not in given or not known.supported:
            continue
        try:
            settings[name] = known.normalise(given[name])
        except InvalidTopicConfig:
            continue
    return settings
