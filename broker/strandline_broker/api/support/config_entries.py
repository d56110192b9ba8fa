"""Configurations as DescribeConfigs and CreateTopics report them: value, source, meaning. Pure.

Source: Apache Kafka 4.2, `ConfigHelper`, `DescribeConfigsResponse.ConfigSource`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from strandline_broker.cluster.topic_config import TOPIC_CONFIGS, ConfigType, TopicConfig


class ConfigSource(IntEnum):
    """Where a value comes from, numbered as on the wire."""

    UNKNOWN = 0
    TOPIC_CONFIG = 1
    DYNAMIC_BROKER_CONFIG = 2
    DYNAMIC_DEFAULT_BROKER_CONFIG = 3
    STATIC_BROKER_CONFIG = 4
    DEFAULT_CONFIG = 5


@dataclass(frozen=True, slots=True)
class Synonym:
    """One place that a value may come from, in order of precedence."""

    name: str
    value: str | None
    source: ConfigSource


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One configuration of a resource.

    None is sensitive: secrets are files, and only their paths are settings.
    """

    name: str
    value: str | None
    type: ConfigType
    documentation: str
    source: ConfigSource
    read_only: bool
    synonyms: tuple[Synonym, ...]


def topic_entries(configs: Mapping[str, str], cluster_defaults: Mapping[str, str]) -> Iterator[ConfigEntry]:
    """Yield every configuration of a topic.

    `configs` are the topic's (they may repeat the cluster's defaults), `cluster_defaults` those of
    `Cluster.spec.config`.
    """
    for known in TOPIC_CONFIGS.values():
        if known.internal and known.name not in configs:
            continue
        synonyms = tuple(_topic_synonyms(known, configs, cluster_defaults))
        value = synonyms[0].value if synonyms else known.default
        source = synonyms[0].source if synonyms else ConfigSource.DEFAULT_CONFIG
        yield ConfigEntry(
            known.name, value, known.type, known.documentation, source, read_only=False, synonyms=synonyms
        )


def _topic_synonyms(
    known: TopicConfig, configs: Mapping[str, str], cluster_defaults: Mapping[str, str]
) -> Iterator[Synonym]:
    own, inherited = configs.get(known.name), cluster_defaults.get(known.name)
    if own is not None and own != inherited:
        yield Synonym(known.name, own, ConfigSource.TOPIC_CONFIG)
    broker_name = known.broker_synonyms[0] if known.broker_synonyms else known.name
    if inherited is not None:
        yield Synonym(broker_name, inherited, ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG)
    if known.broker_synonyms:
        yield Synonym(broker_name, known.default, ConfigSource.DEFAULT_CONFIG)


def cluster_default_entries(cluster_defaults: Mapping[str, str]) -> Iterator[ConfigEntry]:
    """Yield the cluster-wide defaults that are set, under their broker-level names."""
    for known in TOPIC_CONFIGS.values():
        if known.name in cluster_defaults and known.broker_synonyms:
            yield _broker_default(known, cluster_defaults)


def broker_entries(
    settings: Mapping[str, tuple[str | None, str, str, bool]], cluster_defaults: Mapping[str, str]
) -> Iterator[ConfigEntry]:
    """Yield every configuration of a broker: its own, then the defaults for topics."""
    for name, (value, type_name, documentation, is_default) in settings.items():
        source = ConfigSource.DEFAULT_CONFIG if is_default else ConfigSource.STATIC_BROKER_CONFIG
        synonyms = (Synonym(name, value, source),)
        yield ConfigEntry(
            name, value, ConfigType[type_name], documentation, source, read_only=True, synonyms=synonyms
        )
    for known in TOPIC_CONFIGS.values():
        if known.broker_synonyms and known.broker_synonyms[0] not in settings:
            yield _broker_default(known, cluster_defaults)


def _broker_default(known: TopicConfig, cluster_defaults: Mapping[str, str]) -> ConfigEntry:
    name = known.broker_synonyms[0]
    synonyms: tuple[Synonym, ...] = (Synonym(name, known.default, ConfigSource.DEFAULT_CONFIG),)
    inherited = cluster_defaults.get(known.name)
    if inherited is not None:
        synonyms = (Synonym(name, inherited, ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG), *synonyms)
    first = synonyms[0]
    return ConfigEntry(
        name, first.value, known.type, known.documentation, first.source, read_only=True, synonyms=synonyms
    )
