"""Carries out AlterConfigs and IncrementalAlterConfigs: topics in their Topic objects, the rest in ClusterState.

Who may change what: `Cluster.spec.kafkaAdmin` covers topics, and so also the defaults of topic configurations
(they need `All`). Settings of running brokers and of groups belong to Kafka clients alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.support import admin_policy, cluster_state_change, topic_names
from strandline_broker.api.support.config_change import ConfigChange
from strandline_broker.api.support.config_defaults import config_defaults, has_tiering
from strandline_broker.api.support.config_resources import ResourceType, check_broker_name, unsupported
from strandline_broker.api.support.topic_config_change import alter_topic
from strandline_broker.cluster import broker_config, group_config, topic_config
from strandline_broker.cluster.model import ALL_BROKERS
from strandline_broker.cluster.topic_config import ConfigType, InvalidTopicConfig, TopicConfig
from strandline_broker.errors import ErrorCode, KafkaError

MAX_RESOURCES = 5_000
"""Resources that one request may change."""
_AT_ONCE = 16


async def alter(
    broker: BrokerApi, changes: Sequence[ConfigChange], *, validate_only: bool
) -> list[dict[str, Any]]:
    """Make each change on its own, or only check them; return one row of the response for each."""
    if len(changes) > MAX_RESOURCES:
        excess = KafkaError(
            ErrorCode.POLICY_VIOLATION, f"At most {MAX_RESOURCES} resources can be changed with one request."
        )
        return [_row(change, excess) for change in changes]
    times = Counter((change.resource_type, change.resource_name) for change in changes)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(change: ConfigChange) -> dict[str, Any]:
        if times[change.resource_type, change.resource_name] > 1:
            why = "Each resource must appear at most once."
            return _row(change, KafkaError(ErrorCode.INVALID_REQUEST, why))
        async with gate:
            await asyncio.sleep(0)  # other connections get their turn between two resources
            try:
                await _alter(broker, change, validate_only=validate_only)
            except KafkaError as refusal:
                return _row(change, refusal)
            return _row(change, KafkaError(ErrorCode.NONE))

    return list(await asyncio.gather(*(one(change) for change in changes)))


async def _alter(broker: BrokerApi, change: ConfigChange, *, validate_only: bool) -> None:
    change.check()
    name = change.resource_name
    match change.resource_type:
        case ResourceType.TOPIC:
            if not name:
                raise KafkaError(ErrorCode.INVALID_REQUEST, "Default topic resources are not allowed.")
            topic_names.check(name)
            await alter_topic(broker, change, validate_only=validate_only)
        case ResourceType.BROKER:
            check_broker_name(name, broker.config.broker_id)
            key = str(int(name)) if name else ALL_BROKERS
            await _alter_state(
                broker, change, cluster_state_change.BROKER_CONFIGS, key, validate_only=validate_only
            )
        case ResourceType.GROUP:
            if not name:
                raise KafkaError(ErrorCode.INVALID_REQUEST, "Default group resources are not allowed.")
            await _alter_state(
                broker, change, cluster_state_change.GROUP_CONFIGS, name, validate_only=validate_only
            )
        case _:
            raise unsupported(change.resource_type)


async def _alter_state(
    broker: BrokerApi, change: ConfigChange, section: str, key: str, *, validate_only: bool
) -> None:
    def decide(old: Mapping[str, str]) -> dict[str, str]:
        if section == cluster_state_change.GROUP_CONFIGS:
            return _group_configs(change, old)
        return _broker_configs(broker, change, old, one_broker=key != ALL_BROKERS)

    if validate_only:
        decide(cluster_state_change.configs_in(broker.view.state, section, key))
    else:
        await cluster_state_change.write_configs(broker, section, key, decide)


def _group_configs(change: ConfigChange, old: Mapping[str, str]) -> dict[str, str]:
    new = change.apply(old, lambda name: _list_default(group_config.GROUP_CONFIGS.get(name)))
    try:
        return group_config.validate(new)
    except InvalidTopicConfig as error:
        raise KafkaError(ErrorCode.INVALID_CONFIG, str(error)) from error


def _broker_configs(
    broker: BrokerApi, change: ConfigChange, old: Mapping[str, str], *, one_broker: bool
) -> dict[str, str]:
    new = change.apply(old, lambda name: _list_default(broker_config.DYNAMIC_CONFIGS.get(name)))
    try:
        new = broker_config.validate(new, one_broker=one_broker)
        touched = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
        if touched & broker_config.TOPIC_DEFAULTS.keys():
            admin_policy.check_defaults(broker.view)
            defaults = {
                broker_config.TOPIC_DEFAULTS[name]: text
                for name, text in new.items()
                if name in broker_config.TOPIC_DEFAULTS
            }
            static = config_defaults(broker.view).static
            topic_config.validate({**static, **defaults}, tiering=has_tiering(broker.view))
    except InvalidTopicConfig as error:
        # As Kafka: a broker's configuration that is not valid is an invalid request (KAFKA-13609).
        raise KafkaError(ErrorCode.INVALID_REQUEST, str(error)) from error
    return new


def _list_default(known: TopicConfig | None) -> str | None:
    return known.default if known is not None and known.type is ConfigType.LIST else None


def _row(change: ConfigChange, refusal: KafkaError) -> dict[str, Any]:
    return {
        "error_code": refusal.code,
        "error_message": refusal.message or None,
        "resource_type": change.resource_type,
        "resource_name": change.resource_name,
    }
