"""Configurations of groups (KIP-848, KIP-932, KIP-1071): names, types, defaults, valid values, documentation.

Kept in `ClusterState.groupConfigs` by group id, read by coordinators, described and altered through the Kafka
admin API. Pure.

Source: Apache Kafka 4.2, `GroupConfig`, `GroupCoordinatorConfig`, `ShareGroupConfig`. The bounds are the
defaults of Kafka's broker settings (`group.consumer.min.session.timeout.ms` and its kin).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from strandline_broker.cluster.topic_config import suggest
from strandline_broker.cluster.topic_config_values import ConfigType, InvalidTopicConfig
from strandline_broker.cluster.topic_config_values import TopicConfig as ConfigKey

__all__ = ["GROUP_CONFIGS", "effective", "validate"]

_BY_DURATION = re.compile(
    r"by_duration:P(?=.)([0-9]+D)?(T(?=.)([0-9]+H)?([0-9]+M)?([0-9]+(\.[0-9]{1,9})?S)?)?", re.ASCII
)
_AUTO_OFFSET_RESET = "share.auto.offset.reset"


def _milliseconds(
    name: str, default: int, documentation: str, *, minimum: int, maximum: int, broker_name: str
) -> ConfigKey:
    return ConfigKey(
        name,
        ConfigType.INT,
        str(default),
        documentation,
        broker_synonyms=(broker_name,),
        minimum=minimum,
        maximum=maximum,
    )


def _session_timeout(kind: str) -> ConfigKey:
    return _milliseconds(
        f"{kind}.session.timeout.ms",
        45_000,
        f"Silence after which a member of a {kind} group is taken for dead.",
        minimum=45_000,
        maximum=60_000,
        broker_name=f"group.{kind}.session.timeout.ms",
    )


def _heartbeat_interval(kind: str) -> ConfigKey:
    return _milliseconds(
        f"{kind}.heartbeat.interval.ms",
        5_000,
        f"Time between two heartbeats that members of a {kind} group are told to keep.",
        minimum=5_000,
        maximum=15_000,
        broker_name=f"group.{kind}.heartbeat.interval.ms",
    )


_TABLE = (
    _heartbeat_interval("consumer"),
    _session_timeout("consumer"),
    ConfigKey(
        _AUTO_OFFSET_RESET,
        ConfigType.STRING,
        "latest",
        "Where a share group begins to read a partition that it has no position in: `earliest`, `latest`, or "
        "`by_duration:<ISO 8601 duration>` for that long ago.",
    ),
    _heartbeat_interval("share"),
    ConfigKey(
        "share.isolation.level",
        ConfigType.STRING,
        "read_uncommitted",
        "Whether a share group also gets records of transactions that are open or were aborted.",
        choices=("read_committed", "read_uncommitted"),
    ),
    _milliseconds(
        "share.record.lock.duration.ms",
        30_000,
        "Time that a member of a share group has to acknowledge a record before others may get it.",
        minimum=15_000,
        maximum=60_000,
        broker_name="group.share.record.lock.duration.ms",
    ),
    _session_timeout("share"),
    _heartbeat_interval("streams"),
    ConfigKey(
        "streams.initial.rebalance.delay.ms",
        ConfigType.INT,
        "3000",
        "Time that a new streams group waits for more members before its first assignment.",
        broker_synonyms=("group.streams.initial.rebalance.delay.ms",),
        minimum=0,
    ),
    ConfigKey(
        "streams.num.standby.replicas",
        ConfigType.INT,
        "0",
        "Standby copies of each task's state in a streams group.",
        broker_synonyms=("group.streams.num.standby.replicas",),
        minimum=0,
        maximum=2,
    ),
    _session_timeout("streams"),
)

GROUP_CONFIGS: Mapping[str, ConfigKey] = {config.name: config for config in _TABLE}
"""Every group configuration by name, in alphabetical order."""


def validate(configs: Mapping[str, str]) -> dict[str, str]:
    """Return the given configurations in canonical spelling.

    Raises InvalidTopicConfig (its text is for the user) for unknown names and values out of range.
    """
    checked = {}
    for name, text in configs.items():
        known = GROUP_CONFIGS.get(name)
        if known is None:
            raise InvalidTopicConfig(f"Unknown group config name: {name}{suggest(name, GROUP_CONFIGS)}")
        checked[name] = known.normalise(text)
        if name == _AUTO_OFFSET_RESET:
            _check_auto_offset_reset(known, checked[name])
    return checked


def effective(configs: Mapping[str, str]) -> dict[str, str]:
    """Return every group configuration: what `configs` sets, else the default."""
    return {name: configs.get(name, known.default) for name, known in GROUP_CONFIGS.items()}


def _check_auto_offset_reset(known: ConfigKey, text: str) -> None:
    if text not in ("earliest", "latest") and not _BY_DURATION.fullmatch(text):
        raise known.refusal(
            text, "must be 'earliest', 'latest' or 'by_duration:<PnDTnHnMn.nS>' with a duration above zero"
        )
