"""The sending half of a connection: answers in request order, coalesced, bounded, and sent to the end.

A base class of `net.connection`, which documents the whole, and used by nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque

from strandline_broker.net.handler import Pending, Response
from strandline_broker.net.hub import Hub
from strandline_broker.net.metrics import CloseReason
from strandline_broker.net.outbox import BrokenSliceError, Outbox, response_size
from strandline_broker.seams.network import Stream

# Why a connection does not go on; see `net.connection`.
MUTED = 1
IN_FLIGHT = 2
BACKLOG = 4
MEMORY = 8
YIELDED = 16
DRAINING = 32
CLOSING = 64
THROTTLED = 128

# How long to wait for the client's end of the connection when everything has been sent.
_LINGER_S = 0.5
_LINGERING = frozenset((CloseReason.SHUTDOWN, CloseReason.AUTHENTICATION_FAILED))


class SendingHalf(ABC):
    """Takes answers from the reading half, and from Pendings that complete later."""

    __slots__ = (
        "_blocked",
        "_closed",
        "_closing_reason",
        "_collected",
        "_drain_deadline",
        "_hub",
        "_last_active",
        "_lingering",
        "_outbox",
        "_queue",
        "_queued_bytes",
        "_reading",
        "_stream",
        "_writing",
    )

    def __init__(self, hub: Hub, stream: Stream) -> None:
        self._hub = hub
        self._stream = stream
        self._outbox = Outbox()
        # Answers that cannot go out yet: a Pending, and everything behind it.
        self._queue: deque[Pending | Response] = deque()
        self._queued_bytes = 0
        self._blocked = 0
        self._reading = False
        self._writing = False
        self._collected = False
        self._closed = False
        self._lingering = False
        self._closing_reason: tuple[CloseReason, str] = (CloseReason.HANDLER, "")
        self._drain_deadline = 0.0
        self._last_active = hub.now()

    @abstractmethod
    def _unblock(self, flag: int) -> None:
        """Let the reading half go on if nothing else blocks it."""

    @abstractmethod
    def _tear_down(self, kind: CloseReason, reason: str) -> None:
        """Close the stream and forget the connection."""

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """Close after an exception that nobody foresaw."""

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

    def _block_backlog(self) -> None:
        if not self._blocked & BACKLOG:
            self._blocked |= BACKLOG
            self._hub.metrics.backlog_pauses += 1

    def _block_in_flight(self) -> None:
        if not self._blocked & IN_FLIGHT:
            self._blocked |= IN_FLIGHT
            self._hub.metrics.in_flight_pauses += 1

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
            if self._closing_reason[0] in _LINGERING:
                self._linger()
            else:
                self._tear_down(*self._closing_reason)

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
        if self._reading:
            self._reading = False
            self._stream.set_reader(None)
        if not self._writing:
            self._flush()

    def _linger(self) -> None:
        """Wait for the client's end of the connection after everything was sent.

        close(2) with unread requests in the socket makes the kernel drop answers that are still on their way. After a
        failed login our own end is not shown before: some clients that find it behind the answer do not look at the answer.
        """
        self._lingering = True
        self._drain_deadline = min(self._drain_deadline, self._hub.now() + _LINGER_S)
        if self._closing_reason[0] is CloseReason.SHUTDOWN:
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
