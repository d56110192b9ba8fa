"""What all connections of one event loop share: buffers, limits, counters, and the coalescing of writes.

Answers that become ready are not sent one by one. While a burst of requests is handled they are collected,
and sent when the burst is over; outside of a burst (an fsync came back, a timer fired) they are collected and
sent once in the next turn of the loop. Connections that may go on (a long poll ended, memory came free) also
do so in a later turn, never from inside another connection's burst.

Used by `net.connection` and `net.server` only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from strandline_broker.net.buffers import BufferPool
from strandline_broker.net.handler import RequestHandler
from strandline_broker.net.inbox import ReceiveBuffer
from strandline_broker.net.limits import Limits
from strandline_broker.net.metrics import NetMetrics
from strandline_broker.net.ratelog import RateLimitedLog

if TYPE_CHECKING:
    from strandline_broker.net.connection import Connection
    from strandline_broker.net.sending import SendingHalf


class Hub:
    """One per server."""

    __slots__ = (
        "_scheduled",
        "_unflushed",
        "_waking",
        "burst_range",
        "connections",
        "frame_started",
        "handle",
        "handler",
        "in_burst",
        "limits",
        "log",
        "loop",
        "max_frame_bytes",
        "metrics",
        "now",
        "pool",
        "receive_buffer",
        "removed",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handler: RequestHandler,
        limits: Limits,
        metrics: NetMetrics,
        removed: Callable[[Connection], None],
    ) -> None:
        self.loop = loop
        self.now = loop.time
        self.handler = handler
        self.handle = handler.handle
        self.limits = limits
        self.max_frame_bytes = limits.max_frame_bytes
        self.burst_range = range(limits.max_requests_per_burst)
        self.metrics = metrics
        self.removed = removed
        self.log = RateLimitedLog(logging.getLogger("strandline_broker.net"), loop.time)
        self.pool = BufferPool(limits.request_memory_bytes, limits.request_memory_cache_bytes, loop.call_soon)
        self.receive_buffer = ReceiveBuffer(limits.receive_buffer_bytes)
        # In the order of their coming.
        self.connections: dict[Connection, None] = {}
        # Connections with the start of a frame, oldest first, and since when (loop time): the slow ones are
        # cut off.
        self.frame_started: dict[Connection, float] = {}
        self.in_burst = False
        self._unflushed: list[SendingHalf] = []
        self._waking: list[Connection] = []
        self._scheduled = False

    def flush_later(self, connection: SendingHalf) -> None:
        """Send what `connection` has ready, at the end of the burst or in the next turn of the loop."""
        self._unflushed.append(connection)
        if not self.in_burst:
            self._schedule()

    def wake_later(self, connection: Connection) -> None:
        """Let `connection` go on handling what it kept, in a later turn of the loop."""
        self._waking.append(connection)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        self.flush()
        if self._waking:
            waking = self._waking
            self._waking = []
            for connection in waking:
                try:
                    connection.wake()
                except Exception as error:  # noqa: BLE001  # it ends with the connection that it concerns
                    connection.fail(error)

    def flush(self) -> None:
        """Send what was collected."""
        while self._unflushed:
            unflushed = self._unflushed
            self._unflushed = []
            for connection in unflushed:
                try:
                    connection.flush_collected()
                except Exception as error:  # noqa: BLE001  # it ends with the connection that it concerns
                    connection.fail(error)
