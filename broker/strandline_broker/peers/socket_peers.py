"""Connections to other brokers over the network seam, authenticated by the token that all brokers share.

A connection is a Kafka connection: SaslHandshake 1, then SCRAM-SHA-256 in SaslAuthenticate 2, for one user with the token
as its password. The token itself is never sent, a listener that does not know it is refused, and what was recorded on
the way is of no use to log in.

The token has 256 random bits where the operator or `strandline dev` makes it, so nobody guesses it, and stretching it
would protect nothing: the server asks for SCRAM's minimum of 4,096 iterations. Deriving keys takes 2 ms, in a thread,
and once per broker that is talked to: the salt is the server's until it starts anew.

Made by the composition root; `replica` sees `peers.contract`.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from concurrent.futures import Executor

from strandline_broker.errors import ErrorCode
from strandline_broker.peers.connection import SocketPeerConnection
from strandline_broker.peers.contract import PeerError
from strandline_broker.seams.network import Network
from strandline_broker.security.inter_broker import MECHANISM, USER_NAME
from strandline_broker.security.scram_client import (
    ClientKeys,
    ScramClient,
    ScramRefused,
    derive_client_keys,
)
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.errors import DecodeError
from strandline_broker.wire.sasl_client import (
    AUTHENTICATE_VERSION,
    HANDSHAKE_VERSION,
    decode_sasl_authenticate_response,
    decode_sasl_handshake_response,
    encode_sasl_authenticate_request,
    encode_sasl_handshake_request,
)

# Of a server that has not proven anything yet.
_MAX_LOGIN_ANSWER_BYTES = 16 * 1024
# As Kafka's maximum, 7 ms of CPU: who asks for more is no broker of ours.
_MAX_ITERATIONS = 16_384
_MAX_CACHED_KEYS = 64
_MAX_MESSAGE_CHARACTERS = 200


class SocketPeers:
    """Implements `peers.contract.Peers`."""

    def __init__(
        self,
        network: Network,
        *,
        token: Callable[[], str],
        client_id: str,
        rng: random.Random,
        executor: Executor,
        connect_timeout_s: float,
        request_timeout_s: float,
        max_response_bytes: int,
    ) -> None:
        """`token` returns the token of the moment, which changes when it is rotated; `executor` derives keys.

        `client_id` is for others' logs. `connect_timeout_s` covers connecting and authentication, `request_timeout_s` one
        request from its first byte out to the last byte in. An answer above `max_response_bytes` ends its connection.
        """
        self._network = network
        self._token = token
        self._client_id = client_id
        self._rng = rng
        self._executor = executor
        self._connect_timeout_s = connect_timeout_s
        self._request_timeout_s = request_timeout_s
        self._max_response_bytes = max_response_bytes
        # Keys of one token by salt and iterations.
        self._keys: dict[tuple[bytes, int], ClientKeys] = {}
        self._keys_token = ""

    async def connect(self, host: str, port: int) -> SocketPeerConnection:
        """See `contract.Peers.connect`."""
        name = f"broker at {host}:{port}"
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                return await self._connect(name, host, port)
        except TimeoutError:
            raise PeerError(f"{name}: not connected within {self._connect_timeout_s:g} s") from None
        except OSError as error:
            # asyncio's own text says "Connect call failed" whatever happened; those of name resolution are negative.
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror or error
            raise PeerError(f"{name}: {reason}") from error
        except (DecodeError, ScramRefused) as error:
            raise PeerError(f"{name}: {error}") from error

    async def _connect(self, name: str, host: str, port: int) -> SocketPeerConnection:
        stream = await self._network.connect(host, port)
        try:
            connection = SocketPeerConnection(
                stream,
                name,
                client_id=self._client_id,
                request_timeout_s=self._request_timeout_s,
                max_response_bytes=_MAX_LOGIN_ANSWER_BYTES,
                buffer_bytes=self._max_response_bytes,
            )
        except BaseException:
            stream.close()
            raise
        try:
            await self._authenticate(name, connection)
        except BaseException:
            connection.close()
            raise
        connection.max_response_bytes = self._max_response_bytes
        return connection

    async def _authenticate(self, name: str, connection: SocketPeerConnection) -> None:
        token = self._token()
        login = ScramClient(MECHANISM, USER_NAME, self._rng, max_iterations=_MAX_ITERATIONS)
        error_code, _ = decode_sasl_handshake_response(
            await connection.request(
                ApiKey.SASL_HANDSHAKE, HANDSHAKE_VERSION, encode_sasl_handshake_request(MECHANISM)
            )
        )
        if error_code:
            raise PeerError(f"{name}: not a listener between brokers ({_name_of(error_code)})")
        salt, iterations = login.challenged(await _exchange(name, connection, login.first()))
        keys = await self._keys_of(token, salt, iterations)
        login.verify(await _exchange(name, connection, login.final(keys)))

    async def _keys_of(self, token: str, salt: bytes, iterations: int) -> ClientKeys:
        if token != self._keys_token:
            self._keys.clear()
            self._keys_token = token
        keys = self._keys.get((salt, iterations))
        if keys is None:
            keys = await asyncio.get_running_loop().run_in_executor(
                self._executor, derive_client_keys, MECHANISM, token, salt, iterations
            )
            if token == self._keys_token:
                if len(self._keys) >= _MAX_CACHED_KEYS:
                    del self._keys[next(iter(self._keys))]
                self._keys[salt, iterations] = keys
        return keys


async def _exchange(name: str, connection: SocketPeerConnection, token: bytes) -> bytes:
    """Send a token and return the one that comes back."""
    answer = decode_sasl_authenticate_response(
        await connection.request(
            ApiKey.SASL_AUTHENTICATE, AUTHENTICATE_VERSION, encode_sasl_authenticate_request(token)
        )
    )
    if answer.error_code:
        message = (answer.error_message or _name_of(answer.error_code))[:_MAX_MESSAGE_CHARACTERS]
        raise PeerError(f"{name}: it does not accept our token: {message!r}")
    return answer.token


def _name_of(error_code: int) -> str:
    try:
        return ErrorCode(error_code).name
    except ValueError:
        return f"error {error_code}"
