"""One client connection: frames in, answers out, in order, with every bound that `Limits` names.

Theory of operation. The socket's reader callback does one recv, hands every complete frame to the handler
without leaving the callback, tells it `end_of_burst`, and sends all answers that are ready with one call.
Whatever keeps a connection from going on is a bit in `_blocked`; while any bit is set, no frame of it is
handled and nothing is read:

    MUTED      a Pending with `mute` is open                  until it completes
    IN_FLIGHT  too many answers are outstanding               until half of them are given
    BACKLOG    too many bytes are unsent                      until half of them are sent
    MEMORY     the request memory is used up                  until the pool grants some
    YIELDED    the burst was long, others come first          until the next turn of the loop
    THROTTLED  the handler wants the client to be slower      until the time is over; answers go out meanwhile
    DRAINING   the client or we want to end                   for good; closed when all answers are sent
    CLOSING    decided to close                               for good; closed when the burst is over

The reader is only taken out of the selector when something arrives while blocked: a consumer that waits for
its long poll sends nothing, and thus costs no system calls for being muted.

Created by `net.server`. Handlers use the public attributes, `throttle` and `close`; `wake`, `flush_collected`, `drain`
and `completed` belong to this package.
"""

from __future__ import annotations

import itertools
import logging
import struct
from dataclasses import dataclass
from typing import Any

from strandline_broker.net.buffers import PoolBuffer, Ticket
from strandline_broker.net.handler import Pending
from strandline_broker.net.hub import Hub
from strandline_broker.net.inbox import Inbox
from strandline_broker.net.metrics import CloseReason
from strandline_broker.net.sending import CLOSING, DRAINING, MEMORY, THROTTLED, YIELDED, SendingHalf
from strandline_broker.net.sniff import describe_bad_length
from strandline_broker.seams.network import Address, Stream

_unpack_length = struct.Struct(">i").unpack_from
_ids = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Listener:
    """The listener that a connection came in by."""

    name: str
    internal: bool = False
    tls: bool = False


