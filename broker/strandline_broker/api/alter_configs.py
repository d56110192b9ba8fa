"""AlterConfigs (key 33), versions 0-2.

Replaces the whole configuration of a resource: keys that are not named go back to their defaults. Deprecated
in favour of IncrementalAlterConfigs.

Differences from Kafka: those of IncrementalAlterConfigs.

Version notes: v1 as v0, v2 flexible.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support.config_alteration import alter
from strandline_broker.api.support.config_change import changes_of
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.ALTER_CONFIGS


async def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Replace the configuration of each resource."""
    changes = changes_of(request.body.resources, replace=True)
    return {"responses": await alter(broker, changes, validate_only=request.body.validate_only)}
