"""The one table of APIs that this broker serves: what has no handler here is not advertised.

`api.dispatch` reads it, `server.broker` builds the registry from `IMPLEMENTED`. Three kinds of entries:

- *cold* modules (`handle(broker, request) -> Mapping`, a coroutine of it, or a ticket that is answered later): decoded and
  encoded by `wire.cold`; a module is imported at its first request, so that start-up pays for none;
- *frame* handlers (ApiVersions, Metadata, SASL): objects that take frames, and answer from cached bytes where they can;
- *hot* ones (Produce, Fetch): wired up by the dispatcher itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.registry import Registry

if TYPE_CHECKING:
    from strandline_broker.api.context import BrokerApi
    from strandline_broker.api.request import Request
    from strandline_broker.net.connection import Connection
    from strandline_broker.net.handler import Pending, Response
    from strandline_broker.wire.header import RequestHeader

ColdAnswer: TypeAlias = "Mapping[str, Any] | Awaitable[Mapping[str, Any]] | Pending"
ColdHandler = Callable[["BrokerApi", "Request"], ColdAnswer]


class FrameHandler(Protocol):
    """Answers an API that needs no generic codec."""

    def handle(
        self, connection: Connection, header: RequestHeader, frame: memoryview
    ) -> Response | Pending | None:
        """Return the whole response frame, or what it comes with later. Raises DecodeError."""
        ...

    def close(self) -> None:
        """Cancel what is under way in the background."""
        ...


HOT = (ApiKey.PRODUCE, ApiKey.FETCH)
FRAME = (ApiKey.API_VERSIONS, ApiKey.METADATA, ApiKey.SASL_HANDSHAKE, ApiKey.SASL_AUTHENTICATE)
COLD: Mapping[ApiKey, str] = {
    ApiKey.LIST_OFFSETS: "list_offsets",
    ApiKey.OFFSET_COMMIT: "offset_commit",
    ApiKey.OFFSET_FETCH: "offset_fetch",
    ApiKey.FIND_COORDINATOR: "find_coordinator",
    ApiKey.JOIN_GROUP: "join_group",
    ApiKey.HEARTBEAT: "heartbeat",
    ApiKey.LEAVE_GROUP: "leave_group",
    ApiKey.SYNC_GROUP: "sync_group",
    ApiKey.DESCRIBE_GROUPS: "describe_groups",
    ApiKey.LIST_GROUPS: "list_groups",
    ApiKey.DELETE_GROUPS: "delete_groups",
    ApiKey.OFFSET_DELETE: "offset_delete",
    ApiKey.CREATE_TOPICS: "create_topics",
    ApiKey.DELETE_TOPICS: "delete_topics",
    ApiKey.DELETE_RECORDS: "delete_records",
    ApiKey.INIT_PRODUCER_ID: "init_producer_id",
    ApiKey.OFFSET_FOR_LEADER_EPOCH: "offset_for_leader_epoch",
    ApiKey.DESCRIBE_CONFIGS: "describe_configs",
    ApiKey.ALTER_CONFIGS: "alter_configs",
    ApiKey.ALTER_REPLICA_LOG_DIRS: "alter_replica_log_dirs",
    ApiKey.DESCRIBE_LOG_DIRS: "describe_log_dirs",
    ApiKey.CREATE_PARTITIONS: "create_partitions",
    ApiKey.ELECT_LEADERS: "elect_leaders",
    ApiKey.INCREMENTAL_ALTER_CONFIGS: "incremental_alter_configs",
    ApiKey.ALTER_PARTITION_REASSIGNMENTS: "alter_partition_reassignments",
    ApiKey.LIST_PARTITION_REASSIGNMENTS: "list_partition_reassignments",
    ApiKey.DESCRIBE_CLUSTER: "describe_cluster",
    ApiKey.DESCRIBE_PRODUCERS: "describe_producers",
    ApiKey.LIST_CONFIG_RESOURCES: "list_config_resources",
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: "describe_topic_partitions",
}
"""Module of each cold API, within this package."""

IMPLEMENTED: tuple[ApiKey, ...] = (*HOT, *FRAME, *COLD)

_loaded: dict[ApiKey, ColdHandler] = {}


def build_registry() -> Registry:
    """Return the registry of what is served."""
    return Registry(IMPLEMENTED)


def cold_handler(api_key: ApiKey) -> ColdHandler:
    """Return the handler of a cold API, importing its module at first. Raises KeyError for other APIs."""
    handler = _loaded.get(api_key)
    if handler is None:
        module = importlib.import_module(f"strandline_broker.api.{COLD[api_key]}")
        assert module.KEY is api_key, "the table names the module of another API"
        handler = _loaded[api_key] = module.handle
    return handler


def frame_handlers(broker: BrokerApi) -> dict[ApiKey, FrameHandler]:
    """Return the handlers that take frames, for one broker."""
    from strandline_broker.api.api_versions import ApiVersionsHandler
    from strandline_broker.api.metadata import MetadataHandler
    from strandline_broker.api.sasl_authenticate import SaslAuthenticateHandler
    from strandline_broker.api.sasl_handshake import SaslHandshakeHandler

    return {
        ApiKey.API_VERSIONS: ApiVersionsHandler(broker),
        ApiKey.METADATA: MetadataHandler(broker),
        ApiKey.SASL_HANDSHAKE: SaslHandshakeHandler(),
        ApiKey.SASL_AUTHENTICATE: SaslAuthenticateHandler(),
    }
