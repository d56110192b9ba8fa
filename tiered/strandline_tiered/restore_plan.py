"""From what a bucket holds of a lost cluster to what a new one will hold: decisions without effects (design 7.3).

Who uses it: `strandline tier restore`. Pure: the same bucket and target give the same plan, so that a restore that was
interrupted goes on, and writes nothing else under a key that it has written before (invariant 4).

- The old prefix is only read. Every object that a manifest needs is copied into the prefix of the new cluster's id, under
  its own name; so are pages. What was another partition's before (an *origin*) becomes the partition's own by that.
- Each partition gets one new manifest, in an epoch above all that any name in the old prefix has. Leaders of the new
  cluster begin above that epoch.
- A topic with a tombstone is never restored. Of a topic that is not tiered (compacted ones) there is only the definition.

What becomes of committed offsets: `restore_offsets`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple
from uuid import UUID

from strandline_tiered.keys import ManifestName, PartitionKeys, TopicKeys, TopicManifestName
from strandline_tiered.manifest import Entry, Manifest, PageRef, Part, empty_manifest
from strandline_tiered.manifest_events import EntriesRemoved, apply
from strandline_tiered.manifest_format import make_page
from strandline_tiered.restore_found import FoundPartition, FoundTopic
from strandline_tiered.topic_manifest import TopicManifest

CONSUMER_OFFSETS = "__consumer_offsets"
INTERNAL_TOPICS = frozenset((CONSUMER_OFFSETS, "__transaction_state", "__share_group_state"))
"""What clusters make for themselves; of them only committed offsets are restored."""
TIERING = "remote.storage.enable"


class Tiers(Enum):
    """Whether a topic's configuration lets its records be in the bucket."""

    YES = "yes"
    SWITCHED_OFF = f"{TIERING} is false"
    NEVER = "it is compacted"


class Choice(NamedTuple):
    """Which topics to restore, by name or as `NAME-ID`; none named means all. `left_out` wins."""

    topics: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()

    def takes(self, topic: FoundTopic) -> bool:
        """Whether a topic is wanted."""
        names = {topic.keys.topic, topic.label}
        return not names & self.left_out and (not self.topics or bool(names & self.topics))

    def unknown(self, topics: Iterable[FoundTopic]) -> list[str]:
        """Return what is named and is not there."""
        known = {name for topic in topics for name in (topic.keys.topic, topic.label)}
        return sorted((self.topics | self.left_out) - known)


@dataclass(frozen=True, slots=True)
class ObjectCopy:
    """A segment object to copy: the key where it is, the entry that names it, and the key that it gets."""

    source: str
    entry: Entry
    target: str


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """One partition of the new cluster.

    `manifest`: what is written, and in which epoch; `pages`: the pages that it refers to, by key.
    `former_high_watermark`: what the old cluster's last manifest said, -1 where there was none.
    """

    keys: PartitionKeys
    manifest: Manifest
    copies: tuple[ObjectCopy, ...] = ()
    pages: Mapping[str, bytes] = field(default_factory=dict)
    former_high_watermark: int = -1

    @property
    def leader_epoch(self) -> int:
        """The epoch in which the partition is made; its leaders come above it."""
        return self.manifest.name.leader_epoch

    @property
    def gap(self) -> int:
        """How many records are known to have been committed and were not in the bucket. More may have been."""
        return max(0, self.former_high_watermark - self.manifest.end_offset)

    @property
    def object_bytes(self) -> int:
        """Bytes to copy."""
        return sum(copy.entry.object_bytes for copy in self.copies)


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """One topic of the new cluster. Without `partitions` only its definition is restored, under a new id."""

    keys: TopicKeys
    manifest: TopicManifest
    partitions: tuple[PartitionPlan, ...] = ()


