"""Named listeners, admission of connections, deadlines, and the graceful end.

The composition root creates one `Server` with the network seam, the request handler and the limits, opens
each listener, and at the end awaits `close`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from strandline_broker.net.connection import Connection, Listener
from strandline_broker.net.handler import RequestHandler
from strandline_broker.net.hub import Hub
from strandline_broker.net.limits import Limits
from strandline_broker.net.metrics import CloseReason, NetMetrics
from strandline_broker.net.ticker import Ticker
from strandline_broker.net.tls import ReloadingContext, TlsConfig, principal_of
from strandline_broker.net.tls_stream import NotTlsError, TlsScratch, TlsStream
from strandline_broker.seams.network import Address, ListenSocket, Network, Stream

_MIN_TICK_S = 0.05
_TRIM_INTERVAL_S = 10.0


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """A listener to open; `internal` is for brokers, whose connections are counted apart from clients'.

    `connected` is called with every new connection before anything of it is read.
    """

    name: str
    host: str
    port: int
    internal: bool = False
    tls: TlsConfig | None = None
    connected: Callable[[Connection], None] | None = None


@dataclass(slots=True)
class _Open:
    """An open listener."""

    listener: Listener
    context: ReloadingContext | None
    connected: Callable[[Connection], None] | None
    socket: ListenSocket | None = None


class Server:
    """Serves one request handler on several listeners, in one event loop. Create it in a running loop."""

    def __init__(
        self,
        network: Network,
        handler: RequestHandler,
        limits: Limits | None = None,
        *,
        metrics: NetMetrics | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.metrics = metrics or NetMetrics()
        self._network = network
        self._loop = asyncio.get_running_loop()
        self._hub = Hub(self._loop, handler, self.limits, self.metrics, self._removed)
        self._open: dict[str, _Open] = {}
        self._handshakes: dict[TlsStream, tuple[Listener, asyncio.TimerHandle]] = {}
        self._scratch: TlsScratch | None = None
        # Open connections, handshakes included: per kind (internal or not) and per kind and address.
        self._counts = {False: 0, True: 0}
        self._address_counts: dict[tuple[bool, str], int] = {}
        self._stopping = False
        self._all_gone = asyncio.Event()
        limit = self.limits
        frames_s = min(limit.frame_timeout_ms, limit.slow_frame_grace_ms) / 4000
        times_s = min(limit.idle_timeout_ms, limit.half_close_timeout_ms) / 4000
        self._tickers = [
            self._ticker(min(1.0, frames_s), self._check_frames),
            self._ticker(min(5.0, times_s), self._check_times),
            self._ticker(limit.certificate_check_interval_ms / 1000, self.reload_certificates),
            self._ticker(_TRIM_INTERVAL_S, self._hub.pool.trim),
        ]

    def _ticker(self, interval_s: float, callback: Callable[[], object]) -> Ticker:
        return Ticker(self._loop, max(_MIN_TICK_S, interval_s), callback)

    @property
    def connections(self) -> frozenset[Connection]:
        """The established connections (without those in a TLS handshake)."""
        return frozenset(self._hub.connections)

    async def open(self, config: ListenerConfig) -> Address:
        """Open a listener and return its bound address. Raises OSError (address or certificate files)."""
        if config.name in self._open:
            raise ValueError(f"listener {config.name} is open already")
        context = ReloadingContext(config.tls) if config.tls else None
        listener = Listener(config.name, config.internal, context is not None)
        entry = _Open(listener, context, config.connected)
        self._open[config.name] = entry
        self.metrics.open_by_listener[config.name] = 0
        try:
            entry.socket = await self._network.listen(
                config.host,
                config.port,
                lambda stream: self._accepted(entry, stream),
                failed=self._accept_failed,
            )
        except BaseException:
            del self._open[config.name], self.metrics.open_by_listener[config.name]
            raise
        return entry.socket.host, entry.socket.port

    def address(self, name: str) -> Address:
        """Return the bound address of a listener. Raises KeyError."""
        socket = self._open[name].socket
        if socket is None:
            raise KeyError(name)
        return socket.host, socket.port

    # --- admission ------------------------------------------------------------------------------------------

    def _accept_failed(self, error: OSError) -> None:
        self.metrics.accept_errors += 1
        hint = "; raise the limit of open files (ulimit -n)" if error.errno == errno.EMFILE else ""
        self._hub.log.log(logging.ERROR, "accept", f"cannot accept connections: {error}{hint}")

    def _accepted(self, entry: _Open, stream: Stream) -> None:
        listener = entry.listener
        self.metrics.connections_accepted += 1
        if self._stopping:
            self._refuse(listener, stream, CloseReason.SHUTDOWN, "the broker stops", counted=False)
            return
        kind = listener.internal
        key = (kind, stream.peer[0])
        at_address = self._address_counts.get(key, 0)
        if self._counts[kind] >= self.limits.max_connections:
            text = f"{self._counts[kind]} connections are open, the limit"
            self._refuse(listener, stream, CloseReason.CONNECTION_LIMIT, text, counted=False)
            return
        # Brokers may well share an address, and theirs are few.
        if at_address >= self.limits.max_connections_per_address and not kind:
            text = f"{at_address} connections of this address are open, the limit"
            self._refuse(listener, stream, CloseReason.ADDRESS_LIMIT, text, counted=False)
            return
        self._counts[kind] += 1
        self._address_counts[key] = at_address + 1
        self.metrics.connections_open += 1
        self.metrics.open_by_listener[listener.name] += 1
        if entry.context is None:
            self._serve(entry, Connection(self._hub, stream, listener))
        else:
            self._start_handshake(entry, entry.context.current, stream)

    def _serve(self, entry: _Open, connection: Connection) -> None:
        self._hub.connections[connection] = None
        if entry.connected is not None:
            entry.connected(connection)
        try:
            connection.start()
        except OSError as error:  # the selector refused it (out of memory or watches)
            connection.close(str(error), CloseReason.INTERNAL_ERROR)

    def _refuse(
        self, listener: Listener, stream: Stream, kind: CloseReason, text: str, *, counted: bool = True
    ) -> None:
        """Close a stream that never became a connection."""
        stream.close()
        if counted:
            self._uncount(listener, stream.peer)
        self.metrics.closed[kind] += 1
        level = logging.DEBUG if kind is CloseReason.SHUTDOWN else logging.WARNING
        host, port = stream.peer
        self._hub.log.log(level, kind, f"refused {host}:{port} on listener {listener.name}: {text}")

    def _uncount(self, listener: Listener, peer: Address) -> None:
        kind = listener.internal
        key = (kind, peer[0])
        self._counts[kind] -= 1
        left = self._address_counts[key] - 1
        if left:
            self._address_counts[key] = left
        else:
            del self._address_counts[key]
        self.metrics.connections_open -= 1
        self.metrics.open_by_listener[listener.name] -= 1

    def _removed(self, connection: Connection) -> None:
        """Forget a connection that tore itself down; called by it through the hub."""
        self._hub.connections.pop(connection, None)
        self._uncount(connection.listener, connection.peer)
        if self._stopping and not self._hub.connections:
            self._all_gone.set()

    # --- TLS ------------------------------------------------------------------------------------------------

    def _start_handshake(self, entry: _Open, context: ssl.SSLContext, raw: Stream) -> None:
        listener = entry.listener
        if self._scratch is None:
            self._scratch = TlsScratch()
        try:
            stream = TlsStream(raw, context, self._scratch, self._loop)
        except OSError as error:
            self._refuse(listener, raw, CloseReason.INTERNAL_ERROR, f"cannot begin TLS: {error}")
            return
        timeout_ms = self.limits.tls_handshake_timeout_ms

        def expired() -> None:
            del self._handshakes[stream]
            text = f"no TLS handshake within {timeout_ms} ms"
            self._refuse(listener, stream, CloseReason.TLS_TIMEOUT, text)

        def done(error: OSError | None) -> None:
            self._handshakes.pop(stream)[1].cancel()
            if error is None:
                self.metrics.tls_handshakes += 1
                principal = principal_of(stream.peer_certificate)
                self._serve(entry, Connection(self._hub, stream, listener, principal))
            elif isinstance(error, NotTlsError):
                self._refuse(listener, stream, CloseReason.PLAIN_ON_TLS, str(error))
            else:
                self._refuse(listener, stream, CloseReason.TLS_FAILED, f"TLS handshake failed: {error}")

        self._handshakes[stream] = (listener, self._loop.call_later(timeout_ms / 1000, expired))
        try:
            stream.handshake(done)
        except OSError as error:
            done(error)

    def reload_certificates(self) -> None:
        """Take up changed certificate files for new connections; happens by itself every ten seconds or so.

        Files that cannot be used are logged, and the certificate in use stays.
        """
        for name, entry in self._open.items():
            if entry.context is None:
                continue
            try:
                if entry.context.check():
                    self.metrics.certificate_reloads += 1
                    self._hub.log.log(
                        logging.INFO, "certificate", f"listener {name} uses a new certificate from now on"
                    )
            except OSError as error:
                self.metrics.certificate_reload_failures += 1
                self._hub.log.log(
                    logging.ERROR,
                    "certificate_failed",
                    f"listener {name} keeps its certificate, the changed files cannot be used: {error}",
                )

    # --- deadlines ------------------------------------------------------------------------------------------

    def _check_frames(self) -> None:
        hub = self._hub
        self.metrics.request_memory_in_use_bytes = hub.pool.in_use
        if hub.frame_started:
            now = self._loop.time()
            contended = hub.pool.contended
            for connection, started in list(hub.frame_started.items()):
                connection.check_frame(now, started, contended=contended)

    def _check_times(self) -> None:
        now = self._loop.time()
        idle_timeout_s = self.limits.idle_timeout_ms / 1000
        for connection in list(self._hub.connections):
            connection.check_time(now, idle_timeout_s)

    # --- the end --------------------------------------------------------------------------------------------

    async def close(self, grace_ms: int = 5_000) -> None:
        """Stop accepting and reading at once, send open answers for up to `grace_ms`, then close all."""
        if self._stopping:
            await self._all_gone.wait()
            return
        self._stopping = True
        for entry in self._open.values():
            if entry.socket is not None:
                entry.socket.close()
        for ticker in self._tickers:
            ticker.stop()
        for stream, (listener, timer) in self._handshakes.items():
            timer.cancel()
            self._refuse(listener, stream, CloseReason.SHUTDOWN, "the broker stops")
        self._handshakes.clear()
        for connection in list(self._hub.connections):
            connection.drain(grace_ms / 1000, CloseReason.SHUTDOWN, "the broker stops")
        watch = Ticker(self._loop, _MIN_TICK_S, self._check_times)
        try:
            if self._hub.connections:
                async with asyncio.timeout(grace_ms / 1000):
                    await self._all_gone.wait()
        except TimeoutError:
            pass  # the deadline of the grace; what is left is closed below
        finally:
            watch.stop()
            for connection in list(self._hub.connections):
                connection.close("the broker stops", CloseReason.SHUTDOWN)
            self._all_gone.set()
