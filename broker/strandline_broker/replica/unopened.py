"""The logs of a broker that could not be opened, and when each is tried again. Pure: times are arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from strandline_broker.replica.attempts import PartitionKey

RETRY_FIRST_S: Final = 5.0
RETRY_MAX_S: Final = 60.0


class _Unopened(NamedTuple):
    reason: str
    retry_at: float
    delay_s: float


class UnopenedLogs:
    """At most one entry for each replica; `now` is seconds of a monotonic clock."""

    __slots__ = ("_logs",)

    def __init__(self) -> None:
        self._logs: dict[PartitionKey, _Unopened] = {}

    def __contains__(self, key: PartitionKey) -> bool:
        return key in self._logs

    def __iter__(self) -> Iterator[PartitionKey]:
        return iter(tuple(self._logs))

    def reason(self, key: PartitionKey) -> str:
        """Return why the last attempt failed. Raises KeyError."""
        return self._logs[key].reason

    def failed(self, key: PartitionKey, reason: str, now: float) -> float:
        """Take note of an attempt that failed; return the seconds until the next, twice as many each time."""
        earlier = self._logs.get(key)
        delay_s = RETRY_FIRST_S if earlier is None else min(2 * earlier.delay_s, RETRY_MAX_S)
        self._logs[key] = _Unopened(reason, now + delay_s, delay_s)
        return delay_s

    def waits(self, key: PartitionKey, now: float) -> bool:
        """Whether a log must not be tried yet."""
        found = self._logs.get(key)
        return found is not None and now < found.retry_at

    def any_due(self, now: float) -> bool:
        """Whether one of them should be tried again."""
        return any(now >= one.retry_at for one in self._logs.values())

    def opened(self, key: PartitionKey) -> bool:
        """Take note that a log is open; return whether it could not be opened before."""
        return self._logs.pop(key, None) is not None

    def keep_only(self, wanted: Collection[PartitionKey]) -> None:
        """Forget the logs that this broker needs no more."""
        for key in [key for key in self._logs if key not in wanted]:
            del self._logs[key]
