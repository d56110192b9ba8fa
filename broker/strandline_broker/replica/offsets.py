"""The half of a partition that only looks: its offsets, epochs, and look-ups by timestamp, across both tiers.

A base class of `LocalReplica` and used by nothing else; handlers know it as `api.context.PartitionHandle`. Older records
lie in the bucket, so it is asked first; while a leader has not loaded the manifest, what depends on it is refused with
LEADER_NOT_AVAILABLE, which clients retry (design section 7.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.replica.remote import OffsetAt, RemoteError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from strandline_broker.log.log import Log
    from strandline_broker.log.producer_state import ProducerEntry
    from strandline_broker.replica.remote import RemoteLog
    from strandline_broker.replica.tier import PartitionTier


class PartitionOffsets:
    """See the module."""

    __slots__ = ("log", "tier")

    log: Log
    tier: PartitionTier | None
    """The part in the bucket; None for a partition that is not tiered."""

    @property
    def log_start_offset(self) -> int:
        """First offset that can be read, in whatever tier."""
        return self.log.start_offset if self.tier is None else self.tier.log_start

    @property
    def local_log_start_offset(self) -> int:
        """First offset on the local disk; the log start as long as nothing is tiered."""
        return self.log.start_offset

    @property
    def earliest_offset(self) -> int:
        """The log start as clients may be told. Raises KafkaError(LEADER_NOT_AVAILABLE)."""
        if self.tier is None:
            return self.log.start_offset
        if not self.tier.is_whole_here:
            self.tier.loaded()
        return self.tier.log_start

    @property
    def highest_tiered_offset(self) -> int:
        """Last offset in the bucket; -1 as long as nothing is. Raises KafkaError(LEADER_NOT_AVAILABLE)."""
        return self.tier.loaded().end_offset - 1 if self.tier is not None else -1

    @property
    def earliest_pending_upload_offset(self) -> int:
        """First offset that is not in the bucket; -1 where there is none. Raises KafkaError(LEADER_NOT_AVAILABLE)."""
        return max(self.tier.loaded().end_offset, self.tier.log_start) if self.tier is not None else -1

    @property
    def log_end_offset(self) -> int:
        """Offset of the next record."""
        return self.log.end_offset

    @property
    def producers(self) -> Iterable[ProducerEntry]:
        """What is remembered of the producers of this partition."""
        return self.log.producers

    def epoch_at(self, offset: int) -> int:
        """Return the leader epoch in which the record at `offset` was written, or -1."""
        return self.log.epochs.epoch_of(offset)

    def epoch_end_offset(self, epoch: int) -> tuple[int, int]:
        """Return (largest epoch not above `epoch`, its end offset), or (-1, -1)."""
        return self.log.epoch_end_offset(epoch)

    def diverging_epoch(self, last_fetched_epoch: int, fetch_offset: int) -> tuple[int, int] | None:
        """Return (epoch, end offset) where a reader's log parts from this one, or None if it does not (KIP-595).

        Raises KafkaError(OFFSET_OUT_OF_RANGE) for an epoch that this log knows nothing of.
        """
        epoch, end_offset = self.log.epoch_end_offset(last_fetched_epoch)
        if epoch < 0:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, f"leader epoch {last_fetched_epoch} is not known")
        if epoch < last_fetched_epoch or end_offset < fetch_offset:
            return epoch, end_offset
        return None

    async def offset_for_timestamp(self, timestamp: int, end: int) -> OffsetAt | None:
        """Return the first record below `end` whose timestamp (ms) is not below `timestamp`, in whatever tier.

        Raises KafkaError LEADER_NOT_AVAILABLE, KAFKA_STORAGE_ERROR where the bucket has to be read and cannot be.
        """
        remote = await self._ask_bucket(
            end, lambda bucket, upper: bucket.offset_for_timestamp(timestamp, upper)
        )
        if remote is not None:
            return remote
        found = self.log.offset_for_timestamp(timestamp, end)
        return OffsetAt(*found) if found is not None else None

    async def max_timestamp(self, end: int) -> OffsetAt | None:
        """Return the first record with the highest timestamp among those below `end`, None if none has one.

        Raises KafkaError as `offset_for_timestamp` does.
        """
        remote = await self._ask_bucket(end, lambda bucket, upper: bucket.max_timestamp(upper))
        found = self.log.max_timestamp(end)
        if remote is not None and (found is None or remote.timestamp >= found[0]):
            return remote
        return OffsetAt(*found) if found is not None else None

    async def _ask_bucket(
        self, end: int, ask: Callable[[RemoteLog, int], Awaitable[OffsetAt | None]]
    ) -> OffsetAt | None:
        """Return what is found below `end` among the records that only the bucket holds. Raises KafkaError."""
        if self.tier is None or self.tier.is_whole_here:
            return None
        while True:
            local_start = self.log.start_offset
            try:
                found = await ask(self.tier.loaded(), min(end, local_start))
            except RemoteError as error:
                raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, str(error)) from error
            if found is not None or self.log.start_offset == local_start:
                return found
            # Segments went meanwhile: what was here is in the bucket only.
