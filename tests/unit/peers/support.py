"""A server with a listener between brokers, whose answers a test decides, and the peers that connect to it."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from strandline_broker.api.sasl_authenticate import SaslAuthenticateHandler
from strandline_broker.api.sasl_handshake import SaslHandshakeHandler
from strandline_broker.net.connection import Connection
from strandline_broker.net.handler import Pending, Response
from strandline_broker.net.server import ListenerConfig, Server
from strandline_broker.peers.socket_peers import SocketPeers
from strandline_broker.seams.clock import SystemClock
from strandline_broker.seams.local_network import LocalNetwork
from strandline_broker.server.config import load
from strandline_broker.server.inter_broker import InterBroker, TokenFile
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.header import RequestHeader, decode_request_header

EXECUTOR = ThreadPoolExecutor(1, "peers-tests")
TOKEN = "0123456789abcdef" * 4
OTHER_TOKEN = "fedcba9876543210" * 4

Answer = Callable[[RequestHeader, memoryview], Response | Pending | None]


def answer(header: RequestHeader, body: bytes, *, flexible: bool = True) -> bytes:
    """A response frame."""
    head = struct.pack(">i", header.correlation_id) + (b"\0" if flexible else b"")
    return struct.pack(">i", len(head) + len(body)) + head + body


def echo(header: RequestHeader, frame: memoryview) -> bytes:
    return answer(header, bytes(frame[header.body_offset :]))


class Handler:
    """Does what `api.dispatch` does for SASL, and lets the test answer the rest."""

    def __init__(self) -> None:
        self.answer: Answer = echo
        self.headers: list[RequestHeader] = []
        self.principals: list[str] = []
        self._shake = SaslHandshakeHandler()
        self._token = SaslAuthenticateHandler()

    def handle(self, connection: Connection, frame: memoryview, /) -> Response | Pending | None:
        gate = connection.context
        if gate is not None and gate.intercepts(frame):
            answered: Response | Pending | None = gate.answer(frame)
            return answered
        header = decode_request_header(frame)
        if header.api_key == ApiKey.SASL_HANDSHAKE:
            return self._shake.handle(connection, header, frame)
        if header.api_key == ApiKey.SASL_AUTHENTICATE:
            return self._token.handle(connection, header, frame)
        self.headers.append(header)
        self.principals.append(connection.principal)
        return self.answer(header, frame)

    def end_of_burst(self) -> None:
        pass

    def connection_lost(self, connection: Connection, /) -> None:
        if connection.context is not None:
            connection.context.closed()


class Here:
    """A server that brokers connect to."""

    def __init__(
        self, server: Server, handler: Handler, port: int, token_file: Path, inter: InterBroker
    ) -> None:
        self.server = server
        self.handler = handler
        self.port = port
        self.token_file = token_file
        self.inter_broker = inter

    def peers(self, token: str = TOKEN, **options: Any) -> SocketPeers:
        return peers_with(token, **options)


def peers_with(token: str = TOKEN, **options: Any) -> SocketPeers:
    options = {"connect_timeout_s": 10, "request_timeout_s": 30, "max_response_bytes": 1 << 24} | options
    return SocketPeers(
        LocalNetwork(),
        token=lambda: token,
        client_id="broker-7",
        rng=random.Random(7),
        executor=EXECUTOR,
        **options,
    )


@contextlib.asynccontextmanager
async def between_brokers(directory: Path, token: str = TOKEN) -> AsyncIterator[Here]:
    token_file = directory / "token"
    token_file.write_text(token)
    keys = ["broker_id=1", "data_dir=/d", "store=sqlite:/d/c", "connection_failed_authentication_delay_ms=1"]
    inter = InterBroker(
        load(None, keys, {}),
        TokenFile(str(token_file)),
        clock=SystemClock(),
        rng=random.Random(5),
        executor=EXECUTOR,
    )
    handler = Handler()
    server = Server(LocalNetwork(), handler)
    _, port = await server.open(
        ListenerConfig("INTERNAL", "127.0.0.1", 0, internal=True, connected=inter.guard)
    )
    try:
        yield Here(server, handler, port, token_file, inter)
    finally:
        await server.close(grace_ms=100)
