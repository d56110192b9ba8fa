"""What the runtime asks of a state machine, and of those who wait for its answers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from strandline_broker.coordinator.loading import Replayed

if TYPE_CHECKING:
    from strandline_broker.errors import ErrorCode
    from strandline_broker.group.effects import Effects


class Ticket(Hashable, Protocol):
    """Somebody who waits for an answer; made by the API handlers."""

    def answer(self, body: Mapping[str, Any], /) -> None:
        """Send the response body; does nothing when an answer was given already or nobody waits any more."""
        ...

    def refuse(self, code: ErrorCode, /) -> None:
        """Send the response that says `code`; does nothing when `answer` would not."""
        ...


class StateMachine(Replayed, Protocol):
    """A shard: the state of one partition of an internal topic (`group.shard.GroupShard` is one).

    Every input carries `now_ms`; what it wants done comes back as `Effects`.
    """

    def loaded(self, now_ms: int) -> Effects:
        """End the replay."""
        ...

    def unload(self) -> Sequence[Hashable]:
        """Forget everything; return the tickets without an answer."""
        ...

    def on_timer(self, key: Any, now_ms: int) -> Effects:
        """Take note that a timer fired."""
        ...

    def append_committed(self, token: object, now_ms: int) -> Effects:
        """Take note that records are committed."""
        ...

    def append_failed(self, token: object, error: ErrorCode, now_ms: int) -> Effects:
        """Take note that records were not appended."""
        ...
