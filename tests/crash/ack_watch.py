"""How long the partitions of a topic went without an acknowledged write, from a history that is still being filled."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

from tests.crash.history import History, Key


class AckWatch:
    """Follows a history's sends and acknowledgements; used by one thread, while others append to the history."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._sends_taken = 0
        self._acks_taken = 0
        self._sent_at: dict[Key, float] = {}
        self._acked: dict[int, list[float]] = defaultdict(list)
        """Per partition when something was acknowledged, rising."""
        self._sent: dict[int, list[float]] = defaultdict(list)
        """Per partition when that had been sent."""

    def update(self) -> None:
        """Take what is new. Acknowledgements first, whose sends are in the history by then."""
        acks = self._history.acks[self._acks_taken :]
        sends = self._history.sends[self._sends_taken :]
        self._acks_taken += len(acks)
        self._sends_taken += len(sends)
        for send in sends:
            self._sent_at[send.key] = send.at
        for ack in acks:
            times = self._acked[ack.partition]
            times.append(max(ack.at, times[-1] if times else ack.at))
            self._sent[ack.partition].append(self._sent_at.pop(ack.key, ack.at))

    def first_ack(self, partition: int, since: float) -> float | None:
        """Return when the first record that was sent after `since` was acknowledged; None if none was yet."""
        times, sent = self._acked[partition], self._sent[partition]
        for index in range(bisect_right(times, since), len(times)):
            if sent[index] > since:
                return times[index]
        return None

    def recovered_at(self, partitions: Iterable[int], since: float) -> float | None:
        """Return when the last of the partitions had its first acknowledgement of what was sent after `since`."""
        firsts = [self.first_ack(partition, since) for partition in partitions]
        if any(first is None for first in firsts):
            return None
        return max((first for first in firsts if first is not None), default=since)

    def longest_gap(self, partitions: Iterable[int], since: float, until: float) -> float:
        """Return the longest time in [since, until] in which some partition had no acknowledgement, in seconds."""
        longest = 0.0
        for partition in partitions:
            times = self._acked[partition]
            inside = times[bisect_right(times, since) : bisect_right(times, until)]
            edges = [since, *inside, until]
            longest = max(longest, *(after - before for before, after in pairwise(edges)))
        return longest
