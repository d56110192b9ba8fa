"""KubernetesApi: HTTP to one API server with bounds on everything, and every failure under its name.

Used by `KubernetesStore`. It knows nothing of our objects: paths and bodies go in, JSON comes out.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson
from yarl import URL

from .kubernetes_access import Access, AccessError
from .kubernetes_errors import ApiRefusal, error_of
from .store import Unavailable

JSON: Final = "application/json"
JSON_PATCH: Final = "application/json-patch+json"
# Of an answer that is an error, so much is read.
_MAX_ERROR_BYTES: Final = 64 << 10
# Dead connections are found in this time, in seconds, well below the time after which a silent broker counts as dead.
_SILENCE_S: Final = 3
_PROBE_INTERVAL_S: Final = 1
_PROBES: Final = 3


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """Bounds of one client. At a bound requests wait; what waits too long is `Unavailable`.

    Requests at once: more than 16 bring little, and 1,000 bring 429 (measured, design section 3.5). Times in seconds: of
    waiting for a turn, of connecting, of one request, of a watch without a byte. Leases have a shorter one: their brokers
    renew them every 3 s, and a server that stands still must be found out before it looks as if all brokers did.
    `answer_bytes`: largest answer.
    """

    requests: int = 16
    watches: int = 32
    queue_s: float = 15.0
    connect_s: float = 2.0
    request_s: float = 5.0
    watch_silence_s: float = 75.0
    lease_silence_s: float = 3.5
    answer_bytes: int = 64 << 20


class KubernetesApi:
    """A pool of connections to the API server of `access`; belongs to the event loop of its first request."""

    def __init__(self, access: Access, limits: ApiLimits | None = None) -> None:
        self.access = access
        self.limits = limits if limits is not None else ApiLimits()
        self._requests = asyncio.Semaphore(self.limits.requests)
        self._watches = asyncio.Semaphore(self.limits.watches)
        self._session: aiohttp.ClientSession | None = None
        self._answers: set[aiohttp.ClientResponse] = set()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
        timeout_s: float | None = None,
    ) -> Any:
        """Carry out one request and return the JSON of its answer.

        Raises ApiRefusal when the server judged the request, Unavailable in any other case that is no success: a write
        may or may not have happened then.
        """
        headers = {"Content-Type": content_type} if body is not None else {}
        try:
            async with self._slot(self._requests):
                async with asyncio.timeout(self.limits.request_s if timeout_s is None else timeout_s):
                    async with self._send(method, path, query, headers, body) as response:
                        answer = await self._read(response)
        except (aiohttp.ClientError, OSError, ValueError, AccessError) as error:
            raise self._unavailable(method, path, error) from None
        try:
            return orjson.loads(answer)
        except orjson.JSONDecodeError:
            raise Unavailable(f"{method} {path}: the answer of {len(answer)} bytes is no JSON") from None

    async def stream(
        self, path: str, query: Mapping[str, str], *, silence_s: float
    ) -> AsyncGenerator[bytes, None]:
        """Yield the chunks of an answer that does not end by itself; return when the connection ends.

        An end is nothing bad: servers restart, and end streams on purpose. Raises what `request` raises, only before the
        first chunk. Returns, too, when nothing came for `silence_s` seconds.
        """
        begun = False
        try:
            async with self._slot(self._watches), AsyncExitStack() as stack:
                async with asyncio.timeout(self.limits.request_s):
                    response = await stack.enter_async_context(self._send("GET", path, query, {}, None))
                begun = True
                while True:
                    async with asyncio.timeout(silence_s):
                        chunk = await response.content.readany()
                    if not chunk:
                        return
                    yield chunk
        except (aiohttp.ClientError, OSError, ValueError, AccessError) as error:
            if not begun:
                raise self._unavailable("GET", path, error) from None

    async def close(self) -> None:
        """Close all connections; streams end, requests fail, now and later."""
        self._closed = True
        for answer in self._answers:
            # The session closes their connections, and tells nobody who reads.
            answer.content.set_exception(aiohttp.ClientConnectionError("closed"))
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def _slot(self, slots: asyncio.Semaphore) -> AsyncIterator[None]:
        """Hold one of the bounded number of requests or watches. Raises TimeoutError when none comes free."""
        async with asyncio.timeout(self.limits.queue_s):
            await slots.acquire()
        try:
            yield
        finally:
            slots.release()

    @asynccontextmanager
    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield a successful answer, still unread. Raises ApiRefusal, Unavailable, and aiohttp's errors."""
        url = URL(self.access.server + path, encoded=True).with_query(query)
        session = self._open_session()
        token = self.access.token
        for attempt in range(2):
            allowed = {"Authorization": f"Bearer {token.current()}", **headers} if token else headers
            response = await session.request(
                method,
                url,
                data=body,
                headers=allowed,
                allow_redirects=False,
                server_hostname=self.access.server_name,
            )
            self._answers.add(response)
            try:
                if 200 <= response.status < 300:
                    yield response
                    return
                # A request that was not authenticated was not carried out: once more with a token that changed meanwhile.
                if response.status == 401 and attempt == 0 and token is not None and token.reload():
                    continue
                raise await self._error(response)
            finally:
                self._answers.discard(response)
                _let_go(response)

    async def _error(self, response: aiohttp.ClientResponse) -> ApiRefusal | Unavailable:
        body = b""
        try:
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) >= _MAX_ERROR_BYTES:
                    break
        except aiohttp.ClientError:
            pass  # what was read is all there is to say
        return error_of(response.status, response.headers, body[:_MAX_ERROR_BYTES])

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        limit = self.limits.answer_bytes
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > limit:
                raise Unavailable(f"an answer of the API server has more than {limit} bytes")
            chunks.append(chunk)
        return b"".join(chunks)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise Unavailable("the client of the API server is closed")
        if self._session is None:
            connector = aiohttp.TCPConnector(
                ssl=self.access.tls if self.access.tls is not None else True,
                limit=self.limits.requests + self.limits.watches,
                socket_factory=_socket_that_notices_silence,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                # The bounds of whole requests are above; aiohttp's own would count watches, too.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.limits.connect_s),
                headers={"User-Agent": "strandline", "Accept": JSON, "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _unavailable(self, method: str, path: str, error: Exception) -> Unavailable:
        """Return the error for the caller: what the operating system said, and never a header of the request."""
        text = str(error) if isinstance(error, OSError | AccessError) else ""
        if isinstance(error, TimeoutError):
            text = "no answer in time"
        return Unavailable(f"{method} {path}: {text or type(error).__name__}")


def _let_go(response: aiohttp.ClientResponse) -> None:
    """End what was not read to its end: without TLS' goodbye, for which the loop may not live long enough.

    An answer that was read to its end gave its connection back already.
    """
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()


def _socket_that_notices_silence(address: Any) -> socket.socket:
    """Return a socket whose connection breaks when the other side's machine does not answer for some seconds.

    A watch has nothing to send: without probes it would wait on a cut network for minutes, and see no broker's Lease
    change meanwhile.
    """
    family, type_, protocol, _, _ = address
    sock = socket.socket(family, type_, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _SILENCE_S),
        ("TCP_KEEPINTVL", _PROBE_INTERVAL_S),
        ("TCP_KEEPCNT", _PROBES),
        ("TCP_USER_TIMEOUT", 1000 * (_SILENCE_S + _PROBE_INTERVAL_S * _PROBES)),
    ):
        if hasattr(socket, name):  # not every system has all of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock
