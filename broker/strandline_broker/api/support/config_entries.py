"""Configurations as DescribeConfigs and CreateTopics report them: value, source, meaning. Pure.

Source: Apache Kafka 4.2, `ConfigHelper`, `DescribeConfigsResponse.ConfigSource`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from strandline_broker.api.support.config_defaults import ConfigDefaults
from strandline_broker.cluster import broker_config
from strandline_broker.cluster.group_config import GROUP_CONFIGS
from strandline_broker.cluster.topic_config import TOPIC_CONFIGS, ConfigType, TopicConfig

# A broker's settings as `BrokerSettings.kafka_configs` has them: value, type name, documentation, default.
Settings = Mapping[str, tuple[str | None, str, str, str | None]]


class ConfigSource(IntEnum):
    """Where a value comes from, numbered as on the wire."""

    UNKNOWN = 0
    TOPIC_CONFIG = 1
    DYNAMIC_BROKER_CONFIG = 2
    DYNAMIC_DEFAULT_BROKER_CONFIG = 3
    STATIC_BROKER_CONFIG = 4
    DEFAULT_CONFIG = 5
    DYNAMIC_BROKER_LOGGER_CONFIG = 6
    CLIENT_METRICS_CONFIG = 7
    GROUP_CONFIG = 8


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


def topic_entries(configs: Mapping[str, str], defaults: ConfigDefaults) -> Iterable[ConfigEntry]:
    """Return every configuration of a topic; `configs` are the topic's, and may repeat the defaults."""
    return (inherited_entries(defaults) | own_entries(configs, defaults)).values()


def inherited_entries(defaults: ConfigDefaults) -> dict[str, ConfigEntry]:
    """Return, by name, what a topic has that sets nothing itself."""
    entries = {}
    for known in TOPIC_CONFIGS.values():
        if not known.internal:
            synonyms = list(_topic_default_synonyms(known, defaults))
            fallback = Synonym(known.name, known.default, ConfigSource.DEFAULT_CONFIG)
            first = synonyms[0] if synonyms else fallback
            entries[known.name] = _entry(known, known.name, first, synonyms, read_only=False)
    return entries


def own_entries(configs: Mapping[str, str], defaults: ConfigDefaults) -> dict[str, ConfigEntry]:
    """Return, by name, what a topic sets itself, other than the defaults."""
    entries = {}
    inherited = defaults.merged
    for name, value in configs.items():
        known = TOPIC_CONFIGS.get(name)
        if known is not None and value != inherited.get(name):
            own = Synonym(name, value, ConfigSource.TOPIC_CONFIG)
            synonyms = [own, *_topic_default_synonyms(known, defaults)]
            entries[name] = _entry(known, name, own, synonyms, read_only=False)
    return entries


def _topic_default_synonyms(known: TopicConfig, defaults: ConfigDefaults) -> Iterator[Synonym]:
    name = known.broker_synonyms[0] if known.broker_synonyms else known.name
    if known.name in defaults.dynamic:
        yield Synonym(name, defaults.dynamic[known.name], ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG)
    if known.name in defaults.static:
        yield Synonym(name, defaults.static[known.name], ConfigSource.STATIC_BROKER_CONFIG)
    if known.broker_synonyms:
        yield Synonym(name, known.default, ConfigSource.DEFAULT_CONFIG)


def group_entries(configs: Mapping[str, str]) -> Iterator[ConfigEntry]:
    """Yield every configuration of a group; `configs` are those that were set for it."""
    for known in GROUP_CONFIGS.values():
        synonyms = [Synonym(known.name, known.default, ConfigSource.DEFAULT_CONFIG)]
        if known.name in configs:
            synonyms.insert(0, Synonym(known.name, configs[known.name], ConfigSource.GROUP_CONFIG))
        yield _entry(known, known.name, synonyms[0], synonyms, read_only=False)


def default_broker_entries(for_all: Mapping[str, str]) -> Iterator[ConfigEntry]:
    """Yield the dynamic defaults that are set for all brokers."""
    for name, value in sorted(for_all.items()):
        known = broker_config.DYNAMIC_CONFIGS.get(name)
        if known is not None:
            synonym = Synonym(name, value, ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG)
            yield _entry(known, name, synonym, [synonym], read_only=False)


def broker_entries(
    settings: Settings, defaults: ConfigDefaults, own: Mapping[str, str], for_all: Mapping[str, str]
) -> Iterator[ConfigEntry]:
    """Yield every configuration of a broker: its own, throttles that are set, then the defaults of topics.

    `own` are the dynamic ones of this broker, `for_all` those of all brokers. What cannot be altered for one
    broker is read-only, even where it can be altered for all.
    """
    for name, (value, type_name, documentation, default) in settings.items():
        dynamic = name in broker_config.RUNNING
        synonyms = list(_dynamic_synonyms(name, own, for_all)) if dynamic else []
        if value != default:
            synonyms.append(Synonym(name, value, ConfigSource.STATIC_BROKER_CONFIG))
        if default is not None or not synonyms:
            synonyms.append(Synonym(name, default, ConfigSource.DEFAULT_CONFIG))
        first = synonyms[0]
        yield ConfigEntry(
            name,
            first.value,
            ConfigType[type_name],
            documentation,
            first.source,
            read_only=not dynamic,
            synonyms=tuple(synonyms),
        )
    for name, known in broker_config.THROTTLES.items():
        synonyms = list(_dynamic_synonyms(name, own, for_all))
        if synonyms:
            yield _entry(known, name, synonyms[0], synonyms, read_only=False)
    for known in TOPIC_CONFIGS.values():
        if known.broker_synonyms and known.broker_synonyms[0] not in settings:
            synonyms = list(_topic_default_synonyms(known, defaults))
            yield _entry(known, known.broker_synonyms[0], synonyms[0], synonyms, read_only=True)


def _dynamic_synonyms(name: str, own: Mapping[str, str], for_all: Mapping[str, str]) -> Iterator[Synonym]:
    if name in own:
        yield Synonym(name, own[name], ConfigSource.DYNAMIC_BROKER_CONFIG)
    if name in for_all:
        yield Synonym(name, for_all[name], ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG)


def _entry(
    known: TopicConfig, name: str, first: Synonym, synonyms: list[Synonym], *, read_only: bool
) -> ConfigEntry:
    return ConfigEntry(
        name, first.value, known.type, known.documentation, first.source, read_only, tuple(synonyms)
    )
