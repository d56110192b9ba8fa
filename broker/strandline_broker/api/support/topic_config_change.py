"""Changes the configuration of one topic, for AlterConfigs and IncrementalAlterConfigs.

What is changed is what the Topic object sets itself; what it inherits from the cluster stays inherited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.support import topic_names
from strandline_broker.api.support.config_change import ConfigChange
from strandline_broker.api.support.config_defaults import ConfigDefaults, config_defaults, has_tiering
from strandline_broker.api.support.internal_topic_change import change_internal_topic
from strandline_broker.api.support.topic_change import check_topic, wait_until_done, write_topic
from strandline_broker.cluster import topic_config
from strandline_broker.cluster.json_patch import pointer
from strandline_broker.cluster.model import Topic
from strandline_broker.cluster.store import Operation
from strandline_broker.cluster.topic_config import TOPIC_CONFIGS, ConfigType, InvalidTopicConfig
from strandline_broker.cluster.view import TopicView
from strandline_broker.errors import ErrorCode, KafkaError

_PATIENCE_S = 15.0
"""How long a change may take to reach the partitions; these requests name no time themselves."""


async def alter_topic(broker: BrokerApi, change: ConfigChange, *, validate_only: bool) -> None:
    """Change a topic's configuration and return when this broker's view has it.

    Raises KafkaError INVALID_CONFIG, UNKNOWN_TOPIC_OR_PARTITION, POLICY_VIOLATION, or REQUEST_TIMED_OUT, after
    which the change may still come.
    """
    defaults, tiering = config_defaults(broker.view), has_tiering(broker.view)
    topic = broker.view.topic_by_name(change.resource_name)
    if topic is None:
        changed_config(change, {}, defaults, tiering=tiering)
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic.")
    if topic_names.is_internal(topic.topic_name):
        await change_internal_topic(
            broker,
            topic,
            lambda current: changed_config(change, current, defaults, tiering=tiering),
            validate_only=validate_only,
        )
        return
    touched: dict[str, str | None] = {}

    def decide(found: Topic) -> list[Operation]:
        new = changed_config(change, found.config, defaults, tiering=tiering)
        _check_min_isr(new, found.replicas)
        names = sorted(
            name for name in found.config.keys() | new.keys() if found.config.get(name) != new.get(name)
        )
        touched.clear()
        touched.update((name, new.get(name)) for name in names)
        return _operations(found.config, new, names)

    if validate_only:
        await check_topic(broker, topic, decide)
        return
    written = await write_topic(broker, topic, decide)
    if not written.changed:
        return
    await wait_until_done(
        broker,
        written.topic,
        lambda: _is_seen(broker, topic, touched),
        asyncio.get_running_loop().time() + _PATIENCE_S,
        f"The configuration of topic '{topic.topic_name}' is written, but not every partition has it yet.",
    )


def changed_config(
    change: ConfigChange, current: Mapping[str, str], defaults: ConfigDefaults, *, tiering: bool
) -> dict[str, str]:
    """Return what a topic sets itself after the change; keys that it leaves alone keep their spelling.

    Raises KafkaError(INVALID_CONFIG). Pure.
    """
    inherited = defaults.merged

    def list_default(name: str) -> str | None:
        known = TOPIC_CONFIGS.get(name)
        if known is None or known.type is not ConfigType.LIST:
            return None
        return inherited.get(name, known.default)

    new = change.apply(current, list_default)
    try:
        checked = topic_config.validate(new, defaults=topic_config.effective(inherited), tiering=tiering)
    except InvalidTopicConfig as error:
        raise KafkaError(ErrorCode.INVALID_CONFIG, str(error)) from error
    return {name: text if current.get(name) == text else checked[name] for name, text in new.items()}


def _operations(old: Mapping[str, str], new: Mapping[str, str], names: list[str]) -> list[Operation]:
    if not names:
        return []
    if not old:
        return [{"op": "add", "path": "/spec/config", "value": dict(new)}]
    return [
        {"op": "add", "path": pointer("spec", "config", name), "value": new[name]}
        if name in new
        else {"op": "remove", "path": pointer("spec", "config", name)}
        for name in names
    ]


def _check_min_isr(config: Mapping[str, str], replicas: int) -> None:
    min_isr = int(config.get("min.insync.replicas", "1"))
    if min_isr > replicas:
        raise KafkaError(
            ErrorCode.INVALID_CONFIG,
            f"min.insync.replicas={min_isr} is above the replication factor {replicas}: "
            "no acks=all write could ever succeed.",
        )


def _is_seen(broker: BrokerApi, topic: TopicView, touched: Mapping[str, str | None]) -> bool:
    newest = broker.view.topic_by_id(topic.topic_id)
    if newest is None:
        return False
    inherited = config_defaults(broker.view).merged
    return all(
        part.config.get(name) == (inherited.get(name) if text is None else text)
        for part in newest.slices
        for name, text in touched.items()
    )
