"""Counters of the network part: plain integers that the loop's thread adds to and that `/metrics` reads."""

from __future__ import annotations

from enum import StrEnum


class CloseReason(StrEnum):
    """Why a connection ended, or was refused. The values are metric labels: a fixed, small set."""

    PEER_CLOSED = "peer_closed"
    BROKEN = "broken"  # reset, timed out, ...
    HANDLER = "handler"  # the request handler asked for it
    SHUTDOWN = "shutdown"
    IDLE = "idle"
    BAD_LENGTH = "bad_length"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    HANDLER_ERROR = "handler_error"
    INTERNAL_ERROR = "internal_error"  # a bug in this package, or no memory
    SLOW_FRAME = "slow_frame"
    SEND_FAILED = "send_failed"  # the file behind an answer is shorter than promised, or cannot be read
    TLS_ON_PLAIN = "tls_on_plain"
    HTTP_ON_PLAIN = "http_on_plain"
    PLAIN_ON_TLS = "plain_on_tls"
    TLS_FAILED = "tls_failed"
    TLS_TIMEOUT = "tls_timeout"
    UNAUTHENTICATED = "unauthenticated"  # a request that only authenticated clients may send
    AUTHENTICATION_FAILED = "authentication_failed"
    AUTHENTICATION_TIMEOUT = "authentication_timeout"
    SESSION_EXPIRED = "session_expired"
    CONNECTION_LIMIT = "connection_limit"
    ADDRESS_LIMIT = "address_limit"


class NetMetrics:
    """Totals since the start, and gauges where the name says `open` or `in_use`."""

    __slots__ = (
        "accept_errors",
        "backlog_pauses",
        "bursts",
        "bytes_in",
        "bytes_out",
        "certificate_reload_failures",
        "certificate_reloads",
        "closed",
        "connections_accepted",
        "connections_open",
        "in_flight_pauses",
        "memory_waits",
        "open_by_listener",
        "request_memory_in_use_bytes",
        "requests",
        "throttles",
        "tls_handshakes",
    )

    def __init__(self) -> None:
        self.connections_accepted = 0
        self.connections_open = 0
        self.open_by_listener: dict[str, int] = {}
        self.closed: dict[CloseReason, int] = dict.fromkeys(CloseReason, 0)
        """Connections ended or refused, by reason; the frame reasons are the rejected frames."""
        self.accept_errors = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.requests = 0
        self.bursts = 0
        """Runs of requests handled together; requests / bursts says how much clients pipeline."""
        self.memory_waits = 0
        self.backlog_pauses = 0
        self.in_flight_pauses = 0
        self.throttles = 0
        self.request_memory_in_use_bytes = 0
        """Refreshed every second."""
        self.tls_handshakes = 0
        self.certificate_reloads = 0
        self.certificate_reload_failures = 0