@dataclass(frozen=True, slots=True)
class TopicsPlan:
    """What is restored, what is not (`skipped`: a topic and why), what to know (`notes`), and what stands in the way."""

    topics: tuple[TopicPlan, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def plan_topics(
    found: Sequence[FoundTopic], *, target: UUID, choice: Choice, tiers: Callable[[Mapping[str, str]], Tiers]
) -> TopicsPlan:
    """Return what becomes of the topics that were found; internal ones are passed over.

    `target`: id of the new cluster. `tiers` judges a topic's configuration.
    """
    problems = [f"there is no topic {name} in the bucket" for name in choice.unknown(found)]
    skipped: list[tuple[str, str]] = []
    notes: list[str] = []
    wanted: list[FoundTopic] = []
    for topic in found:
        if topic.keys.topic in INTERNAL_TOPICS:
            continue
        if topic.is_deleted:
            skipped.append((topic.label, "it is deleted"))
        elif not choice.takes(topic):
            skipped.append((topic.label, "it was not asked for"))
        else:
            wanted.append(topic)
            problems += _problems(topic)
    for name, count in sorted(Counter(topic.keys.topic for topic in wanted).items()):
        if count > 1:
            labels = ", ".join(topic.label for topic in wanted if topic.keys.topic == name)
            problems.append(f"{count} topics are called {name}; leave out all but one: {labels}")
    if problems:
        return TopicsPlan((), tuple(skipped), (), tuple(problems))
    topics = [_plan_topic(topic, target, tiers, notes) for topic in wanted]
    return TopicsPlan(tuple(topics), tuple(skipped), tuple(notes))


def _problems(topic: FoundTopic) -> list[str]:
    found = [topic.problem, *(partition.problem for partition in topic.partitions)]
    if topic.manifest is None and not topic.problem:
        found.append(f"{topic.label} has no topic manifest: its configuration is not known")
    return [problem for problem in found if problem]


def _plan_topic(
    topic: FoundTopic, target: UUID, tiers: Callable[[Mapping[str, str]], Tiers], notes: list[str]
) -> TopicPlan:
    old = topic.manifest
    assert old is not None, "topics without a manifest are a problem"
    keys = TopicKeys(target, topic.keys.topic, topic.keys.topic_id)
    config = dict(old.config)
    tiered = tiers(config)
    if tiered is Tiers.SWITCHED_OFF and topic.object_bytes:
        # Its records could not be read otherwise: a replica that begins with nothing has them in the bucket only.
        notes.append(f"{topic.keys.topic}: {TIERING}=false is left out, so that its records can be read")
        del config[TIERING]
        tiered = Tiers.YES
    if tiered is not Tiers.YES:
        notes.append(f"{topic.keys.topic}: restored empty, {tiered.value}")
        return TopicPlan(keys, replace(old, config=config))
    found = {partition.keys.partition: partition for partition in topic.partitions}
    count = max(old.partitions, *(number + 1 for number in found), 1)
    partitions = tuple(
        _plan_partition(topic, keys.partition(number), found.get(number)) for number in range(count)
    )
    manifest = replace(
        old,
        name=TopicManifestName(partitions[0].leader_epoch, 1),
        topic_epoch=0,
        partitions=count,
        config=config,
    )
    return TopicPlan(keys, manifest, partitions)


def _plan_partition(topic: FoundTopic, keys: PartitionKeys, found: FoundPartition | None) -> PartitionPlan:
    epochs = [topic.highest_epoch] if keys.partition == 0 else []
    if found is not None:
        epochs.append(found.highest_epoch)
    name = ManifestName(max(epochs, default=0) + 1, 1)
    if found is None or found.manifest is None:
        return PartitionPlan(keys, replace(empty_manifest(keys.topic_id, keys.partition, 0), name=name))
    old = without_what_is_gone(found.manifest)
    parts: list[Part] = []
    pages: dict[str, bytes] = {}
    copies: dict[str, ObjectCopy] = {}
    for part in old.parts:
        entries = found.pages[part.name] if isinstance(part, PageRef) else (part,)
        for entry in entries:
            target = keys.key(entry.name)
            copies[target] = ObjectCopy(entry.key(found.keys), entry, target)
        if isinstance(part, Entry):
            parts.append(replace(part, origin=""))
        else:
            own = tuple(replace(entry, origin="") for entry in entries)
            page, data = make_page(own, part.name.leader_epoch, part.name.object_id)
            parts.append(page)
            pages[keys.key(page.name)] = data
    # The wall clock stays that of the old manifest: the plan is to be the same each time it is made.
    manifest = replace(old, name=name, high_watermark=old.end_offset, parts=tuple(parts))
    return PartitionPlan(keys, manifest, tuple(copies.values()), pages, found.manifest.high_watermark)


def without_what_is_gone(manifest: Manifest) -> Manifest:
    """Return a manifest without what ends at or below its log start, pages included.

    Where nothing remains, its end is its log start: offsets that were used do not come again.
    """
    while True:
        manifest = apply(manifest, EntriesRemoved())
        first = manifest.parts[0] if manifest.parts else None
        if first is None or first.end_offset > manifest.log_start:
            break
        manifest = replace(manifest, parts=manifest.parts[1:])
    if not manifest.parts and manifest.log_start > manifest.end_offset:
        high_watermark = max(manifest.high_watermark, manifest.log_start)
        return replace(manifest, end_offset=manifest.log_start, high_watermark=high_watermark)
    return manifest
