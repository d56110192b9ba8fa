"""The real network: non-blocking sockets on asyncio's `add_reader` and `add_writer`.

Composition roots and tests create `LocalNetwork`; everybody else sees the protocols of `seams.network`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from strandline_broker.seams.disk import Buffer, File
from strandline_broker.seams.network import Address, Stream

_log = logging.getLogger(__name__)

_ACCEPTS_PER_WAKEUP = 64
_COPY_CHUNK_BYTES = 256 * 1024
_MSG_MORE: int = getattr(socket, "MSG_MORE", 0)
# The process or the machine is out of something that comes back: wait, then go on (accept(2)).
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_ACCEPT_PAUSE_S = 0.1
_ACCEPT_PAUSE_MAX_S = 2.0
# Probe a silent peer after a minute and give it another: half-open connections end after two minutes.
_KEEPALIVE_OPTIONS = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6))


def _prepare(sock: socket.socket) -> None:
    sock.settimeout(0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE_OPTIONS:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _plain_address(address: Any) -> Address:
    """Return host and port of a socket address, without IPv6 scope and with IPv4-mapped addresses as IPv4."""
    host, port = address[0], address[1]
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return host, port


class LocalStream:
    """A connected TCP socket. `recv_into` is the socket's own method: no Python frame on the way in."""

    __slots__ = ("_fd", "_loop", "_reading", "_sock", "_writing", "peer", "recv_into", "unsent")

    def __init__(self, sock: socket.socket, peer: Address, loop: asyncio.AbstractEventLoop) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._loop = loop
        self._reading = False
        self._writing = False
        self.peer = peer
        self.unsent = 0
        self.recv_into: Callable[[memoryview], int] = sock.recv_into

    def send(self, parts: Sequence[Buffer], /, *, more: bool = False) -> int:
        """See `Stream.send`."""
        if more:
            return self._sock.sendmsg(parts, (), _MSG_MORE)
        if len(parts) == 1:
            return self._sock.send(parts[0])
        return self._sock.sendmsg(parts)

    def sendfile(self, file: File, offset: int, count: int, /) -> int:
        """See `Stream.sendfile`; files without a descriptor are copied."""
        descriptor = file.fileno()
        if descriptor >= 0:
            return os.sendfile(self._fd, descriptor, offset, count)
        data = file.pread(min(count, _COPY_CHUNK_BYTES), offset)
        return self._sock.send(data) if data else 0

    def set_reader(self, callback: Callable[[], None] | None, /) -> None:
        """See `Stream.set_reader`."""
        if callback is not None:
            self._loop.add_reader(self._fd, callback)
            self._reading = True
        elif self._reading:
            self._loop.remove_reader(self._fd)
            self._reading = False

    def set_writer(self, callback: Callable[[], None] | None, /) -> None:
        """See `Stream.set_writer`."""
        if callback is not None:
            self._loop.add_writer(self._fd, callback)
            self._writing = True
        elif self._writing:
            self._loop.remove_writer(self._fd)
            self._writing = False

    def shutdown_write(self) -> None:
        """See `Stream.shutdown_write`."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other side was faster: the reader sees it

    def close(self) -> None:
        """See `Stream.close`."""
        if self._fd < 0:
            return
        self.set_reader(None)
        self.set_writer(None)
        self._fd = -1
        try:
            self._sock.close()
        except OSError:
            pass  # close(2) may report an old error (ECONNRESET); the descriptor is gone in any case


class _Acceptor:
    """One listening socket. Errors of accept(2) pause it at most; nothing that happens here ends it."""

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        accepted: Callable[[Stream], None],
        failed: Callable[[OSError], None] | None,
    ) -> None:
        self._sock = sock
        self._loop = loop
        self._accepted = accepted
        self._failed = failed
        self._pause_s = _ACCEPT_PAUSE_S
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        loop.add_reader(sock.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        for _ in range(_ACCEPTS_PER_WAKEUP):
            if self._closed:
                return
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if self._failed is not None:
                    self._failed(error)
                if error.errno in _OUT_OF_RESOURCES:
                    self._pause()
                    return
                continue  # the client was gone again (ECONNABORTED and the network errors of accept(2))
            self._pause_s = _ACCEPT_PAUSE_S
            self._take(sock, address)

    def _take(self, sock: socket.socket, address: Any) -> None:
        try:
            _prepare(sock)
            self._accepted(LocalStream(sock, _plain_address(address), self._loop))
        except OSError:
            sock.close()  # reset between accept and setsockopt
        except Exception:  # noqa: BLE001  # logged; one connection must not end accepting
            _log.exception("could not take over a connection")
            sock.close()

    def _pause(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._timer = self._loop.call_later(self._pause_s, self._go_on)
        self._pause_s = min(2 * self._pause_s, _ACCEPT_PAUSE_MAX_S)

    def _go_on(self) -> None:
        self._timer = None
        self._loop.add_reader(self._sock.fileno(), self._on_readable)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        else:
            self._loop.remove_reader(self._sock.fileno())
        self._sock.close()


class LocalListenSocket:
    """All sockets of one `listen` call; they share one port."""

    def __init__(self, host: str, port: int, acceptors: list[_Acceptor]) -> None:
        self.host = host
        self.port = port
        self._acceptors = acceptors

    def close(self) -> None:
        """See `ListenSocket.close`."""
        for acceptor in self._acceptors:
            acceptor.close()


async def _bind_addresses(host: str, port: int) -> list[tuple[int, Any]]:
    """Resolve to (family, socket address) pairs; "" is one dual-stack socket where there is IPv6."""
    if not host:
        host = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104  # the empty host asks for all
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


def _bound_socket(family: int, address: Any, backlog: int, *, dual_stack: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual_stack else 1)
        sock.settimeout(0)
        sock.bind(address)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


class LocalNetwork:
    """TCP over the machine's interfaces, IPv4 and IPv6."""

    __slots__ = ()

    async def listen(
        self,
        host: str,
        port: int,
        accepted: Callable[[Stream], None],
        *,
        backlog: int = 1024,
        failed: Callable[[OSError], None] | None = None,
    ) -> LocalListenSocket:
        """See `Network.listen`. With port 0 all addresses are bound to the port that the first one got."""
        addresses = await _bind_addresses(host, port)
        sockets: list[socket.socket] = []
        try:
            for family, address in addresses:
                if sockets:
                    address = (address[0], sockets[0].getsockname()[1], *address[2:])
                dual_stack = len(addresses) == 1
                sockets.append(_bound_socket(family, address, backlog, dual_stack=dual_stack))
        except OSError as error:
            for sock in sockets:
                sock.close()
            raise OSError(error.errno, f"cannot listen on {host or '*'}:{port}: {error.strerror}") from error
        loop = asyncio.get_running_loop()
        bound_host, bound_port = sockets[0].getsockname()[:2]
        return LocalListenSocket(
            bound_host, bound_port, [_Acceptor(sock, loop, accepted, failed) for sock in sockets]
        )

    async def connect(self, host: str, port: int) -> LocalStream:
        """See `Network.connect`."""
        loop = asyncio.get_running_loop()
        error: OSError = OSError(errno.EADDRNOTAVAIL, f"no address for {host}")
        for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            sock = socket.socket(family, kind, protocol)
            try:
                _prepare(sock)
                await loop.sock_connect(sock, address)
                return LocalStream(sock, _plain_address(address), loop)
            except OSError as failure:
                sock.close()
                error = failure
            except BaseException:
                sock.close()
                raise
        raise error
