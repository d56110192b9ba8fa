"""SaslAuthenticate (key 36), versions 0-2.

Differences from Kafka: a token without a handshake before it is answered with ILLEGAL_SASL_STATE before the
connection ends, where Kafka only ends it; a wrong mechanism on re-authentication likewise with SASL_AUTHENTICATION_FAILED.

Version notes: v1 tells how long the session lasts (KIP-368); v2 is flexible.

Takes frames, not decoded requests: it comes from strangers, and what it holds should be copied as little as possible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.sasl import decode_sasl_authenticate, encode_sasl_authenticate_response

if TYPE_CHECKING:
    from strandline_broker.api.support.sasl import SaslGate
    from strandline_broker.net.connection import Connection
    from strandline_broker.net.handler import Pending, Response
    from strandline_broker.wire.header import RequestHeader

KEY = ApiKey.SASL_AUTHENTICATE

_NOT_NOW = "SaslAuthenticate request received after successful authentication"


class SaslAuthenticateHandler:
    """Hands the token to the connection's gate."""

    def handle(
        self, connection: Connection, header: RequestHeader, frame: memoryview
    ) -> Response | Pending | None:
        """Answer one request. Raises DecodeError."""
        version = header.api_version
        token = decode_sasl_authenticate(frame, header.body_offset, version)
        gate: SaslGate | None = connection.context
        if gate is None:
            return encode_sasl_authenticate_response(
                version, header.correlation_id, ErrorCode.ILLEGAL_SASL_STATE, _NOT_NOW, b"", 0
            )
        return gate.authenticate(header, token)

    def close(self) -> None:
        """Nothing is under way here."""
