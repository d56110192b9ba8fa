"""DescribeConfigs (key 32), versions 1-4.

Differences from Kafka: what can be altered while a broker runs is a short list (see IncrementalAlterConfigs),
the rest is read-only; settings without a Kafka counterpart are named `strandline.*`. Defaults of topics that
`Cluster.spec.config` sets are shown as static, those that Kafka clients set for all brokers as dynamic. There
are no loggers to describe (INVALID_REQUEST), and no client metrics (nothing is set for any subscription).

Version notes: v1 synonyms, v3 type and documentation, v4 flexible.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support import topic_names
from strandline_broker.api.support.config_defaults import config_defaults
from strandline_broker.api.support.config_entries import (
    ConfigEntry,
    broker_entries,
    default_broker_entries,
    group_entries,
    inherited_entries,
    own_entries,
)
from strandline_broker.api.support.config_resources import ResourceType, check_broker_name, unsupported
from strandline_broker.cluster.model import ALL_BROKERS
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.DESCRIBE_CONFIGS


_AT_ONCE = 10
"""Resources described at one go; other connections get their turn between two of more."""


def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any] | Awaitable[Mapping[str, Any]]:
    """Describe each resource on its own."""
    resources = request.body.resources
    describer = _Describer(broker, request.body)
    if len(resources) > _AT_ONCE:
        return _describe_many(describer, resources)
    return {"results": [describer.describe(resource) for resource in resources]}


async def _describe_many(describer: _Describer, resources: Iterable[Any]) -> Mapping[str, Any]:
    results = []
    for resource in resources:
        await asyncio.sleep(0)
        results.append(describer.describe(resource))
    return {"results": results}


class _Describer:
    """Answers one request; rows that all topics share are made once."""

    def __init__(self, broker: BrokerApi, body: Any) -> None:
        self._broker = broker
        self._synonyms: bool = body.include_synonyms
        self._documentation: bool = getattr(body, "include_documentation", False)
        self._defaults = config_defaults(broker.view)
        self._inherited: dict[str, dict[str, Any]] | None = None

    def describe(self, resource: Any) -> dict[str, Any]:
        """Return the result for one resource."""
        code, message = ErrorCode.NONE, None
        configs: list[dict[str, Any]] = []
        try:
            # As Kafka: an empty list of keys means all of them, too.
            keys = frozenset(resource.configuration_keys or ())
            rows = self._rows(resource.resource_type, resource.resource_name)
            configs = [row for row in rows if not keys or row["name"] in keys]
        except KafkaError as refusal:
            code, message = refusal.code, refusal.message or None
        return {
            "error_code": code,
            "error_message": message,
            "resource_type": resource.resource_type,
            "resource_name": resource.resource_name,
            "configs": configs,
        }

    def _rows(self, resource_type: int, name: str) -> Iterable[dict[str, Any]]:
        if resource_type != ResourceType.TOPIC:
            return (self._row(entry) for entry in self._entries(resource_type, name))
        topic_names.check(name)
        topic = self._broker.view.topic_by_name(name)
        if topic is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        if self._inherited is None:
            entries = inherited_entries(self._defaults)
            self._inherited = {key: self._row(entry) for key, entry in entries.items()}
        own = own_entries(topic.config, self._defaults)
        return (self._inherited | {key: self._row(entry) for key, entry in own.items()}).values()

    def _entries(self, resource_type: int, name: str) -> Iterable[ConfigEntry]:
        state = self._broker.view.state
        if resource_type == ResourceType.GROUP:
            if not name:
                raise KafkaError(ErrorCode.INVALID_REQUEST, "Group name must not be empty")
            return group_entries(state.group_configs.get(name, {}) if state is not None else {})
        if resource_type == ResourceType.CLIENT_METRICS:
            if not name:
                raise KafkaError(
                    ErrorCode.INVALID_REQUEST, "Client metrics subscription name must not be empty"
                )
            return ()
        if resource_type != ResourceType.BROKER:
            raise unsupported(resource_type)
        config = self._broker.config
        check_broker_name(name, config.broker_id)
        dynamic = state.broker_configs if state is not None else {}
        for_all = dynamic.get(ALL_BROKERS, {})
        if not name:
            return default_broker_entries(for_all)
        own = dynamic.get(str(config.broker_id), {})
        return broker_entries(config.kafka_configs(), self._defaults, own, for_all)

    def _row(self, entry: ConfigEntry) -> dict[str, Any]:
        synonyms = [
            {"name": synonym.name, "value": synonym.value, "source": synonym.source}
            for synonym in entry.synonyms
        ]
        return {
            "name": entry.name,
            "value": entry.value,
            "read_only": entry.read_only,
            "config_source": entry.source,
            "is_sensitive": False,
            "synonyms": synonyms if self._synonyms else [],
            "config_type": entry.type,
            "documentation": entry.documentation if self._documentation else None,
        }
