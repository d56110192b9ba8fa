"""IncrementalAlterConfigs (key 44), versions 0-1 (KIP-339).

Differences from Kafka: a topic's configuration is written into its Topic object, and the answer comes when
its partitions have it, or with what the operator says against it; `Cluster.spec.kafkaAdmin` decides which
topics clients may change (POLICY_VIOLATION), and of internal topics they change only throttles. Of a broker's
settings max.connections, max.connections.per.ip, producer.id.expiration.ms and the throttled rates of
replication are dynamic, for one broker or for all; for all, also the defaults of topics (log.retention.ms and
so on; kafkaAdmin must be All). Kafka also keeps unknown keys, here they are refused (INVALID_REQUEST), as are
loggers and client metrics. min.insync.replicas above the replication factor is refused (INVALID_CONFIG).

Version notes: v1 flexible.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support.config_alteration import alter
from strandline_broker.api.support.config_change import changes_of
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.INCREMENTAL_ALTER_CONFIGS


async def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Change the configuration of each resource key by key."""
    changes = changes_of(request.body.resources, replace=False)
    return {"responses": await alter(broker, changes, validate_only=request.body.validate_only)}
