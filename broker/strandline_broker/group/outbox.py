"""The effects of one input while they are being put together, and the append they may wait for.

Used inside this package only. An `Outbox` lives for one input; an `Append` from the input that produced records until
their outcome is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from strandline_broker.errors import ErrorCode
from strandline_broker.group.config import GroupConfig
from strandline_broker.group.effects import Body, Effects, Ticket, TimerKey
from strandline_broker.group.records import OffsetKey, OffsetValue
from strandline_broker.group.timers import TimerTable

_RETRY_LATER = frozenset(
    {
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.NOT_ENOUGH_REPLICAS,
        ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        ErrorCode.REQUEST_TIMED_OUT,
    }
)
_RETRY_ELSEWHERE = frozenset(
    {ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.FENCED_LEADER_EPOCH, ErrorCode.KAFKA_STORAGE_ERROR}
)
_TOO_LARGE = frozenset(
    {ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.RECORD_LIST_TOO_LARGE, ErrorCode.INVALID_FETCH_SIZE}
)


def response_error(error: ErrorCode) -> ErrorCode:
    """Translate why an append failed into what a group's client understands.

    Source: Kafka 4.2, `GroupMetadataManager.appendGroupMetadataErrorToResponseError`.
    """
    if error in _RETRY_LATER:
        return ErrorCode.COORDINATOR_NOT_AVAILABLE
    if error in _RETRY_ELSEWHERE:
        return ErrorCode.NOT_COORDINATOR
    if error in _TOO_LARGE:
        return ErrorCode.UNKNOWN_SERVER_ERROR
    return error


FailureBody: TypeAlias = Callable[[ErrorCode], Body]
OnCommitted: TypeAlias = "Callable[[Outbox], None]"
OnFailed: TypeAlias = "Callable[[ErrorCode, Outbox], None]"


@dataclass(slots=True, eq=False)
class Append:
    """Records on their way to the log: whose answers depend on them, and what to do when the outcome is known.

    `on_failed` callbacks get the error already translated by `response_error`.
    """

    tickets: list[tuple[Ticket, FailureBody]] = field(default_factory=list)
    offsets: list[tuple[OffsetKey, tuple[int, OffsetValue | None]]] = field(default_factory=list)
    on_committed: list[OnCommitted] = field(default_factory=list)
    on_failed: list[OnFailed] = field(default_factory=list)


class Outbox:
    """Collects what one input at `now_ms` leads to."""

    __slots__ = ("_timers", "append", "config", "effects", "now_ms")

    def __init__(self, config: GroupConfig, timers: TimerTable, now_ms: int) -> None:
        self.config = config
        self.now_ms = now_ms
        self.effects = Effects()
        self.append = Append()
        self._timers = timers

    def note(self, sentence: str) -> None:
        """Say something to the log."""
        self.effects.notes.append(sentence)

    def reply(self, ticket: Ticket, body: Body) -> None:
        """Answer at once."""
        self.effects.replies.append((ticket, body))

    def reply_when_committed(self, ticket: Ticket, body: Body, failure: FailureBody) -> None:
        """Answer with `body` once this input's records are committed, or with `failure(error)`."""
        self.effects.committed.append((ticket, body))
        self.append.tickets.append((ticket, failure))

    def record(self, key: bytes, value: bytes | None) -> None:
        """Append one record."""
        self.effects.records.append((key, value))

    def when_committed(self, callback: OnCommitted) -> None:
        """Call back when this input's records are committed."""
        self.append.on_committed.append(callback)

    def when_failed(self, callback: OnFailed) -> None:
        """Call back when this input's records were not written."""
        self.append.on_failed.append(callback)

    def arm(self, key: TimerKey, delay_ms: int) -> None:
        """Let `key` fire `delay_ms` from now."""
        self._announce(self._timers.arm(key, self.now_ms + delay_ms))

    def cancel(self, key: TimerKey) -> None:
        """Let `key` not fire."""
        self._announce(self._timers.cancel(key))

    def due(self, key: TimerKey) -> bool:
        """Take the news that `key` fired; False when it is not, or no longer, due."""
        due, announcement = self._timers.fire(key, self.now_ms)
        self._announce(announcement)
        return due

    def finish(self) -> tuple[Effects, Append | None]:
        """Return the effects, and the append whose outcome they wait for."""
        effects = self.effects
        if effects.records:
            effects.token = self.append
            return effects, self.append
        assert not self.append.on_committed, "callbacks wait for records that are not there"
        effects.replies += effects.committed
        effects.committed = []
        return effects, None

    def _announce(self, announcement: tuple[TimerKey, int | None] | None) -> None:
        if announcement is not None:
            self.effects.timers.append(announcement)