class Connection(SendingHalf):
    """See the module's docstring. `context` is the API layer's, which may also set `principal`."""

    __slots__ = (
        "__weakref__",
        "_bursting",
        "_inbox",
        "_ticket",
        "client_id",
        "client_software",
        "context",
        "id",
        "listener",
        "max_frame_bytes",
        "peer",
        "principal",
        "requests",
    )

    def __init__(
        self, hub: Hub, stream: Stream, listener: Listener, principal: str = "User:ANONYMOUS"
    ) -> None:
        super().__init__(hub, stream)
        self.id = next(_ids)
        self.listener = listener
        self.peer: Address = stream.peer
        self.principal = principal
        self.client_id: str | None = None
        self.client_software: tuple[str, str] | None = None
        self.context: Any = None
        self.max_frame_bytes = hub.max_frame_bytes
        """Largest request of this connection; the API layer may lower it. Counts from the next burst on."""
        self.requests = 0
        """Requests handled so far."""
        self._inbox = Inbox(hub.receive_buffer, hub.pool)
        self._bursting = False
        self._ticket: Ticket | None = None

    def __repr__(self) -> str:
        client = "" if self.client_id is None else f" client.id={self.client_id[:100]!r}"
        return f"<Connection {self.id} {self.listener.name} {self.peer[0]}:{self.peer[1]}{client}>"

    def start(self) -> None:
        """Begin to read."""
        self._reading = True
        self._stream.set_reader(self._on_readable)

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._closed

    def close(self, reason: str, kind: CloseReason = CloseReason.HANDLER) -> None:
        """Close and log `reason`.

        No further frame is handled; answers that are ready are sent if the socket takes them at once. Inside
        of `handle` this happens when the burst is over, the answer then returned included.
        """
        if self._closed or self._blocked & CLOSING:
            return
        self._blocked |= CLOSING
        self._closing_reason = (kind, reason)
        if not self._bursting:
            self._flush()
            self._tear_down(kind, reason)

    def throttle(self, seconds: float) -> None:
        """Handle no further request for so long (KIP-219); what was handled is answered. No effect while throttled."""
        if not self._blocked & (THROTTLED | DRAINING | CLOSING):
            self._blocked |= THROTTLED
            self._hub.metrics.throttles += 1
            self._hub.loop.call_later(seconds, self._unblock, THROTTLED)

    # --- reading --------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            self._read()
        except Exception as error:  # noqa: BLE001  # it ends with the connection that it concerns
            self.fail(error)

    def _read(self) -> None:
        hub = self._hub
        inbox = self._inbox
        if self._blocked:
            self._reading = False
            self._stream.set_reader(None)
            return
        if hub.pool.full and not inbox.holding:
            self._wait_for_memory(0)
            return
        try:
            received = inbox.receive(self._stream)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._tear_down(CloseReason.BROKEN, str(error))
            return
        if not received:
            self._on_end_of_stream()
            return
        hub.metrics.bytes_in += received
        if not inbox.large or inbox.complete:
            self._burst()

    def _burst(self) -> None:
        """Handle the complete frames that are here, then send what is ready, to others too."""
        hub = self._hub
        inbox = self._inbox
        outbox = self._outbox
        queue = self._queue
        handle = hub.handle
        max_frame_bytes = self.max_frame_bytes
        max_unsent = hub.limits.output_backlog_bytes
        view = inbox.view
        position = inbox.start
        end = inbox.end
        need = 0
        handled = 0
        hub.in_burst = self._bursting = True
        try:
            for handled in hub.burst_range:
                if end - position < 4:
                    break
                (size,) = _unpack_length(view, position)
                if not 0 < size <= max_frame_bytes:
                    self._refuse_length(size, view, position, end)
                    break
                stop = position + 4 + size
                if stop > end:
                    need = stop - position
                    break
                response = handle(self, view[position + 4 : stop])
                position = stop
                if type(response) is bytes and not queue:
                    outbox.parts.append(response)
                    outbox.size += len(response)
                    if outbox.size > max_unsent:
                        self._block_backlog()
                elif response is not None:
                    self._enqueue(response)
                if self._blocked:
                    handled += 1
                    break
            else:
                handled = len(hub.burst_range)
                self._blocked |= YIELDED
        except Exception as error:  # noqa: BLE001  # whatever one client's request causes ends with its connection
            handled += 1
            self._refuse_request(error)
        finally:
            self._end_burst(handled)
        if self._settle(position, need, fresh=handled > 0) and not self._blocked:
            self._read()  # more of a large frame: most likely it is there already

    def _end_burst(self, handled: int) -> None:
        hub = self._hub
        if handled:
            self.requests += handled
            hub.metrics.requests += handled
            hub.metrics.bursts += 1
            try:
                hub.handler.end_of_burst()
            except Exception as error:  # noqa: BLE001  # a bug there must not end the loop's reading
                hub.log.log(logging.ERROR, "end_of_burst", f"end_of_burst failed for {self}", error=error)
                self.close("the request handler failed", CloseReason.HANDLER_ERROR)
        hub.in_burst = self._bursting = False
        self._last_active = hub.now()

    def _settle(self, position: int, need: int, *, fresh: bool) -> bool:
        """Put the rest of the bytes where they can wait, send, and see how this connection goes on.

        Returns whether a large frame was begun, so that more of it should be received at once.
        """
        hub = self._hub
        inbox = self._inbox
        begun = False
        if self._blocked & CLOSING:
            inbox.clear()
        elif need and inbox.wants_large(need):
            buffer = hub.pool.try_acquire(need)
            if buffer is not None:
                inbox.begin_large(buffer, position, need)
                begun = True
            else:
                inbox.settle(position, need)
                self._wait_for_memory(need)
        else:
            inbox.settle(position, need)
        if inbox.holding and not self._blocked:
            if fresh or self not in hub.frame_started:
                hub.frame_started.pop(self, None)
                hub.frame_started[self] = self._last_active
        elif hub.frame_started:
            hub.frame_started.pop(self, None)
        self._flush()
        hub.flush()
        if self._blocked & CLOSING:
            self._tear_down(*self._closing_reason)
        elif self._blocked & YIELDED:
            hub.wake_later(self)
        return begun

    def _refuse_length(self, size: int, view: memoryview, position: int, end: int) -> None:
        kind, text = describe_bad_length(
            size,
            bytes(view[position : min(end, position + 8)]),
            self.max_frame_bytes,
            self.requests == 0,
        )
        self.close(text, kind)

    def _refuse_request(self, error: Exception) -> None:
        if isinstance(error, ValueError):
            self.close(f"malformed request: {str(error)[:300]!r}", CloseReason.MALFORMED)
        else:
            self._hub.log.log(
                logging.ERROR, "handler_error", f"handling a request of {self} failed", error=error
            )
            self.close("the request handler failed", CloseReason.HANDLER_ERROR)

    def _on_end_of_stream(self) -> None:
        """Stop reading, but send the answers: a client may end only its own sending side."""
        text = "closed by the client" + (" within a request" if self._inbox.holding else "")
        self._inbox.clear()
        self._hub.frame_started.pop(self, None)
        self.drain(self._hub.limits.half_close_timeout_ms / 1000, CloseReason.PEER_CLOSED, text)

    # --- what blocks, and what unblocks ---------------------------------------------------------------------

    def _wait_for_memory(self, size: int) -> None:
        if self._blocked & MEMORY:
            return
        self._blocked |= MEMORY
        self._hub.metrics.memory_waits += 1
        self._ticket = self._hub.pool.wait(size, self._on_memory)

    def _on_memory(self, buffer: PoolBuffer | None) -> None:
        ticket = self._ticket
        self._ticket = None
        if buffer is not None:
            inbox = self._inbox
            inbox.begin_large(buffer, inbox.start, inbox.need)
        elif ticket is not None and ticket.size:
            self.close(f"no memory for a request of {ticket.size} bytes", CloseReason.INTERNAL_ERROR)
            return
        self._unblock(MEMORY)

    def _unblock(self, flag: int) -> None:
        if self._blocked & flag:
            self._blocked &= ~flag
            if not self._blocked and (self._inbox.holding or not self._reading):
                self._hub.wake_later(self)

    def wake(self) -> None:
        """Go on after a block ended."""
        self._blocked &= ~YIELDED
        if self._blocked or self._closed:
            return
        if not self._reading:
            self._reading = True
            self._stream.set_reader(self._on_readable)
        inbox = self._inbox
        if inbox.large and not inbox.complete:
            self._hub.frame_started[self] = self._hub.now()
        elif inbox.holding:
            self._burst()

    # --- the end --------------------------------------------------------------------------------------------

    def check_time(self, now: float, idle_timeout_s: float) -> None:
        """Close if idle or drained too long; called by the server's sweep with the loop's time."""
        if self._blocked & DRAINING:
            if now >= self._drain_deadline:
                self._tear_down(*self._closing_reason)
        elif now - self._last_active > idle_timeout_s and not self._queue:
            self.close(f"idle for {now - self._last_active:.0f} s", CloseReason.IDLE)

    def check_frame(self, now: float, started: float, *, contended: bool) -> None:
        """Close if the frame that began at `started` takes too long; called by the server's sweep."""
        limits = self._hub.limits
        inbox = self._inbox
        if self._blocked:
            self._hub.frame_started[self] = now  # not read from: the time does not count
            return
        elapsed = now - started
        allowed = limits.frame_timeout_ms / 1000 + inbox.need / limits.frame_min_bytes_per_s
        text = f"{inbox.end - inbox.start} of {inbox.need} bytes of a request in {elapsed:.0f} s"
        if elapsed > allowed:
            self.close(text, CloseReason.SLOW_FRAME)
        elif contended and inbox.large and elapsed > limits.slow_frame_grace_ms / 1000:
            slow = inbox.end < elapsed * limits.frame_min_bytes_per_s
            if slow:
                self.close(f"{text} while others wait for its memory", CloseReason.SLOW_FRAME)

    def fail(self, error: Exception) -> None:
        """Close after an exception that nobody foresaw; its state cannot be trusted any more."""
        self._hub.log.log(logging.ERROR, "internal_error", f"serving {self} failed", error=error)
        self._tear_down(CloseReason.INTERNAL_ERROR, f"{type(error).__name__}: {error}")

    def _tear_down(self, kind: CloseReason, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        self._blocked |= CLOSING
        hub = self._hub
        self._stream.close()
        self._reading = self._writing = False
        if self._ticket is not None:
            self._ticket.cancel()
            self._ticket = None
        self._inbox.clear()
        self._outbox.clear()
        self._queued_bytes = 0
        for entry in self._queue:
            if isinstance(entry, Pending):
                entry.detach()
        self._queue.clear()
        hub.frame_started.pop(self, None)
        hub.metrics.closed[kind] += 1
        hub.log.log(_LOG_LEVELS.get(kind, logging.WARNING), kind, f"closed {self}: {reason}")
        hub.removed(self)
        try:
            hub.handler.connection_lost(self)
        except Exception as error:  # noqa: BLE001  # a bug there must not leave other connections unserved
            hub.log.log(logging.ERROR, "connection_lost", f"connection_lost failed for {self}", error=error)


_LOG_LEVELS = {
    CloseReason.PEER_CLOSED: logging.DEBUG,
    CloseReason.BROKEN: logging.DEBUG,
    CloseReason.SHUTDOWN: logging.DEBUG,
    CloseReason.IDLE: logging.INFO,
    CloseReason.SEND_FAILED: logging.ERROR,
}
