"""Names clients that speak another protocol than the listener's: a wrong port or security setting.

Used by `net.connection` and `net.tls_stream`; pure.
"""

from __future__ import annotations

from strandline_broker.net.metrics import CloseReason

_TLS_HANDSHAKE = 0x16
_HTTP_METHODS = (b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN", b"PRI ")


def describe_bad_length(
    size: int, first_bytes: bytes, max_frame_bytes: int, is_first: bool
) -> tuple[CloseReason, str]:
    """Return why a frame with this length prefix is refused; `first_bytes` are at least the prefix."""
    if is_first:
        if first_bytes[0] == _TLS_HANDSHAKE and first_bytes[1] == 3:
            return CloseReason.TLS_ON_PLAIN, (
                "a TLS client on a listener without TLS: check security.protocol and the port of the client"
            )
        if first_bytes[:4] in _HTTP_METHODS:
            return CloseReason.HTTP_ON_PLAIN, "an HTTP client on a Kafka listener"
    if size <= 0:
        return CloseReason.BAD_LENGTH, f"a request of {size} bytes"
    return CloseReason.TOO_LARGE, f"a request of {size} bytes, the limit is {max_frame_bytes}"


def is_tls(first_byte: int) -> bool:
    """Whether a connection that starts with this byte can be TLS (RFC 8446, 5.1: a handshake record)."""
    return first_byte == _TLS_HANDSHAKE
