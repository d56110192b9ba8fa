"""One connection to another broker: a request out, its answer in, and nothing else under way.

    IDLE      nothing was asked; whatever arrives ends the connection
    WAITING   a request is being sent, or its answer is on its way; both together have `request_timeout_s`
    CLOSED    for good, with the reason of the first failure

The reader stays set from the first moment to the last, so that a request costs no change of the selector, and so that a
connection whose other end goes away is found out while it is idle.

Created by `peers.socket_peers`; implements `peers.contract.PeerConnection`.
"""

from __future__ import annotations

import asyncio
import logging
import struct

from strandline_broker.peers.answers import AnswerBuffer
from strandline_broker.peers.contract import PeerError
from strandline_broker.seams.disk import Buffer
from strandline_broker.seams.network import Stream
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.errors import DecodeError
from strandline_broker.wire.primitives import INT32, encode_string, skip_tagged_fields
from strandline_broker.wire.registry import request_header_version, response_header_version

logger = logging.getLogger(__name__)

_pack_header = struct.Struct(">ihhi").pack
_HEADER_BYTES = 8  # of the frame: key, version, correlation id
_BODY_WITHOUT_TAGS = 8  # where an answer's body begins: behind the length and the correlation id
_unpack_int32 = INT32.unpack_from
# A large answer is received in several pieces per turn of the loop, but not so many that nobody else gets a turn.
_RECVS_PER_WAKEUP = 8
_CORRELATION_IDS = 0x7FFFFFFF


class SocketPeerConnection:
    """See the module's docstring. `max_response_bytes` may be raised once the other side has proven who it is."""

    __slots__ = (
        "_answer",
        "_client_id",
        "_correlation_id",
        "_failure",
        "_header_version",
        "_loop",
        "_name",
        "_request_timeout_s",
        "_stream",
        "_unsent",
        "_waiter",
        "_writing",
        "max_response_bytes",
    )

    def __init__(
        self,
        stream: Stream,
        name: str,
        *,
        client_id: str,
        request_timeout_s: float,
        max_response_bytes: int,
        buffer_bytes: int,
    ) -> None:
        """`name` is for errors; `buffer_bytes` bounds answers for good, `max_response_bytes` for now."""
        self.max_response_bytes = max_response_bytes
        self._stream = stream
        self._name = name
        self._client_id = encode_string(client_id)
        self._request_timeout_s = request_timeout_s
        self._loop = asyncio.get_running_loop()
        self._answer = AnswerBuffer(buffer_bytes)
        self._correlation_id = 0
        self._header_version = 0
        self._waiter: asyncio.Future[memoryview] | None = None
        self._unsent: list[Buffer] = []
        self._writing = False
        self._failure: PeerError | None = None
        stream.set_reader(self._on_readable)

    @property
    def closed(self) -> bool:
        """Whether the connection is of no use any more."""
        return self._failure is not None

    async def request(self, api_key: ApiKey, version: int, body: bytes) -> memoryview:
        """See `contract.PeerConnection.request`."""
        if self._failure is not None:
            raise PeerError(str(self._failure))
        if self._waiter is not None:
            raise RuntimeError(f"{self._name}: a request is under way already")
        self._answer.begin()
        self._correlation_id = correlation_id = (self._correlation_id + 1) & _CORRELATION_IDS
        self._header_version = response_header_version(api_key, version)
        tail = self._client_id
        if request_header_version(api_key, version) >= 2:
            tail += b"\0"
        size = _HEADER_BYTES + len(tail) + len(body)
        waiter: asyncio.Future[memoryview] = self._loop.create_future()
        self._waiter = waiter
        timer = self._loop.call_later(self._request_timeout_s, self._too_late)
        try:
            self._unsent = [_pack_header(size, api_key, version, correlation_id) + tail, body]
            self._send()
            return await waiter
        except asyncio.CancelledError:
            self._fail("a request was given up")
            raise
        finally:
            timer.cancel()
            self._waiter = None

    def close(self) -> None:
        """See `contract.PeerConnection.close`."""
        self._fail("closed by us")

    # --- sending ------------------------------------------------------------------------------------------------------

    def _on_writable(self) -> None:
        try:
            self._send()
        except Exception as error:  # noqa: BLE001 - it ends with the connection that it concerns
            self._fail_unforeseen(error)

    def _send(self) -> None:
        """Send what the stream takes; the rest when it takes more."""
        parts = self._unsent
        try:
            while parts:
                sent = self._stream.send(parts)
                while parts and sent >= len(parts[0]):
                    sent -= len(parts[0])
                    del parts[0]
                if sent:
                    parts[0] = memoryview(parts[0])[sent:]
        except (BlockingIOError, InterruptedError):
            pass  # the writer callback goes on
        except OSError as error:
            self._fail(f"sending failed: {error}")
            return
        waiting = bool(parts)
        if waiting != self._writing:
            self._writing = waiting
            self._stream.set_writer(self._on_writable if waiting else None)

    # --- receiving ----------------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            self._receive()
        except DecodeError as error:
            self._fail(str(error))
        except OSError as error:
            self._fail(f"receiving failed: {error}")
        except Exception as error:  # noqa: BLE001 - it ends with the connection that it concerns
            self._fail_unforeseen(error)

    def _receive(self) -> None:
        answer = self._answer
        waiter = self._waiter
        if waiter is None or waiter.done():
            # Into memory of its own: a view of the last answer may still be in use.
            try:
                count = self._stream.recv_into(memoryview(bytearray(1)))
            except (BlockingIOError, InterruptedError):
                return
            self._fail("it sent something unasked" if count else "closed by the other side")
            return
        for _ in range(_RECVS_PER_WAKEUP):
            room = answer.room()
            try:
                count = self._stream.recv_into(room)
            except (BlockingIOError, InterruptedError):
                return
            if count == 0:
                self._fail("closed by the other side")
                return
            answer.received(count, self.max_response_bytes)
            if answer.complete:
                waiter.set_result(self._body(answer.view[: answer.need]))
                return
            if count < len(room):
                return  # that was all for now

    def _body(self, frame: memoryview) -> memoryview:
        """Check the header of an answer and return what follows it. Raises DecodeError."""
        if self._unsent:
            raise DecodeError("an answer to a request that was not sent yet")
        (correlation_id,) = _unpack_int32(frame, 4)
        if correlation_id != self._correlation_id:
            raise DecodeError(
                f"the answer to request {correlation_id}, where {self._correlation_id} was asked"
            )
        if not self._header_version:
            return frame[_BODY_WITHOUT_TAGS:]
        if len(frame) == _BODY_WITHOUT_TAGS:
            raise DecodeError("an answer without a header")
        if frame[_BODY_WITHOUT_TAGS] == 0:
            return frame[_BODY_WITHOUT_TAGS + 1 :]
        try:
            return frame[skip_tagged_fields(frame, _BODY_WITHOUT_TAGS) :]
        except IndexError as error:
            raise DecodeError(f"malformed response header: {error}") from error

    # --- the end ------------------------------------------------------------------------------------------------------

    def _too_late(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            self._fail(f"no answer within {self._request_timeout_s:g} s")

    def _fail_unforeseen(self, error: Exception) -> None:
        logger.error("talking to %s failed", self._name, exc_info=error)
        self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, reason: str) -> None:
        if self._failure is not None:
            return
        self._failure = PeerError(f"{self._name}: {reason}")
        self._stream.close()
        self._unsent = []
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_exception(PeerError(str(self._failure)))
