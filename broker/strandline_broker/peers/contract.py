"""What `replica` asks of the network between brokers; sockets and simulators implement it.

`peers.socket_peers` is the real one. Everything runs on the event loop's thread.
"""

from __future__ import annotations

from typing import Protocol

from strandline_broker.wire.api_keys import ApiKey


class PeerError(Exception):
    """The connection broke, was refused, timed out, or the answer made no sense; connect again later."""


class PeerConnection(Protocol):
    """A connection to one broker, which has authenticated us and has proven itself."""

    async def request(self, api_key: ApiKey, version: int, body: bytes) -> memoryview:
        """Send one request and return the body of its answer; one request at a time.

        The body begins after the response header: the correlation id is checked, the header's tagged fields are skipped.
        It is valid until the next request on this connection, and writable. Raises PeerError, after which, as after a
        cancellation, the connection is of no use.
        """
        ...

    def close(self) -> None:
        """End the connection; idempotent. A request under way ends with PeerError."""
        ...


class Peers(Protocol):
    """Where connections to other brokers come from."""

    async def connect(self, host: str, port: int) -> PeerConnection:
        """Return a connection that is open and authenticated. Raises PeerError."""
        ...
