"""All object keys, built and parsed: the only module that knows how they look (design 7.1, docs/formats.md).

Who uses it: everything that touches a bucket. A key is a prefix, which tells the topic or partition, and a name in it.
Names are values here; `TopicKeys` and `PartitionKeys` turn them into keys and back. Keys are relative to the object
store, whose own prefix in a shared bucket is the store's affair.

    <cluster id>/topics/<topic>-<topic id>/topic/<epoch>-<sequence>.topic
    <cluster id>/topics/<topic>-<topic id>/<partition>/<base offset>-<epoch>-<uuid>.seg
    <cluster id>/topics/<topic>-<topic id>/<partition>/manifests/<epoch>-<sequence>.manifest
    <cluster id>/topics/<topic>-<topic id>/<partition>/manifests/<epoch>.claim
    <cluster id>/topics/<topic>-<topic id>/<partition>/pages/<start offset>-<epoch>-<uuid>.page
    <cluster id>/topics/<topic>-<topic id>/<partition>/offsets/<epoch>-<sequence>.offsets

Offsets have 20 digits, epochs and sequences 10: in the order of a listing, offsets and (epoch, sequence) ascend, and
the claim of an epoch stands behind its manifests.
"""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias
from uuid import UUID

MAX_OFFSET = (1 << 63) - 1
MAX_EPOCH = (1 << 31) - 1
MAX_SEQUENCE = (1 << 31) - 1
MAX_PARTITION = (1 << 31) - 1

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_TOPIC = "[a-zA-Z0-9._-]{1,249}"
_PARTITION = "0|[1-9][0-9]{0,9}"
_VERSIONED = r"(?P<epoch>[0-9]{10})-(?P<sequence>[0-9]{10})"
_OBJECT = rf"(?P<offset>[0-9]{{20}})-(?P<epoch>[0-9]{{10}})-(?P<uuid>{_UUID})"


class SegmentName(NamedTuple):
    """An uploaded segment: base offset, the leader epoch that uploaded it, and a UUID of its own."""

    base_offset: int
    leader_epoch: int
    object_id: UUID

    def __str__(self) -> str:
        return f"{self.base_offset:020}-{self.leader_epoch:010}-{self.object_id}.seg"


class PageName(NamedTuple):
    """A page of old manifest entries: its first offset, the leader epoch that wrote it, and a UUID of its own."""

    start_offset: int
    leader_epoch: int
    object_id: UUID

    def __str__(self) -> str:
        return f"pages/{self.start_offset:020}-{self.leader_epoch:010}-{self.object_id}.page"


class ManifestName(NamedTuple):
    """A manifest. The greatest one, as these tuples compare, is the truth."""

    leader_epoch: int
    sequence: int

    def __str__(self) -> str:
        return f"manifests/{self.leader_epoch:010}-{self.sequence:010}.manifest"


class ClaimName(NamedTuple):
    """What a leader puts down before it reads."""

    leader_epoch: int

    def __str__(self) -> str:
        return f"manifests/{self.leader_epoch:010}.claim"


class OffsetsName(NamedTuple):
    """A snapshot of committed group offsets, of a partition of `__consumer_offsets`. The greatest one counts."""

    leader_epoch: int
    sequence: int

    def __str__(self) -> str:
        return f"offsets/{self.leader_epoch:010}-{self.sequence:010}.offsets"


class TopicManifestName(NamedTuple):
    """A topic manifest, by the leader epoch of partition 0. The greatest one is the truth."""

    leader_epoch: int
    sequence: int

    def __str__(self) -> str:
        return f"topic/{self.leader_epoch:010}-{self.sequence:010}.topic"


Name: TypeAlias = SegmentName | PageName | ManifestName | ClaimName | OffsetsName
"""What lies in a partition's prefix."""

MANIFESTS = "manifests/"
"""Where manifests and claims of a partition are listed."""
OFFSETS = "offsets/"
"""Where snapshots of group offsets are listed, within a partition of `__consumer_offsets`."""
TOPIC_MANIFESTS = "topic/"
"""Where topic manifests are listed, within a topic."""

_SEGMENT_PATTERN = re.compile(rf"{_OBJECT}\.seg")
_PAGE_PATTERN = re.compile(rf"pages/{_OBJECT}\.page")
_MANIFEST_PATTERN = re.compile(rf"manifests/{_VERSIONED}\.manifest")
_CLAIM_PATTERN = re.compile(r"manifests/(?P<epoch>[0-9]{10})\.claim")
_OFFSETS_PATTERN = re.compile(rf"offsets/{_VERSIONED}\.offsets")
_TOPIC_MANIFEST_PATTERN = re.compile(rf"topic/{_VERSIONED}\.topic")
_PREFIX_PATTERN = re.compile(
    rf"(?P<cluster>{_UUID})/topics/(?P<topic>{_TOPIC})-(?P<id>{_UUID})/(?:(?P<partition>{_PARTITION})/)?"
)


