"""Committed offsets out of a snapshot, as the records that they were once (design section 7.1).

Who uses it: `GroupShard`, for a coordinator whose partition of `__consumer_offsets` is recovering. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strandline_broker.group.records import OffsetKey, OffsetValue, encode_offset_key, encode_offset_value
from strandline_broker.group.requests import ZERO_UUID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strandline_broker.group.offsets import OffsetStore
    from strandline_tiered.offsets_snapshot import CommittedOffset, Groups


def lacking(offsets: OffsetStore, groups: Groups) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value of every offset of a snapshot that is not in `offsets`.

    One that is there was committed after what the snapshot has. Raises EncodeError for names longer than records can have.
    """
    for group_id, committed in groups.items():
        for (topic, partition), offset in committed.items():
            if offsets.newest(OffsetKey(group_id, topic, partition)) is None:
                yield encode_offset_key(group_id, topic, partition), encode_offset_value(_value(offset))


def _value(offset: CommittedOffset) -> OffsetValue:
    return OffsetValue(
        offset.offset,
        offset.leader_epoch,
        offset.metadata,
        offset.committed_at_ms,
        offset.expires_at_ms,
        offset.topic_id or ZERO_UUID,
    )
