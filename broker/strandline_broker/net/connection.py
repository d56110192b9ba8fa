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
    DRAINING   the client or we want to end                   for good; closed when all answers are sent
    CLOSING    decided to close                               for good; closed when the burst is over

The reader is only taken out of the selector when something arrives while blocked: a consumer that waits for
its long poll sends nothing, and thus costs no system calls for being muted.

Created by `net.server`. Handlers use the public attributes and `close`; `wake`, `flush_collected`, `drain`
and `completed` belong to this package.
"""

from __future__ import annotations

import itertools
import logging
import struct
from collections import deque
from dataclasses import dataclass
from typing import Any

from strandline_broker.net.buffers import PoolBuffer, Ticket
from strandline_broker.net.handler import Pending, Response
from strandline_broker.net.hub import Hub
from strandline_broker.net.inbox import Inbox
from strandline_broker.net.metrics import CloseReason
from strandline_broker.net.outbox import BrokenSliceError, Outbox, response_size
from strandline_broker.net.sniff import describe_bad_length
from strandline_broker.seams.network import Address, Stream

MUTED = 1
IN_FLIGHT = 2
BACKLOG = 4
MEMORY = 8
YIELDED = 16
DRAINING = 32
CLOSING = 64

_LINGER_S = 0.5

_unpack_length = struct.Struct(">i").unpack_from
_ids = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Listener:
    """The listener that a connection came in by."""

    name: str
    internal: bool = False
    tls: bool = False


class Connection:
    """See the module's docstring. `context` is the API layer's, which may also set `principal`."""

    __slots__ = (
        "__weakref__",
        "_blocked",
        "_bursting",
        "_closed",
        "_closing_reason",
        "_collected",
        "_drain_deadline",
        "_hub",
        "_inbox",
        "_last_active",
        "_lingering",
        "_outbox",
        "_queue",
        "_queued_bytes",
        "_reading",
        "_stream",
        "_ticket",
        "_writing",
        "client_id",
        "client_software",
        "context",
        "id",
        "listener",
        "peer",
        "principal",
        "requests",
    )

    def __init__(
        self, hub: Hub, stream: Stream, listener: Listener, principal: str = "User:ANONYMOUS"
    ) -> None:
        self.id = next(_ids)
        self.listener = listener
        self.peer: Address = stream.peer
        self.principal = principal
        self.client_id: str | None = None
        self.client_software: tuple[str, str] | None = None
        self.context: Any = None
        self.requests = 0
        """Requests handled so far."""
        self._hub = hub
        self._stream = stream
        self._inbox = Inbox(hub.receive_buffer, hub.pool)
        self._outbox = Outbox()
        # Answers that cannot go out yet: a Pending, and everything behind it.
        self._queue: deque[Pending | Response] = deque()
        self._queued_bytes = 0
        self._blocked = 0
        self._bursting = False
        self._reading = False
        self._writing = False
        self._collected = False
        self._closed = False
        self._lingering = False
        self._closing_reason: tuple[CloseReason, str] = (CloseReason.HANDLER, "")
        self._drain_deadline = 0.0
        self._ticket: Ticket | None = None
        self._last_active = hub.now()

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
        max_frame_bytes = hub.max_frame_bytes
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

    def _enqueue(self, response: Response | Pending) -> None:
        """Take an answer that is no plain bytes, or that has to wait behind another."""
        queue = self._queue
        if isinstance(response, Pending):
            if response.done:
                if response.response is None:
                    return
                response = response.response
            else:
                response.attach(self)
                queue.append(response)
                if response.mute:
                    self._blocked |= MUTED
                elif len(queue) >= self._hub.limits.max_in_flight_requests:
                    self._block_in_flight()
                return
        if queue:
            queue.append(response)
            self._queued_bytes += response_size(response)
            if len(queue) >= self._hub.limits.max_in_flight_requests:
                self._block_in_flight()
        else:
            self._outbox.add(response)
        if self._outbox.size + self._queued_bytes > self._hub.limits.output_backlog_bytes:
            self._block_backlog()

    def _refuse_length(self, size: int, view: memoryview, position: int, end: int) -> None:
        kind, text = describe_bad_length(
            size,
            bytes(view[position : min(end, position + 8)]),
            self._hub.max_frame_bytes,
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

    def _block_backlog(self) -> None:
        if not self._blocked & BACKLOG:
            self._blocked |= BACKLOG
            self._hub.metrics.backlog_pauses += 1

    def _block_in_flight(self) -> None:
        if not self._blocked & IN_FLIGHT:
            self._blocked |= IN_FLIGHT
            self._hub.metrics.in_flight_pauses += 1

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

    # --- answers --------------------------------------------------------------------------------------------

    def completed(self, pending: Pending, response: Response | None, /) -> None:
        """Take the answer of a Pending; called by it."""
        queue = self._queue
        first = queue[0]
        if pending.mute:
            self._unblock(MUTED)
        if first is not pending:
            pending.response = response
            if response is not None:
                self._queued_bytes += response_size(response)
                if self._outbox.size + self._queued_bytes > self._hub.limits.output_backlog_bytes:
                    self._block_backlog()
            return
        queue.popleft()
        outbox = self._outbox
        if response is not None:
            outbox.add(response)
        before = outbox.size
        while queue:
            head = queue[0]
            if isinstance(head, Pending):
                if not head.done:
                    break
                if head.response is not None:
                    outbox.add(head.response)
            else:
                outbox.add(head)
            queue.popleft()
        self._queued_bytes -= outbox.size - before
        assert self._queued_bytes >= 0, "queued bytes are counted when queued"
        if self._blocked & IN_FLIGHT and len(queue) <= self._hub.limits.max_in_flight_requests // 2:
            self._unblock(IN_FLIGHT)
        if not self._collected:
            self._collected = True
            self._hub.flush_later(self)

    def flush_collected(self) -> None:
        """Send what `completed` made ready; called by the hub."""
        self._collected = False
        self._last_active = self._hub.now()
        self._flush()

    def _flush(self) -> None:
        if self._writing or self._closed:
            return
        if self._send():
            return
        if not self._closed:
            self._writing = True
            self._stream.set_writer(self._on_writable)

    def _on_writable(self) -> None:
        try:
            if self._send() and not self._closed:
                self._writing = False
                self._stream.set_writer(None)
        except Exception as error:  # noqa: BLE001  # it ends with the connection that it concerns
            self.fail(error)

    def _send(self) -> bool:
        """Send; return whether all is sent (or the connection is gone)."""
        hub = self._hub
        outbox = self._outbox
        before = outbox.size
        done = True
        if before or self._writing:
            try:
                done = outbox.send(self._stream, hub.limits.send_quantum_bytes)
            except OSError as error:
                self._tear_down(CloseReason.BROKEN, str(error))
                return True
            except BrokenSliceError as error:
                self._tear_down(CloseReason.SEND_FAILED, str(error))
                return True
            sent = before - outbox.size
            if sent:
                hub.metrics.bytes_out += sent
                self._last_active = hub.now() if self._writing else self._last_active
        if self._blocked:
            self._check_backlog(done=done)
        return done

    def _check_backlog(self, *, done: bool) -> None:
        unsent = self._outbox.size + self._queued_bytes
        if self._blocked & BACKLOG and unsent <= self._hub.limits.output_backlog_bytes // 2:
            self._unblock(BACKLOG)
        if self._blocked & DRAINING and done and not self._queue and not self._lingering:
            if self._closing_reason[0] is CloseReason.SHUTDOWN:
                self._linger()
            else:
                self._tear_down(*self._closing_reason)

    # --- the end --------------------------------------------------------------------------------------------

    def drain(self, timeout_s: float, kind: CloseReason, reason: str) -> None:
        """Handle no further frame, and close when every open answer is sent, or after `timeout_s` seconds."""
        if self._closed or self._blocked & CLOSING:
            return
        deadline = self._hub.now() + timeout_s
        if not self._blocked & DRAINING or deadline < self._drain_deadline:
            self._drain_deadline = deadline
        if not self._blocked & DRAINING:
            self._closing_reason = (kind, reason)
        self._blocked |= DRAINING
        self._hub.frame_started.pop(self, None)
        if self._reading:
            self._reading = False
            self._stream.set_reader(None)
        if not self._writing:
            self._flush()

    def _linger(self) -> None:
        """Wait for the client's end of the connection after everything was sent.

        close(2) with unread requests in the socket makes the kernel drop answers that are still on their way.
        """
        self._lingering = True
        self._drain_deadline = min(self._drain_deadline, self._hub.now() + _LINGER_S)
        self._stream.shutdown_write()
        self._reading = True
        self._stream.set_reader(self._on_discard)

    def _on_discard(self) -> None:
        try:
            if self._stream.recv_into(self._hub.receive_buffer.whole):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass  # broken or ended makes no difference any more
        self._tear_down(*self._closing_reason)

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
