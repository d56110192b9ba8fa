"""The value types of Kafka's topic configurations: parsing, canonical spelling, ranges.

Used by `topic_config_table` and `topic_config`; everybody else goes through `topic_config`.

Source: Apache Kafka 4.2, `ConfigDef.parseType` and its validators.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

Value = bool | int | float | str | tuple[str, ...]

LONG_MAX = (1 << 63) - 1
_INT_MAX = (1 << 31) - 1

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?", re.ASCII)
_THROTTLED_REPLICA = re.compile(r"[0-9]+:[0-9]+", re.ASCII)


class InvalidTopicConfig(ValueError):  # noqa: N818 - named after Kafka's INVALID_CONFIG
    """A topic configuration is unknown or out of range; the text is meant for the user."""


class ConfigType(IntEnum):
    """Value types, numbered as in DescribeConfigs v3+ (`DescribeConfigsResponse.ConfigType`)."""

    UNKNOWN = 0
    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7
    CLASS = 8
    PASSWORD = 9


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """One topic configuration.

    `default` is Kafka's default as a string. `broker_synonyms` are the broker-level keys that set the
    default for all topics, most specific first. `supported` is False where a value is validated and reported
    but has no effect here (the documentation then says why). No topic configuration is sensitive.
    """

    name: str
    type: ConfigType
    default: str
    documentation: str
    broker_synonyms: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    also_valid: int | None = None
    choices: tuple[str, ...] = ()
    supported: bool = True
    internal: bool = False
    sensitive: bool = False

    def parse(self, text: str) -> Value:
        """Return the typed value of `text`; raises InvalidTopicConfig when Kafka would refuse it."""
        stripped = text.strip()
        value = _PARSERS[self.type](self, stripped)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            self._check_range(stripped, value)
        elif self.choices and not isinstance(value, bool):
            self._check_choices(value)
        return value

    def normalise(self, text: str) -> str:
        """Return the canonical spelling of a valid value; raises InvalidTopicConfig."""
        value = self.parse(text)
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, tuple):
            return ",".join(value)
        return str(value)

    def refusal(self, text: str, why: str) -> InvalidTopicConfig:
        """Return the error for a bad value, in Kafka's words."""
        return InvalidTopicConfig(f"Invalid value {text} for configuration {self.name}: {why}")

    def _check_range(self, text: str, value: float) -> None:
        if self.also_valid is not None and value == self.also_valid:
            return
        if self.minimum is not None and not value >= self.minimum:
            raise self.refusal(text, f"Value must be at least {self.minimum}")
        if self.maximum is not None and not value <= self.maximum:
            raise self.refusal(text, f"Value must be no more than {self.maximum}")

    def _check_choices(self, value: Value) -> None:
        for item in value if isinstance(value, tuple) else (value,):
            if item not in self.choices:
                raise self.refusal(str(item), f"String must be one of: {', '.join(self.choices)}")


def _parse_boolean(config: TopicConfig, text: str) -> Value:
    lowered = text.lower()
    if lowered not in ("true", "false"):
        raise config.refusal(text, "Expected value to be either true or false")
    return lowered == "true"


def _parse_integer(config: TopicConfig, text: str) -> Value:
    bound = _INT_MAX if config.type is ConfigType.INT else LONG_MAX
    if not _INTEGER.fullmatch(text) or not -bound - 1 <= int(text) <= bound:
        raise config.refusal(text, f"Not a number of type {config.type.name}")
    return int(text)


def _parse_double(config: TopicConfig, text: str) -> Value:
    if not _FLOAT.fullmatch(text) or not math.isfinite(float(text)):
        raise config.refusal(text, "Not a number of type DOUBLE")
    return float(text)


def _parse_list(config: TopicConfig, text: str) -> Value:
    if not text:
        return ()
    items = tuple(dict.fromkeys(item.strip() for item in text.split(",")))
    if "" in items:
        raise InvalidTopicConfig(f"Configuration '{config.name}' values must not be empty.")
    if config.name.endswith(".throttled.replicas") and items != ("*",):
        for item in items:
            if not _THROTTLED_REPLICA.fullmatch(item):
                raise config.refusal(
                    text,
                    "must be the literal '*' or a list of [partitionId]:[brokerId],...",
                )
    return items


_PARSERS: dict[ConfigType, Callable[[TopicConfig, str], Value]] = {
    ConfigType.BOOLEAN: _parse_boolean,
    ConfigType.STRING: lambda _config, text: text,
    ConfigType.INT: _parse_integer,
    ConfigType.LONG: _parse_integer,
    ConfigType.DOUBLE: _parse_double,
    ConfigType.LIST: _parse_list,
}
