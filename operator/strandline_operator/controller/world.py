"""Everything a decision may look at, as one frozen value.

Built by the loop from its caches and by tests from text. Nothing here reads a clock: times are arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import UUID

from strandline_broker.cluster.model import (
    BrokerIdentity,
    Cluster,
    ClusterState,
    Object,
    PartitionSet,
    StorageReport,
    Topic,
)
from strandline_operator.controller.durations import parse_duration_ms

if TYPE_CHECKING:
    from strandline_operator.controller.conditions import Trouble
    from strandline_operator.controller.tier_figures import Figures

FINALIZER = "strandline.io/topic"
ANNOTATION_UNDELETE = "strandline.io/undelete"
# Copied from the Topic when its deletion begins: the Topic itself is gone while the grace period runs.
ANNOTATION_GRACE_PERIOD = "strandline.io/deletion-grace-period"
DEFAULT_GRACE_PERIOD_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class TopicSets:
    """All slices of one topic, in order; the first that exists speaks for the topic."""

    topic_id: UUID
    slices: tuple[PartitionSet, ...]
    grace_period_ms: int

    @property
    def head(self) -> PartitionSet:
        """The authoritative slice."""
        return self.slices[0]

    @property
    def topic_name(self) -> str:
        """Name that Kafka clients use."""
        return self.head.topic_name

    @property
    def deleting(self) -> bool:
        """Whether the topic is hidden from clients and waits to be purged."""
        return self.head.deleting

    @property
    def partition_count(self) -> int:
        """Partitions that exist in all slices together."""
        return sum(len(slice_.partitions) for slice_ in self.slices)

    @property
    def purge_at_ms(self) -> int:
        """Wall-clock milliseconds when the grace period ends; only meaningful while deleting."""
        since = parse_time_ms(self.head.deleting_since or "") if self.head.deleting_since else 0
        return since + self.grace_period_ms


@dataclass(frozen=True)
class World:
    """A snapshot of one Cluster.

    `live` are the brokers that may lead; `known_brokers` counts those that hold a Lease. `settled` says that new
    partitions may be placed: all brokers that should run do, or have been waited for long enough. `now_ms` is the wall
    clock; it decides when a grace period ends and what a timestamp says, nothing else. `returning` is how many
    leaderships may return to preferred replicas now. `outside` is what stands in the Cluster's way beyond its partitions:
    where its processes run, somebody else knows.
    """

    cluster_name: str
    now_ms: int
    cluster: Cluster | None = None
    topics: tuple[Topic, ...] = ()
    sets: tuple[TopicSets, ...] = ()
    state: ClusterState | None = None
    live: tuple[BrokerIdentity, ...] = ()
    known_brokers: int = 0
    bootstrap: str = ""
    listeners: tuple[Mapping[str, Any], ...] = ()
    outside: tuple[Trouble, ...] = ()
    settled: bool = True
    # Not alive, but the controller has not watched for long enough to say that they are down.
    awaited: frozenset[int] = frozenset()
    returning: int = 0
    # What brokers that live say of their bucket and disk, by id.
    storage: Mapping[int, StorageReport] = field(default_factory=dict)
    # What is in the bucket of topics, as far as it is known.
    tiers: Figures = field(default_factory=dict)

    @cached_property
    def live_by_id(self) -> Mapping[int, BrokerIdentity]:
        """The brokers that may lead, by id."""
        return {broker.broker_id: broker for broker in self.live}

    @cached_property
    def usable(self) -> tuple[BrokerIdentity, ...]:
        """The brokers that may take new replicas: alive, and not about to stop."""
        return tuple(broker for broker in self.live if not broker.draining)

    @cached_property
    def purged(self) -> frozenset[UUID]:
        """Ids whose data brokers may delete; nothing that carries one comes back."""
        return frozenset(self.state.purged_topic_ids) if self.state is not None else frozenset()

    @cached_property
    def sets_by_name(self) -> Mapping[str, tuple[TopicSets, ...]]:
        """Topics that exist in the store by Kafka name, oldest first."""
        result: dict[str, tuple[TopicSets, ...]] = {}
        for sets in sorted(self.sets, key=lambda s: (s.head.creation_timestamp, str(s.topic_id))):
            if sets.topic_id not in self.purged:
                result[sets.topic_name] = (*result.get(sets.topic_name, ()), sets)
        return result

    def live_sets(self, topic_name: str) -> TopicSets | None:
        """Return the topic that serves this name now, if any."""
        return next((sets for sets in self.sets_by_name.get(topic_name, ()) if not sets.deleting), None)

    def waiting_sets(self, topic_name: str) -> TopicSets | None:
        """Return the most recently deleted topic of this name that still waits for its purge, if any."""
        waiting = [sets for sets in self.sets_by_name.get(topic_name, ()) if sets.deleting]
        return max(
            waiting,
            key=lambda s: (s.purge_at_ms - s.grace_period_ms, s.head.creation_timestamp),
            default=None,
        )

    @cached_property
    def owners(self) -> Mapping[str, Topic]:
        """The Topic object that speaks for each Kafka name: the oldest (ResourceConflict names the others)."""
        result: dict[str, Topic] = {}
        for topic in sorted(self.topics, key=lambda t: (t.meta.creation_timestamp, t.uid)):
            result.setdefault(topic.topic_name, topic)
        return result


def group_sets(
    partition_sets: Iterable[PartitionSet], grace_periods_ms: Mapping[UUID, int]
) -> tuple[TopicSets, ...]:
    """Put the slices of each topic together, ordered by topic name and id.

    `grace_periods_ms` has what `read_grace_period_ms` found for topics that are being deleted.
    """
    by_id: dict[UUID, list[PartitionSet]] = {}
    for slice_ in partition_sets:
        by_id.setdefault(slice_.topic_id, []).append(slice_)
    found = [
        TopicSets(
            topic_id,
            tuple(sorted(slices, key=lambda s: s.slice_index)),
            grace_periods_ms.get(topic_id, DEFAULT_GRACE_PERIOD_MS),
        )
        for topic_id, slices in by_id.items()
    ]
    return tuple(sorted(found, key=lambda s: (s.topic_name, str(s.topic_id))))


def read_grace_period_ms(partition_set: Object) -> int:
    """Return the grace period that a PartitionSet object carries; the default when it carries none that parses."""
    text = (partition_set["metadata"].get("annotations") or {}).get(ANNOTATION_GRACE_PERIOD, "")
    try:
        return parse_duration_ms(text)
    except ValueError:
        return DEFAULT_GRACE_PERIOD_MS  # longer than meant is the safe mistake


def format_time(ms: int) -> str:
    """Return wall-clock milliseconds as RFC 3339 in UTC, whole seconds (Kubernetes' metav1.Time)."""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time_ms(text: str) -> int:
    """Return RFC 3339 as wall-clock milliseconds. Raises ValueError."""
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)
