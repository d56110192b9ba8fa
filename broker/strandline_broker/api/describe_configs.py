"""DescribeConfigs (key 32), versions 1-4.

Differences from Kafka: a broker has no dynamic configuration of its own, so all its settings are read-only;
settings without a Kafka counterpart are named `strandline.*`. The cluster-wide defaults (broker resource with
an empty name) are `Cluster.spec.config`. Loggers, groups and client metrics are not described
(INVALID_REQUEST).

Version notes: v1 synonyms, v3 type and documentation, v4 flexible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support import topic_names
from strandline_broker.api.support.config_entries import (
    ConfigEntry,
    broker_entries,
    cluster_default_entries,
    topic_entries,
)
from strandline_broker.api.support.topic_plan import cluster_defaults
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.DESCRIBE_CONFIGS

_TOPIC, _BROKER = 2, 4


def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Describe each resource on its own."""
    return {"results": [_describe(broker, request.body, resource) for resource in request.body.resources]}


def _describe(broker: BrokerApi, body: Any, resource: Any) -> dict[str, Any]:
    code, message = ErrorCode.NONE, None
    configs: list[dict[str, Any]] = []
    try:
        # As Kafka: an empty list of keys means all of them, too.
        keys = frozenset(resource.configuration_keys or ())
        documentation = getattr(body, "include_documentation", False)
        configs = [
            _row(entry, synonyms=body.include_synonyms, documentation=documentation)
            for entry in _entries(broker, resource.resource_type, resource.resource_name)
            if not keys or entry.name in keys
        ]
    except KafkaError as refusal:
        code, message = refusal.code, refusal.message or None
    return {
        "error_code": code,
        "error_message": message,
        "resource_type": resource.resource_type,
        "resource_name": resource.resource_name,
        "configs": configs,
    }


def _entries(broker: BrokerApi, resource_type: int, name: str) -> Iterable[ConfigEntry]:
    defaults = cluster_defaults(broker.view)
    if resource_type == _TOPIC:
        topic_names.check(name)
        topic = broker.view.topic_by_name(name)
        if topic is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        return topic_entries(topic.config, defaults)
    if resource_type != _BROKER:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unsupported resource type: {resource_type}")
    if not name:
        return cluster_default_entries(defaults)
    if name != str(broker.config.broker_id):
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            f"Unexpected broker id, expected {broker.config.broker_id} or empty string, but received {name}",
        )
    return broker_entries(broker.config.kafka_configs(), defaults)


def _row(entry: ConfigEntry, *, synonyms: bool, documentation: bool) -> dict[str, Any]:
    return {
        "name": entry.name,
        "value": entry.value,
        "read_only": entry.read_only,
        "config_source": entry.source,
        "is_sensitive": False,
        "synonyms": [
            {"name": synonym.name, "value": synonym.value, "source": synonym.source}
            for synonym in entry.synonyms
        ]
        if synonyms
        else [],
        "config_type": entry.type,
        "documentation": entry.documentation if documentation else None,
    }
