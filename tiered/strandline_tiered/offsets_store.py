"""Snapshots of committed group offsets in a bucket: written, found again, collected.

Who uses it: the coordinator, which writes one of each partition of `__consumer_offsets` now and then, and reads the newest
when that partition is restored; `strandline tier restore`. See `offsets_snapshot` for what they hold.
"""

from __future__ import annotations

from strandline_tiered.envelope import FormatError
from strandline_tiered.keys import OFFSETS, OffsetsName, PartitionKeys
from strandline_tiered.newest import delete_all, load_newest, superseded
from strandline_tiered.object_store import Content, ObjectStore
from strandline_tiered.offsets_snapshot import OffsetsSnapshot, decode_offsets, encode_offsets


async def load_newest_offsets(store: ObjectStore, keys: PartitionKeys) -> OffsetsSnapshot | None:
    """Return the newest snapshot of a partition of `__consumer_offsets`, None if there is none.

    Raises FormatError, of which UnsupportedVersion is one, with the key in it if the newest one is damaged: an older one is
    never returned in its place, since consumers would read again what they have read. Raises Refused, Unavailable.
    """

    def parse(key: str) -> OffsetsName | None:
        name = keys.parse(key)
        return name if isinstance(name, OffsetsName) else None

    found = await load_newest(store, f"{keys.prefix}{OFFSETS}", parse)
    if found is None:
        return None
    name, key, data = found
    try:
        snapshot = decode_offsets(data)
    except FormatError as error:
        raise type(error)(f"{key}: {error}") from error
    if (snapshot.name, snapshot.partition) != (name, keys.partition):
        raise FormatError(f"{key}: calls itself {snapshot.name} of partition {snapshot.partition}")
    return snapshot


async def write_offsets(store: ObjectStore, keys: PartitionKeys, snapshot: OffsetsSnapshot) -> None:
    """Store a snapshot. Raises Refused, Unavailable (outcome unknown: the next attempt takes a higher sequence)."""
    assert snapshot.partition == keys.partition, "these are its keys"
    await write_encoded_offsets(store, keys, snapshot.name, (encode_offsets(snapshot),))


async def write_encoded_offsets(
    store: ObjectStore, keys: PartitionKeys, name: OffsetsName, content: Content
) -> None:
    """Store a snapshot that is encoded already. Raises Refused, Unavailable (outcome unknown, as above)."""
    await store.put(keys.key(name), content)


async def collect_offsets(store: ObjectStore, keys: PartitionKeys, stored: OffsetsName) -> int:
    """Delete what a stored snapshot supersedes, but for the one before it; return how many. Raises Refused, Unavailable."""
    names = [keys.parse(info.key) async for info in store.list(f"{keys.prefix}{OFFSETS}")]
    gone = superseded([name for name in names if isinstance(name, OffsetsName)], stored)
    await delete_all(store, [keys.key(name) for name in gone])
    return len(gone)
