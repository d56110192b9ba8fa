"""What a `GroupShard` wants done: records to append, answers to send, timers to set.

The shard itself does nothing; the coordinator layer carries an `Effects` out, in this order: append `records` (if any)
as one batch, send `replies`, set `timers`, and once the batch is committed send `committed` and call
`append_committed(token)`. If the append fails it drops `committed` and calls `append_failed(token, error)` instead, whose
replies answer those tickets. Appends of one shard must commit in the order in which they were returned.

`append_failed` means that the records are not, and will not come to be, in the log. Where that is unknown (a write that
timed out), keep waiting or unload the shard.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

#: Who waits for an answer: made by the caller, one per request, never looked into.
Ticket: TypeAlias = Hashable
#: A whole response body (for `wire.cold.encode_response`).
Body: TypeAlias = Mapping[str, Any]
TimerKey: TypeAlias = tuple[str, ...]


@dataclass(slots=True)
class Effects:
    """The outcome of one input.

    `token` is not None exactly when there are records. A timer's deadline is in milliseconds of the clock that `now_ms`
    comes from; None cancels. A timer that is set again replaces its former deadline. `notes` are sentences for the log.
    """

    records: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    replies: list[tuple[Ticket, Body]] = field(default_factory=list)
    committed: list[tuple[Ticket, Body]] = field(default_factory=list)
    timers: list[tuple[TimerKey, int | None]] = field(default_factory=list)
    token: object = None
    notes: list[str] = field(default_factory=list)
