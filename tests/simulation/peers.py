"""Connections between simulated brokers: the product's own, over the simulated network, without a login.

`SocketPeerConnection` and the internal listener's connections are the real ones. What is left out is SCRAM: 2 ms of
key derivation per connection, which has its own tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strandline_broker.peers.connection import SocketPeerConnection
from strandline_broker.peers.contract import PeerError

if TYPE_CHECKING:
    from tests.simulation.network import HostNetwork

REQUEST_TIMEOUT_S = 5.0
_MAX_RESPONSE_BYTES = 16 << 20


class SimPeers:
    """Implements `peers.contract.Peers`."""

    def __init__(self, network: HostNetwork, client_id: str) -> None:
        self._network = network
        self._client_id = client_id

    async def connect(self, host: str, port: int) -> SocketPeerConnection:
        """See `Peers.connect`."""
        try:
            stream = await self._network.connect(host, port)
        except OSError as error:
            raise PeerError(str(error)) from error
        return SocketPeerConnection(
            stream,
            f"{host}:{port}",
            client_id=self._client_id,
            request_timeout_s=REQUEST_TIMEOUT_S,
            max_response_bytes=_MAX_RESPONSE_BYTES,
            buffer_bytes=_MAX_RESPONSE_BYTES,
        )