def parse_name(text: str) -> Name | None:
    """Return what a name in a partition's prefix stands for; None if it is none of ours."""
    if (match := _SEGMENT_PATTERN.fullmatch(text)) or (match := _PAGE_PATTERN.fullmatch(text)):
        offset, epoch = int(match["offset"]), int(match["epoch"])
        if offset > MAX_OFFSET or epoch > MAX_EPOCH:
            return None
        object_id = UUID(match["uuid"])
        if text.endswith(".seg"):
            return SegmentName(offset, epoch, object_id)
        return PageName(offset, epoch, object_id)
    if match := _CLAIM_PATTERN.fullmatch(text):
        epoch = int(match["epoch"])
        return ClaimName(epoch) if epoch <= MAX_EPOCH else None
    if match := _MANIFEST_PATTERN.fullmatch(text):
        pair = _versioned(match)
        return ManifestName(*pair) if pair is not None else None
    if match := _OFFSETS_PATTERN.fullmatch(text):
        pair = _versioned(match)
        return OffsetsName(*pair) if pair is not None else None
    return None


def parse_topic_manifest_name(text: str) -> TopicManifestName | None:
    """Return what a name in a topic's prefix stands for; None if it is no topic manifest."""
    match = _TOPIC_MANIFEST_PATTERN.fullmatch(text)
    pair = _versioned(match) if match is not None else None
    return TopicManifestName(*pair) if pair is not None else None


def _versioned(match: re.Match[str]) -> tuple[int, int] | None:
    epoch, sequence = int(match["epoch"]), int(match["sequence"])
    return (epoch, sequence) if epoch <= MAX_EPOCH and sequence <= MAX_SEQUENCE else None


class TopicKeys(NamedTuple):
    """Keys of one topic."""

    cluster_id: UUID
    topic: str
    topic_id: UUID

    @property
    def prefix(self) -> str:
        """What every key of this topic begins with."""
        return f"{cluster_prefix(self.cluster_id)}{self.topic}-{self.topic_id}/"

    def key(self, name: TopicManifestName) -> str:
        """Return the key of a topic manifest."""
        return f"{self.prefix}{name}"

    def partition(self, partition: int) -> PartitionKeys:
        """Return the keys of one of its partitions."""
        return PartitionKeys(self.cluster_id, self.topic, self.topic_id, partition)


class PartitionKeys(NamedTuple):
    """Keys of one partition."""

    cluster_id: UUID
    topic: str
    topic_id: UUID
    partition: int

    @property
    def prefix(self) -> str:
        """What every key of this partition begins with."""
        return f"{TopicKeys(*self[:3]).prefix}{self.partition}/"

    def key(self, name: Name) -> str:
        """Return the key of a name in this partition."""
        return f"{self.prefix}{name}"

    def parse(self, key: str) -> Name | None:
        """Return the name that a key of this partition has; None for any other key."""
        prefix = self.prefix
        return parse_name(key[len(prefix) :]) if key.startswith(prefix) else None

    def after_epoch(self, leader_epoch: int) -> str:
        """Return the key behind which a listing of `MANIFESTS` shows only what higher epochs wrote."""
        return self.key(ClaimName(leader_epoch))


class ParsedKey(NamedTuple):
    """A whole key, taken apart. `partition` is None for a topic manifest."""

    topic: TopicKeys
    partition: int | None
    name: Name | TopicManifestName


def cluster_prefix(cluster_id: UUID) -> str:
    """Return what every key of a cluster begins with."""
    return f"{cluster_id}/topics/"


def parse_key(key: str) -> ParsedKey | None:
    """Take any key of any cluster apart; None if it is none of ours."""
    match = _PREFIX_PATTERN.match(key)
    if match is None:
        return None
    topic = TopicKeys(UUID(match["cluster"]), match["topic"], UUID(match["id"]))
    rest = key[match.end() :]
    if match["partition"] is None:
        topic_name = parse_topic_manifest_name(rest)
        return None if topic_name is None else ParsedKey(topic, None, topic_name)
    partition = int(match["partition"])
    name = parse_name(rest) if partition <= MAX_PARTITION else None
    return None if name is None else ParsedKey(topic, partition, name)


def parse_partition_prefix(prefix: str) -> PartitionKeys | None:
    """Return whose prefix this is; None if it is not the whole prefix of a partition."""
    match = _PREFIX_PATTERN.fullmatch(prefix)
    if match is None or match["partition"] is None or int(match["partition"]) > MAX_PARTITION:
        return None
    return PartitionKeys(UUID(match["cluster"]), match["topic"], UUID(match["id"]), int(match["partition"]))
