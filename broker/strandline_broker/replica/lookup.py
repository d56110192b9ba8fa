"""Look-ups by timestamp across both tiers: older records lie in the bucket, so it is asked first.

Who uses it: `Partition`, whose methods document the outcome.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.replica.remote import OffsetAt, RemoteError

if TYPE_CHECKING:
    from strandline_broker.replica.partition import Partition


async def offset_for_timestamp(partition: Partition, timestamp: int, end: int) -> OffsetAt | None:
    """Return the first record below `end` whose timestamp (ms) is not below `timestamp`. Raises KafkaError."""
    tier = partition.tier
    if tier is not None and not tier.is_whole_here:
        local_start = partition.log.start_offset
        try:
            remote = await tier.loaded().offset_for_timestamp(timestamp, min(end, local_start))
        except RemoteError as error:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, str(error)) from error
        if remote is not None:
            return remote
        if partition.log.start_offset > local_start:
            # Segments went meanwhile: what was here is in the bucket only.
            return await offset_for_timestamp(partition, timestamp, end)
    found = partition.log.offset_for_timestamp(timestamp, end)
    return OffsetAt(*found) if found is not None else None


async def max_timestamp(partition: Partition, end: int) -> OffsetAt | None:
    """Return the first record with the highest timestamp among those below `end`. Raises KafkaError."""
    tier, remote = partition.tier, None
    if tier is not None and not tier.is_whole_here:
        local_start = partition.log.start_offset
        try:
            remote = await tier.loaded().max_timestamp(min(end, local_start))
        except RemoteError as error:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, str(error)) from error
        if partition.log.start_offset > local_start:
            return await max_timestamp(partition, end)
    found = partition.log.max_timestamp(end)
    if remote is not None and (found is None or remote.timestamp >= found[0]):
        return remote
    return OffsetAt(*found) if found is not None else None
