"""Topic manifests: what a topic is, so that a bucket alone can bring it back (design 7.1, invariant 6); and its end.

Who uses it: the leader of partition 0, which writes one when the topic changed, each under its epoch and the next sequence;
restore; whoever sweeps what is left of a deleted topic. Pure.

A topic that is being deleted has a *tombstone*: a topic manifest that says since when. While it lasts, which is the grace
period of the deletion, a higher manifest without one brings the topic back. After that everything is swept but the highest
topic manifest: an id with a tombstone is never adopted again, whatever lands late.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from strandline_tiered import json_body
from strandline_tiered.envelope import FormatError
from strandline_tiered.keys import (
    MAX_EPOCH,
    MAX_PARTITION,
    MAX_SEQUENCE,
    ClaimName,
    ManifestName,
    TopicKeys,
    TopicManifestName,
    parse_key,
)

MAGIC = b"SLTM"
VERSION = 1


@dataclass(frozen=True, slots=True)
class TopicManifest:
    """A topic at some time.

    `name`: the leader epoch of partition 0 and the sequence under which it is written. `topic_epoch`: that of the
    PartitionSet it was read from. `config`: what the topic itself sets. `deleted_at_ms`: the tombstone, None while it
    lives. `written_at_ms`: the wall clock, which decides nothing.
    """

    topic: str
    topic_id: UUID
    name: TopicManifestName
    topic_epoch: int
    partitions: int
    replicas: int
    config: Mapping[str, str] = field(default_factory=dict)
    deleted_at_ms: int | None = None
    written_at_ms: int = 0


def encode_topic_manifest(manifest: TopicManifest) -> bytes:
    """Return the object's bytes."""
    body = {
        "config": dict(manifest.config),
        "deletedAtMs": manifest.deleted_at_ms,
        "leaderEpoch": manifest.name.leader_epoch,
        "partitions": manifest.partitions,
        "replicas": manifest.replicas,
        "sequence": manifest.name.sequence,
        "topic": manifest.topic,
        "topicEpoch": manifest.topic_epoch,
        "topicId": str(manifest.topic_id),
        "writtenAtMs": manifest.written_at_ms,
    }
    return json_body.encode(MAGIC, VERSION, body)


def decode_topic_manifest(data: bytes) -> TopicManifest:
    """Return the topic manifest in an object. Raises FormatError, of which UnsupportedVersion is one."""
    fields = json_body.decode(MAGIC, VERSION, data)
    manifest = TopicManifest(
        topic=fields.text("topic"),
        topic_id=json_body.uuid(fields.text("topicId"), "SLTM.topicId"),
        name=TopicManifestName(fields.number("leaderEpoch"), fields.number("sequence")),
        topic_epoch=fields.number("topicEpoch"),
        partitions=fields.number("partitions", least=1),
        replicas=fields.number("replicas", least=1),
        config=fields.mapping("config"),
        deleted_at_ms=fields.optional_number("deletedAtMs"),
        written_at_ms=fields.number("writtenAtMs"),
    )
    fields.end()
    if not all(isinstance(value, str) for value in manifest.config.values()):
        raise FormatError("SLTM.config: a value that is no string")
    in_range = (
        manifest.name.leader_epoch <= MAX_EPOCH
        and manifest.name.sequence <= MAX_SEQUENCE
        and manifest.partitions <= MAX_PARTITION
    )
    if not in_range:
        raise FormatError(f"SLTM: {manifest.name} or {manifest.partitions} partitions are out of range")
    return manifest


def may_sweep(
    tombstone: TopicManifest,
    listed: Iterable[TopicManifestName | ManifestName | ClaimName],
    leader_epoch: int,
) -> bool:
    """Whether the leader of partition 0 may sweep, once the grace period is over.

    `tombstone`: what it wrote, and what is stored. `listed`: topic manifests, and partition 0's manifests and claims, all
    listed after that. As with any deletion: write, then look. What a successor wrote, or claimed, stops it.
    """
    if tombstone.deleted_at_ms is None or tombstone.name.leader_epoch != leader_epoch:
        return False
    return all(
        name <= tombstone.name if isinstance(name, TopicManifestName) else name.leader_epoch <= leader_epoch
        for name in listed
    )


def may_sweep_again(highest: TopicManifest, is_purged: bool) -> bool:
    """Whether anybody may sweep what landed late: the cluster purged this id for good, and it has no leader any more."""
    return is_purged and highest.deleted_at_ms is not None


def swept(topic: TopicKeys, keys: Iterable[str]) -> list[str]:
    """Return which of the keys of a topic a sweep deletes: all of ours but the highest topic manifest."""
    ours = [(key, parsed.name) for key in keys if (parsed := parse_key(key)) and parsed.topic == topic]
    highest = max((name for _, name in ours if isinstance(name, TopicManifestName)), default=None)
    return [key for key, name in ours if not (isinstance(name, TopicManifestName) and name == highest)]
