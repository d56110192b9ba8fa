"""Offsets and groups that nobody uses any more.

| group | an offset's retention (`offsets.retention.minutes`) runs from |
|---|---|
| without members, once had some | when the group became empty (records of old versions: the commit) |
| stable, of consumers | the commit, for topics that no member subscribes to |
| never had members (simple consumers) | the commit |
| any other | never |

An offset with an expiry of its own (OffsetCommit versions 2-4) goes by that alone. A group without members and without
offsets is deleted.

Source: KIP-211; Kafka 4.2, `ClassicGroup.offsetExpirationCondition`, `GroupCoordinatorShard.cleanupGroupMetadata`.
"""

from __future__ import annotations

from strandline_broker.group.classic_group import ClassicGroup
from strandline_broker.group.offsets import OffsetStore
from strandline_broker.group.outbox import Outbox
from strandline_broker.group.records import OffsetKey, OffsetValue
from strandline_broker.group.states import GroupState


def _retention_start_ms(group: ClassicGroup, value: OffsetValue) -> int | None:
    """Return when the offset's retention began, None while it may not expire."""
    if group.protocol_type is None:
        return value.commit_timestamp_ms
    if group.state is GroupState.EMPTY:
        return value.commit_timestamp_ms if group.state_timestamp_ms == -1 else group.state_timestamp_ms
    if group.state is GroupState.STABLE and group.subscribed_topics is not None:
        return value.commit_timestamp_ms
    return None


def _is_expired(group: ClassicGroup, value: OffsetValue, out: Outbox) -> bool:
    start_ms = _retention_start_ms(group, value)
    if start_ms is None:
        return False
    if value.expire_timestamp_ms != -1:
        return out.now_ms >= value.expire_timestamp_ms
    return out.now_ms - start_ms >= out.config.offsets_retention_ms


def expire_group(group: ClassicGroup, offsets: OffsetStore, limit: int, out: Outbox) -> bool:
    """Remove the group's expired offsets, `limit` records at most; True if it has none left (also none on the way)."""
    emptied = True
    for key in offsets.keys_of_group(group.group_id):
        if len(out.effects.records) < limit and _expire_one(group, offsets, key, out):
            offsets.write(key, None, out)
        else:
            emptied = False
    return emptied


def _expire_one(group: ClassicGroup, offsets: OffsetStore, key: OffsetKey, out: Outbox) -> bool:
    value = offsets.newest(key)
    if value is None or group.is_subscribed_to(key.topic) or offsets.in_transaction(key):
        return False
    return _is_expired(group, value, out)
