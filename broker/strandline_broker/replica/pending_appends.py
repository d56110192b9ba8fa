"""Appends that are written and not acknowledged: what each waits for, and how those end that wait in vain.

Pure. Bounded by the produce requests under way, which each connection limits, and by the batches of coordinators.

Who uses it: `Partition`, which owns one, and which alone lets appends in and answers those that succeed; produce handlers
take out what has waited for too long.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from strandline_broker.errors import ErrorCode
from strandline_broker.replica.waiters import settle

if TYPE_CHECKING:
    from strandline_broker.replica.waiters import AppendWaiter, PendingAppend


class PendingAppends:
    """Those of one partition, in the order of their offsets.

    Each of them is in one queue: `until_synced` is for the leader's synced end, `until_committed` for the high watermark.
    A queue stays the same object for good, so that whoever handles every request may hold on to it.
    """

    __slots__ = ("until_committed", "until_synced")

    def __init__(self) -> None:
        self.until_synced: deque[PendingAppend] = deque()
        self.until_committed: deque[PendingAppend] = deque()

    def fail(self, code: ErrorCode) -> None:
        """Answer all of them with `code`."""
        entries = [*self.until_synced, *self.until_committed]
        self.until_synced.clear()
        self.until_committed.clear()
        settle(entries, code)

    def fail_impatient(self) -> None:
        """Tell producers that the ISR fell below its minimum after their records were written; these may survive."""
        queue = self.until_committed
        entries = [entry for entry in queue if not entry[0].patient]
        if entries:
            _keep(queue, [entry for entry in queue if entry[0].patient])
            settle(entries, ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND)

    def forget(self, waiter: AppendWaiter) -> list[list[object]]:
        """Drop a waiter whose time is up and return the rows that were not settled."""
        rows: list[list[object]] = []
        for queue in (self.until_synced, self.until_committed):
            rows.extend(entry[1] for entry in queue if entry[0] is waiter)
            _keep(queue, [entry for entry in queue if entry[0] is not waiter])
        return rows


def _keep(queue: deque[PendingAppend], kept: list[PendingAppend]) -> None:
    queue.clear()
    queue.extend(kept)
