"""Every bound of the network part in one place.

What happens at a bound is back-pressure or a closed connection with a logged reason, never growth.
"""

from __future__ import annotations

from dataclasses import dataclass

from strandline_broker.net.buffers import capacity_for

# The first four bytes of a TLS hello or of an HTTP request, read as a length, are above this: they are always
# refused, with a message that says what the client was.
MAX_FRAME_BYTES_CEILING = 256 * 1024 * 1024

# A frame up to this size is put together in the shared receive buffer, a larger one in a buffer of its own.
SMALL_FRAME_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one server. Sizes in bytes, times in milliseconds; the defaults suit a broker of a few GB.

    Names in parentheses are the Kafka settings of the same meaning. Raises ValueError for values that cannot
    work.
    """

    max_frame_bytes: int = 100 * 1024 * 1024
    """Largest request (socket.request.max.bytes), at most 256 MiB; a longer one closes its connection."""
    max_connections: int = 10_000
    """Open connections (max.connections). Internal listeners count apart: clients cannot lock brokers out."""
    max_connections_per_address: int = 5_000
    """Open connections of one client address (max.connections.per.ip); on internal listeners any number."""
    max_in_flight_requests: int = 1_000
    """Requests of one connection that wait for their answer; at the limit it is not read from."""
    max_requests_per_burst: int = 2_000
    """Requests handled at one go before other connections get their turn."""
    request_memory_bytes: int = 256 * 1024 * 1024
    """Memory for requests that arrived in part or wait (queued.max.request.bytes). At the limit connections
    wait in line; one eighth is kept for small requests, so large ones cannot block everybody."""
    request_memory_cache_bytes: int = 32 * 1024 * 1024
    """Idle buffers kept for reuse; unused ones are given back within some ten seconds."""
    receive_buffer_bytes: int = 256 * 1024
    """The one buffer that all connections read into; at least 128 KiB."""
    output_backlog_bytes: int = 8 * 1024 * 1024
    """Unsent answers of one connection; above it nothing more is read from it until half is gone."""
    send_quantum_bytes: int = 4 * 1024 * 1024
    """Bytes sent to one connection at one go before other connections get their turn."""
    idle_timeout_ms: int = 600_000
    """A connection without traffic and without a waiting request is closed (connections.max.idle.ms)."""
    frame_timeout_ms: int = 30_000
    """A request that began must be complete after this time and its size over `frame_min_bytes_per_s`."""
    frame_min_bytes_per_s: int = 64 * 1024
    """Slower large requests are cut off when others wait for memory (after `slow_frame_grace_ms`)."""
    slow_frame_grace_ms: int = 5_000
    """Time that a large request has before its rate is judged while others wait for memory."""
    tls_handshake_timeout_ms: int = 10_000
    """A TLS handshake must be complete after this time."""
    half_close_timeout_ms: int = 10_000
    """After a client ended its sending side, its last answers have this long to be sent."""
    certificate_check_interval_ms: int = 10_000
    """How often certificate files are looked at for changes."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, is {getattr(self, name)}")
        if self.max_frame_bytes > MAX_FRAME_BYTES_CEILING:
            raise ValueError(f"max_frame_bytes must be at most {MAX_FRAME_BYTES_CEILING}")
        if self.receive_buffer_bytes < 2 * SMALL_FRAME_BYTES:
            raise ValueError(f"receive_buffer_bytes must be at least {2 * SMALL_FRAME_BYTES}")
        needed = capacity_for(self.max_frame_bytes + 4) * 8 // 7 + 8
        if self.request_memory_bytes < needed:
            raise ValueError(
                f"request_memory_bytes must be at least {needed} for max_frame_bytes {self.max_frame_bytes},"
                " or a request of that size could never be read"
            )
