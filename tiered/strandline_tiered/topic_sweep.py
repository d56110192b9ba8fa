"""What is left of a deleted topic in a bucket is removed (design 7.3, ADR 0012).

Who uses it: the broker whose turn it is, again and again, because a request of a broker that is long gone may land at any
time. It begins with the final tombstone and may end anywhere: the next one goes on.

    id purged ──▶ final tombstone stored ──▶ everything else of the topic deleted ─┐
                            ▲                                                      │
                            └─────────────── something landed late ────────────────┘
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from strandline_tiered.keys import TopicKeys
from strandline_tiered.newest import MAX_DELETE
from strandline_tiered.object_store import ObjectStore
from strandline_tiered.topic_manifest import FINAL, final_tombstone, swept
from strandline_tiered.topic_store import list_topics, write_topic_manifest


async def sweep_purged(store: ObjectStore, cluster_id: UUID, purged: Collection[UUID]) -> int:
    """Sweep every topic of a cluster that is in the bucket and whose id is `purged` for good; return how many objects.

    Where nothing landed since the last time, it only lists. Raises Refused, Unavailable: what is left is for the next time.
    """
    count = 0
    async for listing in list_topics(store, cluster_id):
        topic = listing.topic
        if topic.topic_id in purged and not (listing.is_whole and listing.keys == (topic.key(FINAL),)):
            count += await sweep(store, topic)
    return count


async def sweep(store: ObjectStore, topic: TopicKeys) -> int:
    """Delete everything of a topic whose id is purged but its final tombstone; return how many objects.

    Keys that are none of ours stay. Raises Refused, Unavailable.
    """
    # First: from now on nobody takes what is left, or what lands late, for a topic.
    await write_topic_manifest(store, topic, final_tombstone(topic))
    count, after = 0, ""
    while True:
        keys: list[str] = []
        async for info in store.list(topic.prefix, after=after):
            keys.append(info.key)
            if len(keys) == MAX_DELETE:
                break
        gone = swept(topic, keys)
        if gone:
            await store.delete(gone)
            count += len(gone)
        if len(keys) < MAX_DELETE:
            return count
        after = keys[-1]
