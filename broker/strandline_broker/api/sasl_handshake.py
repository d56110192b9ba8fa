"""SaslHandshake (key 17), versions 0-1.

Differences from Kafka: none known. Where nothing has to be authenticated, or all is, the answer is ILLEGAL_SASL_STATE.

Version notes: after v0 the tokens follow without Kafka's headers (KIP-43); after v1 in SaslAuthenticate requests (KIP-152).

Takes frames, not decoded requests: it comes from strangers, and must not wait for the generic codec.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.sasl import decode_sasl_handshake, encode_sasl_handshake_response

if TYPE_CHECKING:
    from strandline_broker.api.support.sasl import SaslGate
    from strandline_broker.net.connection import Connection
    from strandline_broker.net.handler import Pending, Response
    from strandline_broker.wire.header import RequestHeader

KEY = ApiKey.SASL_HANDSHAKE


class SaslHandshakeHandler:
    """Hands the mechanism to the connection's gate."""

    def handle(self, connection: Connection, header: RequestHeader, frame: memoryview) -> Response | Pending:
        """Answer one request. Raises DecodeError."""
        mechanism = decode_sasl_handshake(frame, header.body_offset)
        gate: SaslGate | None = connection.context
        if gate is None:
            return encode_sasl_handshake_response(header.correlation_id, ErrorCode.ILLEGAL_SASL_STATE, ())
        return gate.handshake(header, mechanism)

    def close(self) -> None:
        """Nothing is under way here."""
