"""DeleteRecords at a leader: a new log start, and the wait until everybody who counts has it.

That is every replica in sync, as it says in its fetches, and for a tiered partition the bucket first (design section 6).

Who uses it: `Partition`, which owns one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from strandline_broker.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from strandline_broker.replica.partition import Partition


class Deletions:
    """The requests that wait; bounded by the connections that sent them."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: dict[asyncio.Future[None], None] = {}

    def __bool__(self) -> bool:
        return bool(self._waiters)

    async def delete(self, partition: Partition, before_offset: int) -> int:
        """See `Partition.delete_records`."""
        partition.check_leader()
        if not partition.log.config.delete:
            raise KafkaError(ErrorCode.POLICY_VIOLATION, "cleanup.policy does not contain delete")
        offset = partition.high_watermark if before_offset == -1 else before_offset
        if not 0 <= offset <= partition.high_watermark:
            raise KafkaError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"offset {offset} is beyond the high watermark {partition.high_watermark}",
            )
        if partition.tier is not None:
            partition.tier.ask_log_start(offset)
        else:
            partition.raise_log_start(offset)
        while (low := partition.low_watermark()) < offset:
            moved = asyncio.get_running_loop().create_future()
            self._waiters[moved] = None
            try:
                await moved
            finally:
                del self._waiters[moved]
            partition.check_leader()
        return low

    def wake(self) -> None:
        """Let all that wait look again."""
        for moved in self._waiters:
            if not moved.done():
                moved.set_result(None)
