"""Topic manifests in a bucket: written, found again, collected; and which topics of a cluster are in a bucket at all.

Who uses it: the leaders of partitions 0, which write them; whoever sweeps what is left of a deleted topic; restore. See
`topic_manifest` for what they hold.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple
from uuid import UUID

from strandline_tiered.envelope import FormatError
from strandline_tiered.keys import (
    TOPIC_MANIFESTS,
    TopicKeys,
    TopicManifestName,
    cluster_prefix,
    parse_key,
)
from strandline_tiered.newest import delete_all, load_newest, superseded
from strandline_tiered.object_store import ObjectStore
from strandline_tiered.topic_manifest import TopicManifest, decode_topic_manifest, encode_topic_manifest

FEW_KEYS = 1000
"""So many keys of one topic are looked at before the rest of them is skipped: about one answer to a listing."""
_AFTER_SLASH = chr(ord("/") + 1)


async def load_newest_topic_manifest(store: ObjectStore, topic: TopicKeys) -> TopicManifest | None:
    """Return what is true of a topic, None if nobody said it.

    Raises FormatError, of which UnsupportedVersion is one, with the key in it if the newest one is damaged or of another
    topic. Raises Refused, Unavailable.
    """
    found = await load_newest(store, f"{topic.prefix}{TOPIC_MANIFESTS}", lambda key: _name_of(topic, key))
    if found is None:
        return None
    name, key, data = found
    try:
        manifest = decode_topic_manifest(data)
    except FormatError as error:
        raise type(error)(f"{key}: {error}") from error
    if (manifest.name, manifest.topic, manifest.topic_id) != (name, topic.topic, topic.topic_id):
        raise FormatError(
            f"{key}: calls itself {manifest.name} of {manifest.topic}, topic id {manifest.topic_id}"
        )
    return manifest


async def write_topic_manifest(store: ObjectStore, topic: TopicKeys, manifest: TopicManifest) -> None:
    """Store a topic manifest. Raises Refused, Unavailable (outcome unknown: the next attempt takes a higher sequence)."""
    assert (manifest.topic, manifest.topic_id) == (topic.topic, topic.topic_id), "these are its keys"
    await store.put(topic.key(manifest.name), (encode_topic_manifest(manifest),))


async def collect_topic_manifests(store: ObjectStore, topic: TopicKeys, stored: TopicManifestName) -> int:
    """Delete what a stored topic manifest supersedes, but for the one before it; return how many.

    Raises Refused, Unavailable.
    """
    names = [_name_of(topic, info.key) async for info in store.list(f"{topic.prefix}{TOPIC_MANIFESTS}")]
    gone = superseded([name for name in names if name is not None], stored)
    await delete_all(store, [topic.key(name) for name in gone])
    return len(gone)


class TopicListing(NamedTuple):
    """Of a topic the first keys, in order: `is_whole` if these are all."""

    topic: TopicKeys
    keys: tuple[str, ...]
    is_whole: bool


async def list_topics(store: ObjectStore, cluster_id: UUID) -> AsyncIterator[TopicListing]:
    """Yield every topic of which there is an object, each once, in the order of their keys.

    It costs about one list request for every thousand objects of small topics, and one more for each large one, whose other
    objects are skipped. In memory are a thousand keys. Raises Refused, Unavailable.
    """
    prefix = cluster_prefix(cluster_id)
    after: str | None = ""
    while after is not None:
        topic: TopicKeys | None = None
        keys: list[str] = []
        listing, after = store.list(prefix, after=after), None
        async for info in listing:
            parsed = parse_key(info.key)
            if parsed is None:
                continue
            if parsed.topic != topic:
                if topic is not None:
                    yield TopicListing(topic, tuple(keys), is_whole=True)
                topic, keys = parsed.topic, []
            if len(keys) == FEW_KEYS:
                # All keys of the topic are below this, and none of any other topic is in between.
                after = topic.prefix[:-1] + _AFTER_SLASH
                break
            keys.append(info.key)
        if topic is not None:
            yield TopicListing(topic, tuple(keys), is_whole=after is None)


def _name_of(topic: TopicKeys, key: str) -> TopicManifestName | None:
    parsed = parse_key(key)
    if parsed is None or parsed.topic != topic or not isinstance(parsed.name, TopicManifestName):
        return None
    return parsed.name
