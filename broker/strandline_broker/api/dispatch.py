"""From a frame to its handler and back: the network layer's `RequestHandler`.

Produce and Fetch run on their own straight-line path; ApiVersions and Metadata answer from cached bytes. Every other API
is decoded by `wire.cold`, handled by its module in the table of `api.handlers`, and encoded again; a handler that has to
wait is a coroutine, and its connection is muted until it ends. What the registry does not accept never reaches a handler,
and on SASL listeners neither does what comes before authentication (`api.support.sasl`).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Any

from strandline_broker.api.handlers import cold_handler, frame_handlers
from strandline_broker.api.request import Request
from strandline_broker.net.handler import Pending
from strandline_broker.wire import cold
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.header import decode_request_header

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from strandline_broker.api.context import BrokerApi
    from strandline_broker.api.fetch import FetchHandler
    from strandline_broker.api.produce import ProduceHandler
    from strandline_broker.api.support.sasl import SaslGate
    from strandline_broker.net.connection import Connection
    from strandline_broker.net.handler import Response
    from strandline_broker.wire.header import RequestHeader

logger = logging.getLogger(__name__)

_PRODUCE = int(ApiKey.PRODUCE)
_FETCH = int(ApiKey.FETCH)
_API_VERSIONS = int(ApiKey.API_VERSIONS)


class Dispatcher:
    """Routes the requests of one broker."""

    def __init__(
        self, broker: BrokerApi, produce: ProduceHandler, fetch: FetchHandler, *, max_waiting: int = 10_000
    ) -> None:
        self._broker = broker
        self._accepts = broker.registry.accepts
        self._produce = produce
        self._fetch = fetch
        self._frame_handlers = frame_handlers(broker)
        self._max_waiting = max_waiting
        # Tasks of handlers that wait. Kept here because the loop itself keeps only weak references.
        self._waiting: dict[asyncio.Task[None], None] = {}
        self.end_of_burst = produce.end_of_burst

    def handle(self, connection: Connection, frame: memoryview, /) -> Response | Pending | None:
        """Handle one request frame. Raises ValueError for one that cannot be answered: its connection is closed."""
        gate: SaslGate | None = connection.context
        if gate is not None and gate.intercepts(frame):
            return gate.answer(frame)
        header = decode_request_header(frame)
        api_key = header.api_key
        if not self._accepts(api_key, header.api_version) and api_key != _API_VERSIONS:
            raise ValueError(f"API {api_key} version {header.api_version} is not served")
        if connection.client_id is None:
            connection.client_id = header.client_id
        if api_key == _PRODUCE:
            return self._produce.handle(connection, header, frame)
        if api_key == _FETCH:
            return self._fetch.handle(connection, header, frame)
        key = ApiKey(api_key)
        frame_handler = self._frame_handlers.get(key)
        if frame_handler is not None:
            return frame_handler.handle(connection, header, frame)
        return self._cold(key, connection, header, frame)

    def connection_lost(self, connection: Connection, /) -> None:
        """Forget what waits for this connection."""
        self._fetch.connection_lost(connection)
        if connection.context is not None:
            connection.context.closed()

    async def close(self) -> None:
        """End the handlers that still wait; their clients see the connection close."""
        for handler in self._frame_handlers.values():
            handler.close()
        await self._fetch.close()
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)

    def _cold(
        self, key: ApiKey, connection: Connection, header: RequestHeader, frame: memoryview
    ) -> Response | Pending:
        version = header.api_version
        body = cold.decode_request(key, version, frame, header.body_offset)
        request = Request(key, version, header.correlation_id, header.client_id, connection, body)
        answer = cold_handler(key)(self._broker, request)
        if isinstance(answer, Pending):
            return answer
        if not inspect.isawaitable(answer):
            return cold.encode_response(key, version, header.correlation_id, answer)
        if len(self._waiting) >= self._max_waiting:
            if inspect.iscoroutine(answer):
                answer.close()
            raise ValueError(f"{len(self._waiting)} requests are waiting already, the limit")
        pending = Pending(mute=True)
        task = asyncio.get_running_loop().create_task(self._wait(request, answer, pending))
        self._waiting[task] = None
        task.add_done_callback(self._waiting.pop)
        return pending

    @staticmethod
    async def _wait(request: Request, answer: Awaitable[Mapping[str, Any]], pending: Pending) -> None:
        try:
            body = await answer
            response = cold.encode_response(request.api_key, request.version, request.correlation_id, body)
        except Exception:
            # A bug of ours ends this connection, so that its client retries instead of waiting for ever.
            logger.exception("%s v%d failed", request.api_key.name, request.version)
            request.connection.close(f"{request.api_key.name} failed")
            return
        pending.complete(response)
