"""ApiVersions (key 18), versions 0-4.

Differences from Kafka: no cluster features are finalized (KIP-584), so clients use transactions v1 and
classic groups until the broker has the newer protocols. Requests of unknown versions are answered in version
0 with the full list.

Version notes: v3 flexible, names the client's software (checked, else INVALID_REQUEST) and shows features; v4
also shows features whose lowest level is 0.

Takes frames, not decoded requests: it is the first request of every connection, and its answer never changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strandline_broker.api.context import BrokerApi
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.api_versions import (
    FIRST_FLEXIBLE,
    MAX_VERSION,
    answer_api_versions,
    decode_api_versions,
    is_valid_software,
)
from strandline_broker.wire.primitives import with_correlation_id

if TYPE_CHECKING:
    from strandline_broker.net.connection import Connection
    from strandline_broker.wire.header import RequestHeader

KEY = ApiKey.API_VERSIONS

_UNKNOWN_VERSION = -1


class ApiVersionsHandler:
    """Answers from cached bytes, one frame per version."""

    def __init__(self, broker: BrokerApi) -> None:
        self._broker = broker
        self._frames: dict[int, bytes] = {}

    def handle(self, connection: Connection, header: RequestHeader, frame: memoryview) -> bytes:
        """Answer a request of any version. Raises DecodeError."""
        version = header.api_version
        software = decode_api_versions(frame, header.body_offset, version)
        ranges = self._broker.registry.ranges
        if FIRST_FLEXIBLE <= version <= MAX_VERSION:
            if not is_valid_software(software):
                return answer_api_versions(version, header.correlation_id, software, ranges)
            connection.client_software = (software.name, software.version)
        key = version if 0 <= version <= MAX_VERSION else _UNKNOWN_VERSION
        cached = self._frames.get(key)
        if cached is None:
            cached = self._frames[key] = answer_api_versions(version, 0, software, ranges)
        return with_correlation_id(cached, header.correlation_id)

    def close(self) -> None:
        """Nothing is under way here."""
