"""Where the values of topic configurations come from that a topic does not set itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from strandline_broker.cluster import broker_config, topic_config
from strandline_broker.cluster.cache import ClusterCache
from strandline_broker.cluster.topic_config import InvalidTopicConfig


@dataclass(frozen=True, slots=True)
class ConfigDefaults:
    """Defaults of topic configurations, under their topic-level names.

    `static` is `Cluster.spec.config`; `dynamic` is what Kafka clients set as the default of all brokers, and
    wins.
    """

    static: Mapping[str, str] = field(default_factory=dict)
    dynamic: Mapping[str, str] = field(default_factory=dict)

    @property
    def merged(self) -> dict[str, str]:
        """What applies."""
        return {**self.static, **self.dynamic}


def config_defaults(view: ClusterCache) -> ConfigDefaults:
    """Return the cluster's defaults; those that make no sense are left out."""
    static: dict[str, str] = {}
    for name, text in (view.cluster.config if view.cluster is not None else {}).items():
        known = topic_config.TOPIC_CONFIGS.get(name)
        try:
            if known is not None:
                static[name] = known.normalise(text)
        except InvalidTopicConfig:
            continue  # the Cluster's status says so
    return ConfigDefaults(static, broker_config.topic_defaults(view.state))


def has_tiering(view: ClusterCache) -> bool:
    """Say whether the cluster has a bucket."""
    return view.cluster is not None and view.cluster.spec.get("tiering") is not None
