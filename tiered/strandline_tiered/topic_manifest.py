"""Topic manifests: what a topic is, so that a bucket alone can bring it back (design 7.1, invariant 6); and its end.

Who uses it: the leader of partition 0, which writes one at the beginning of its epoch and whenever the topic changed, each
under its epoch and a higher sequence; restore; whoever sweeps what is left of a deleted topic. Pure.

A topic that is being deleted has a *tombstone*: a topic manifest that says since when. While it lasts, which is the grace
period of the deletion, a higher manifest without one brings the topic back. When the cluster has purged the topic's id,
which nothing takes back, anybody writes the *final tombstone* and sweeps everything else, again and again
(`topic_sweep`): an id with a tombstone is never adopted again, whatever lands late.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from uuid import UUID

from strandline_tiered import json_body
from strandline_tiered.envelope import FormatError
from strandline_tiered.keys import (
    MAX_EPOCH,
    MAX_PARTITION,
    MAX_SEQUENCE,
    TopicKeys,
    TopicManifestName,
    parse_key,
)

MAGIC = b"SLTM"
VERSION = 1
FINAL = TopicManifestName(MAX_EPOCH, MAX_SEQUENCE)
"""The greatest name there is: that of a final tombstone."""


@dataclass(frozen=True, slots=True)
class TopicManifest:
    """A topic at some time.

    `name`: the leader epoch of partition 0 and the sequence under which it is written. `topic_epoch`: that of the
    PartitionSet it was read from. `config`: what that says, which is what the topic itself sets and the defaults of its
    cluster: a topic that is brought back elsewhere behaves as before. `deleted_at_ms`: the tombstone, None while it lives.
    `written_at_ms`: the wall clock, which decides nothing.
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


def says_the_same(one: TopicManifest, other: TopicManifest) -> bool:
    """Whether two manifests describe the same topic, whoever wrote them, when, and from which version of its record."""
    return one == replace(other, name=one.name, topic_epoch=one.topic_epoch, written_at_ms=one.written_at_ms)


def final_tombstone(topic: TopicKeys) -> TopicManifest:
    """Return the last word about a topic that the cluster purged for good.

    It stands above every manifest that may still land, and has the same bytes whoever writes it: so anybody may, again and
    again. It tells nothing of what the topic was.
    """
    return TopicManifest(
        topic=topic.topic,
        topic_id=topic.topic_id,
        name=FINAL,
        topic_epoch=0,
        partitions=1,
        replicas=1,
        deleted_at_ms=0,
    )


def swept(topic: TopicKeys, keys: Iterable[str]) -> list[str]:
    """Return which of the keys of a purged topic a sweep deletes, once its final tombstone is stored: all other ones."""
    last = topic.key(FINAL)
    return [key for key in keys if key != last and (parsed := parse_key(key)) and parsed.topic == topic]
