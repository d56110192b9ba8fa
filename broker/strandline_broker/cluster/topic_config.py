"""Kafka 4.2's topic configurations: names, types, defaults, valid values, documentation.

One table serves the operator (admission of a Topic), the broker (CreateTopics, IncrementalAlterConfigs,
DescribeConfigs) and the log (its parsed settings). Values are strings everywhere, as in Kafka's protocol and
in `Topic.spec.config`; `parse_value` turns one into Python. A `PartitionSet` carries what `validate` returns:
only what was set, normalised; `effective` fills in the rest.

Source: Apache Kafka 4.2, `TopicConfig`, `LogConfig`, `ServerTopicConfigSynonyms`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from strandline_broker.cluster.topic_config_table import TABLE
from strandline_broker.cluster.topic_config_values import (
    LONG_MAX,
    ConfigType,
    InvalidTopicConfig,
    TopicConfig,
    Value,
)

__all__ = [
    "LONG_MAX",
    "TOPIC_CONFIGS",
    "ConfigType",
    "InvalidTopicConfig",
    "TopicConfig",
    "Value",
    "effective",
    "is_compacted",
    "parse_value",
    "suggest",
    "validate",
]

TOPIC_CONFIGS: Mapping[str, TopicConfig] = {config.name: config for config in TABLE}
"""Every topic configuration by name, in alphabetical order."""

_DEFAULTS = {name: config.default for name, config in TOPIC_CONFIGS.items() if not config.internal}


def suggest(name: str, known: Mapping[str, object]) -> str:
    """Return ` (did you mean X?)` for a misspelt key, or an empty string."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f" (did you mean {close[0]}?)" if close else ""


def parse_value(name: str, text: str) -> Value:
    """Return the typed value of one configuration; raises InvalidTopicConfig (unknown name, bad value)."""
    return _config(name).parse(text)


def validate(
    configs: Mapping[str, str], *, defaults: Mapping[str, str] | None = None, tiering: bool = False
) -> dict[str, str]:
    """Return the given configurations in canonical spelling, or refuse them.

    Only what was set comes back: an unset key must stay unset so that a later change of the default reaches
    it, and so that DescribeConfigs can tell the two apart. `defaults` are the values that unset keys have
    (Kafka's where it is None); `tiering` says whether the Cluster has a bucket.

    Raises InvalidTopicConfig for unknown names, values that do not parse or lie out of range, and
    combinations that Kafka refuses (`LogConfig.validate`). A `PartitionSet` stores what this returns.
    """
    checked: dict[str, str] = {}
    for name, text in configs.items():
        checked[name] = _config(name).normalise(text)
    _check_combinations(effective(checked, defaults), tiering=tiering)
    return checked


def effective(configs: Mapping[str, str], defaults: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return every topic configuration: what `configs` sets, else `defaults`, else Kafka's default."""
    values = _DEFAULTS.copy()
    if defaults:
        values.update(defaults)
    values.update(configs)
    return values


def is_compacted(configs: Mapping[str, str]) -> bool:
    """Say whether the cleanup policy contains `compact`."""
    return "compact" in configs.get("cleanup.policy", "delete").split(",")


def _config(name: str) -> TopicConfig:
    config = TOPIC_CONFIGS.get(name)
    if config is None:
        raise InvalidTopicConfig(f"Unknown topic config name: {name}{suggest(name, TOPIC_CONFIGS)}")
    return config


def _check_combinations(values: Mapping[str, str], *, tiering: bool) -> None:
    low, high = int(values["min.compaction.lag.ms"]), int(values["max.compaction.lag.ms"])
    if low > high:
        raise InvalidTopicConfig(
            f"conflict topic config setting min.compaction.lag.ms ({low}) > max.compaction.lag.ms ({high})"
        )
    if values["remote.storage.enable"] != "true":
        return
    if not tiering:
        raise InvalidTopicConfig(
            "remote.storage.enable=true needs a bucket: tiered storage is not configured for this cluster."
        )
    if is_compacted(values):
        raise InvalidTopicConfig(
            "Remote log storage only supports topics with cleanup.policy=delete or an empty cleanup.policy."
        )
    for unit in ("bytes", "ms"):
        _check_local_retention(values, unit)


def _check_local_retention(values: Mapping[str, str], unit: str) -> None:
    name, total_name = f"local.retention.{unit}", f"retention.{unit}"
    local, total = int(values[name]), int(values[total_name])
    if local == -2:
        return
    config = TOPIC_CONFIGS[name]
    if total > -1 and local == -1:
        raise config.refusal(str(local), f"Value must not be -1 as {total_name} value is set as {total}.")
    if total > -1 and local > total:
        raise config.refusal(str(local), f"Value must not be more than {total_name} property value: {total}")
    if values["remote.log.copy.disable"] == "true" and local != total:
        raise InvalidTopicConfig(
            f"With remote.log.copy.disable=true, {name} and {total_name} must be equal: "
            "nothing more is copied to the bucket."
        )
