"""SaslHandshake 1 and SaslAuthenticate 2 from the side of who logs in; `wire.sasl` is the other side.

Bodies only, without headers. What is decoded here comes from somebody who has not proven anything yet.

Source: Apache Kafka, `SaslHandshake*.json`, `SaslAuthenticate*.json`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from strandline_broker.wire.errors import DecodeError
from strandline_broker.wire.primitives import (
    INT16,
    INT64,
    MALFORMED,
    encode_string,
    encode_uvarint,
    read_array_length,
    read_compact_length,
    read_compact_nullable_string,
    read_string,
    skip_tagged_fields,
)

HANDSHAKE_VERSION: Final = 1
AUTHENTICATE_VERSION: Final = 2


class AuthenticateResponse(NamedTuple):
    """What came back for a token; the token could be a secret and is a copy."""

    error_code: int
    error_message: str | None
    token: bytes


def encode_sasl_handshake_request(mechanism: str) -> bytes:
    """Return the body of a SaslHandshake request."""
    return encode_string(mechanism)


def decode_sasl_handshake_response(body: memoryview) -> tuple[int, list[str]]:
    """Return (error code, the mechanisms that the server has). Raises DecodeError."""
    try:
        (error_code,) = INT16.unpack_from(body, 0)
        count, pos = read_array_length(body, 2, 2)
        mechanisms = []
        for _ in range(count):
            mechanism, pos = read_string(body, pos)
            mechanisms.append(mechanism)
    except MALFORMED as error:
        raise DecodeError(f"malformed SaslHandshake response: {error}") from error
    return error_code, mechanisms


def encode_sasl_authenticate_request(token: bytes) -> bytes:
    """Return the body of a SaslAuthenticate request."""
    return encode_uvarint(len(token) + 1) + token + b"\0"


def decode_sasl_authenticate_response(body: memoryview) -> AuthenticateResponse:
    """Decode a SaslAuthenticate response; the lifetime of the session is left out. Raises DecodeError."""
    try:
        (error_code,) = INT16.unpack_from(body, 0)
        message, pos = read_compact_nullable_string(body, 2)
        length, pos = read_compact_length(body, pos)
        if length < 0:
            raise DecodeError("null where a token must be")
        token = bytes(body[pos : pos + length])
        skip_tagged_fields(body, pos + length + INT64.size)
    except MALFORMED:
        # The error's own text could quote the token.
        raise DecodeError("malformed SaslAuthenticate response") from None
    return AuthenticateResponse(error_code, message, token)
