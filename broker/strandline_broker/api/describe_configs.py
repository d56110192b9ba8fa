"""DescribeConfigs (key 32), versions 1-4.

Differences from Kafka: what can be altered while a broker runs is a short list (`cluster.broker_config`), the
rest is read-only; settings without a Kafka counterpart are named `strandline.*`. Defaults of topics that
`Cluster.spec.config` sets are shown as static, those that Kafka clients set for all brokers as dynamic. There
are no loggers to describe (INVALID_REQUEST), and no client metrics (nothing is set for any subscription).

Version notes: v1 synonyms, v3 type and documentation, v4 flexible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    topic_entries,
)
from strandline_broker.api.support.config_resources import ResourceType, check_broker_name, unsupported
from strandline_broker.cluster.model import ALL_BROKERS
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.DESCRIBE_CONFIGS


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
    if resource_type == ResourceType.TOPIC:
        topic_names.check(name)
        topic = broker.view.topic_by_name(name)
        if topic is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        return topic_entries(topic.config, config_defaults(broker.view))
    state = broker.view.state
    if resource_type == ResourceType.GROUP:
        if not name:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "Group name must not be empty")
        return group_entries(state.group_configs.get(name, {}) if state is not None else {})
    if resource_type == ResourceType.CLIENT_METRICS:
        if not name:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "Client metrics subscription name must not be empty")
        return ()
    if resource_type != ResourceType.BROKER:
        raise unsupported(resource_type)
    check_broker_name(name, broker.config.broker_id)
    dynamic = state.broker_configs if state is not None else {}
    for_all = dynamic.get(ALL_BROKERS, {})
    if not name:
        return default_broker_entries(for_all)
    own = dynamic.get(str(broker.config.broker_id), {})
    return broker_entries(broker.config.kafka_configs(), config_defaults(broker.view), own, for_all)


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
