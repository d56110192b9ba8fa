"""SaslHandshake 0-1 and SaslAuthenticate 0-2: the requests of clients that nobody knows yet, so their codec is small.

No error quotes what was sent: it could be a password.

Source: Apache Kafka, `SaslHandshake*.json`, `SaslAuthenticate*.json`; KIP-43, KIP-152, KIP-368.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from strandline_broker.wire.errors import DecodeError
from strandline_broker.wire.primitives import (
    INT16,
    INT32,
    INT64,
    encode_compact_nullable_string,
    encode_nullable_string,
    encode_string,
    encode_uvarint,
    read_compact_length,
    read_string,
    skip_tagged_fields,
)

_FIRST_FLEXIBLE: Final = 2
_FIRST_WITH_LIFETIME: Final = 1
_PREFIX = struct.Struct(">ii").pack


def decode_sasl_handshake(frame: memoryview, body_offset: int) -> str:
    """Return the mechanism that a client wants, of any version. Raises DecodeError."""
    try:
        return read_string(frame, body_offset)[0]
    except (struct.error, IndexError, UnicodeDecodeError):
        raise DecodeError("malformed SaslHandshake request") from None


def encode_sasl_handshake_response(correlation_id: int, error_code: int, mechanisms: Sequence[str]) -> bytes:
    """Encode a whole response frame of any version."""
    body = INT16.pack(error_code) + INT32.pack(len(mechanisms)) + b"".join(map(encode_string, mechanisms))
    return _PREFIX(len(body) + 4, correlation_id) + body


def decode_sasl_authenticate(frame: memoryview, body_offset: int, version: int) -> bytes:
    """Return a copy of the token. Raises DecodeError."""
    try:
        if version >= _FIRST_FLEXIBLE:
            length, start = read_compact_length(frame, body_offset)
        else:
            (length,) = INT32.unpack_from(frame, body_offset)
            start = body_offset + 4
        if not 0 <= length <= len(frame) - start:
            raise DecodeError(f"a token of {length} bytes in a request of {len(frame)}")
        token = bytes(frame[start : start + length])
        if version >= _FIRST_FLEXIBLE:
            skip_tagged_fields(frame, start + length)
    except (struct.error, IndexError):
        raise DecodeError("malformed SaslAuthenticate request") from None
    return token


def encode_sasl_authenticate_response(
    version: int,
    correlation_id: int,
    error_code: int,
    message: str | None,
    token: bytes,
    session_lifetime_ms: int,
) -> bytes:
    """Encode a whole response frame, length prefix and header included."""
    if version >= _FIRST_FLEXIBLE:
        body = b"\0" + INT16.pack(error_code) + encode_compact_nullable_string(message)
        body += encode_uvarint(len(token) + 1) + token + INT64.pack(session_lifetime_ms) + b"\0"
    else:
        body = INT16.pack(error_code) + encode_nullable_string(message) + INT32.pack(len(token)) + token
        if version >= _FIRST_WITH_LIFETIME:
            body += INT64.pack(session_lifetime_ms)
    return _PREFIX(len(body) + 4, correlation_id) + body
