"""The informer's pure half: what the cluster store said last, parsed and indexed.

`ClusterView` feeds it from a running store; tests and the simulator may feed it by hand. No input or output
here, no clock, no asyncio.
"""

from __future__ import annotations

import dataclasses
import logging
import operator
import zlib
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

import orjson

from .model import (
    CLUSTER,
    CLUSTER_STATE,
    LEASE,
    MALFORMED,
    PARTITION_SET,
    SLICE_SIZE,
    TOPIC,
    BrokerLease,
    Cluster,
    ClusterState,
    Object,
    PartitionSet,
    PartitionState,
    Topic,
)
from .store import Event, EventType

logger = logging.getLogger(__name__)

Typed = Cluster | ClusterState | Topic | PartitionSet | BrokerLease

_PARSERS: Final[dict[str, Any]] = {
    CLUSTER: Cluster.from_object,
    CLUSTER_STATE: ClusterState.from_object,
    TOPIC: Topic.from_object,
    PARTITION_SET: PartitionSet.from_object,
    LEASE: BrokerLease.from_object,
}
# Kinds of the on-disk copy: what a broker needs to go on serving. Topics are read only to answer admin
# requests.
_SAVED_KINDS: Final = (CLUSTER, CLUSTER_STATE, PARTITION_SET, LEASE)
_MAGIC: Final = b"strandline-view 1"


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One object appeared (`old` is None), changed, or went away (`new` is None).

    `substantial` is False when only a Lease's renewal time or a status differs. A PartitionSet that went away
    is no order to delete data: see `ClusterState.purged_topic_ids`.
    """

    kind: str
    name: str
    old: Typed | None
    new: Typed | None
    substantial: bool


@dataclasses.dataclass(frozen=True, slots=True)
class TopicView:
    """A topic as clients see it: its slices put together. Slice 0 speaks for the topic."""

    topic_id: UUID
    topic_name: str
    slices: tuple[PartitionSet, ...]

    @property
    def config(self) -> dict[str, str]:
        """Effective topic configuration."""
        return self.slices[0].config

    @property
    def deleting(self) -> bool:
        """Whether the topic waits for the end of its deletion grace period."""
        return self.slices[0].deleting

    @property
    def partition_count(self) -> int:
        """Number of partitions."""
        return SLICE_SIZE * (len(self.slices) - 1) + len(self.slices[-1].partitions)

    def partition_set(self, index: int) -> PartitionSet | None:
        """Return the slice that holds partition number `index`, if there is such a partition."""
        if not 0 <= index < self.partition_count:
            return None
        return self.slices[index // SLICE_SIZE]

    def partition(self, index: int) -> PartitionState | None:
        """Return partition number `index`, if there is one."""
        if not 0 <= index < self.partition_count:
            return None
        return self.slices[index // SLICE_SIZE].partitions[index % SLICE_SIZE]

    def partitions(self) -> Iterator[tuple[int, PartitionState]]:
        """Yield (number, state) of every partition."""
        for part in self.slices:
            yield from enumerate(part.partitions, part.first_partition)


class ClusterCache:
    """The newest known objects of one cluster.

    `version` rises with every substantial change that brokers act on (all kinds but Topic): who caches
    something made from the cluster state compares it. Lookups see a topic only while it is not being deleted
    and its slice 0 is there.
    """

    def __init__(self, cluster: str) -> None:
        self.cluster_name = cluster
        self.version = 0
        self._objects: dict[str, dict[str, Typed]] = {kind: {} for kind in _PARSERS}
        # As stored, for the on-disk copy. PartitionSets are most of the memory and can be written from their
        # values.
        self._raw: dict[str, dict[str, Object]] = {kind: {} for kind in _PARSERS if kind != PARTITION_SET}
        self._encoded: dict[str, tuple[PartitionSet, orjson.Fragment]] = {}
        self._leases: dict[int, BrokerLease] = {}
        self._slices: dict[UUID, dict[int, PartitionSet]] = {}
        self._ids_by_name: dict[str, set[UUID]] = {}
        self._by_id: dict[UUID, TopicView] = {}
        self._by_name: dict[str, TopicView] = {}

    # -- lookups --

    @property
    def cluster(self) -> Cluster | None:
        """The Cluster object."""
        found = self._objects[CLUSTER].get(self.cluster_name)
        assert found is None or isinstance(found, Cluster)
        return found

    @property
    def state(self) -> ClusterState | None:
        """The ClusterState."""
        for found in self._objects[CLUSTER_STATE].values():
            assert isinstance(found, ClusterState)
            return found
        return None

    @property
    def leases(self) -> Mapping[int, BrokerLease]:
        """Leases by broker id; one that is not `held` belongs to a broker that stopped."""
        return MappingProxyType(self._leases)

    @property
    def topics(self) -> Mapping[str, TopicView]:
        """Visible topics by name."""
        return MappingProxyType(self._by_name)

    def topic_by_name(self, name: str) -> TopicView | None:
        """Return the topic of that name."""
        return self._by_name.get(name)

    def topic_by_id(self, topic_id: UUID) -> TopicView | None:
        """Return the topic with that id."""
        return self._by_id.get(topic_id)

    def partition(self, name: str, index: int) -> PartitionState | None:
        """Return one partition, if there is one."""
        topic = self._by_name.get(name)
        return topic.partition(index) if topic is not None else None

    def partition_sets(self) -> Iterator[PartitionSet]:
        """Yield every PartitionSet, those of topics that are being deleted too."""
        for found in self._objects[PARTITION_SET].values():
            assert isinstance(found, PartitionSet)
            yield found

    def topic_objects(self) -> Iterator[Topic]:
        """Yield every Topic object; none where the kind is not followed."""
        for found in self._objects[TOPIC].values():
            assert isinstance(found, Topic)
            yield found

    # -- input --

    def replace(self, kind: str, objects: Iterable[Object]) -> list[Change]:
        """Take over a complete list of a kind and return what differs from before."""
        changes = []
        seen = set()
        for obj in objects:
            seen.add(obj["metadata"]["name"])
            change = self._put(kind, obj)
            if change is not None:
                changes.append(change)
        for name in [name for name in self._objects[kind] if name not in seen]:
            change = self._remove(kind, name)
            if change is not None:
                changes.append(change)
        return changes

    def apply(self, kind: str, event: Event) -> Change | None:
        """Take over one event of a watch and return the change, if it made one."""
        if event.type is EventType.DELETED:
            return self._remove(kind, event.object["metadata"]["name"])
        return self._put(kind, event.object)

    def _put(self, kind: str, obj: Object) -> Change | None:
        name = obj["metadata"]["name"]
        try:
            new: Typed = _PARSERS[kind](obj)
        except MALFORMED as error:
            # Keep what was known: a mistake in one object must not take a topic or a broker away.
            logger.error("%s %s cannot be read and is ignored: %r", kind, name, error)
            return None
        if _cluster_of(new) != self.cluster_name:
            # Another cluster's; or one that was this cluster's, so that it must not stay.
            return self._remove(kind, name)
        old = self._objects[kind].get(name)
        if old is not None and old == new:
            return None
        self._objects[kind][name] = new
        if kind != PARTITION_SET:
            self._raw[kind][name] = obj
        change = Change(kind, name, old, new, old is None or not _same_substance(old, new))
        self._index(change)
        return change

    def _remove(self, kind: str, name: str) -> Change | None:
        old = self._objects[kind].pop(name, None)
        if old is None:
            return None
        if kind != PARTITION_SET:
            self._raw[kind].pop(name, None)
        change = Change(kind, name, old, None, substantial=True)
        self._index(change)
        return change

    def _index(self, change: Change) -> None:
        if change.substantial and change.kind != TOPIC:
            self.version += 1
        if change.kind == LEASE:
            for lease in (change.old, change.new):
                if isinstance(lease, BrokerLease):
                    self._index_lease(lease.broker_id)
        elif change.kind == PARTITION_SET:
            if isinstance(change.old, PartitionSet):
                self._slices[change.old.topic_id].pop(change.old.slice_index, None)
            if isinstance(change.new, PartitionSet):
                self._slices.setdefault(change.new.topic_id, {})[change.new.slice_index] = change.new
            for part in (change.old, change.new):
                if isinstance(part, PartitionSet):
                    self._index_topic(part.topic_id, part.topic_name)

    def _index_lease(self, broker_id: int) -> None:
        for lease in self._objects[LEASE].values():
            assert isinstance(lease, BrokerLease)
            if lease.broker_id == broker_id:
                self._leases[broker_id] = lease
                return
        self._leases.pop(broker_id, None)

    def _index_topic(self, topic_id: UUID, name: str) -> None:
        by_index = self._slices.get(topic_id, {})
        slices: list[PartitionSet] = []
        # A slice counts only behind full ones: its partitions would otherwise have no place in the numbering.
        while len(slices) in by_index and (not slices or len(slices[-1].partitions) == SLICE_SIZE):
            slices.append(by_index[len(slices)])
        same_name = self._ids_by_name.setdefault(name, set())
        if slices and not slices[0].deleting:
            self._by_id[topic_id] = TopicView(topic_id, slices[0].topic_name, tuple(slices))
            same_name.add(topic_id)
        else:
            self._by_id.pop(topic_id, None)
            same_name.discard(topic_id)
        if not by_index:
            self._slices.pop(topic_id, None)
        if same_name:
            # Two at once happen only through a mistake; then everybody must see the same one: the oldest.
            candidates = [self._by_id[candidate] for candidate in same_name]
            self._by_name[name] = min(candidates, key=lambda t: (t.slices[0].creation_timestamp, t.topic_id))
        else:
            self._by_name.pop(name, None)
            del self._ids_by_name[name]

    # -- copy on disk --

    def to_bytes(self) -> bytes:
        """Return everything a broker needs to go on serving without the store, checksummed (invariant 3)."""
        objects: dict[str, list[Object] | list[orjson.Fragment]] = {}
        for kind in _SAVED_KINDS:
            if kind == PARTITION_SET:
                objects[kind] = self._encoded_partition_sets()
            else:
                objects[kind] = list(self._raw[kind].values())
        body = orjson.dumps({"cluster": self.cluster_name, "objects": objects})
        return b"%s %08x\n%s" % (_MAGIC, zlib.crc32(body), body)

    def _encoded_partition_sets(self) -> list[orjson.Fragment]:
        """Return every PartitionSet as JSON; what did not change since the last time is not encoded again."""
        former = self._encoded
        self._encoded = {
            part.name: known
            if (known := former.get(part.name)) is not None and known[0] is part
            else (part, orjson.Fragment(orjson.dumps(part.to_object())))
            for part in self.partition_sets()
        }
        return [encoded for _, encoded in self._encoded.values()]

    def from_bytes(self, data: bytes) -> list[Change]:
        """Fill the cache from `to_bytes`.

        Raises ValueError on damage, another format or another cluster's copy.
        """
        header, newline, body = data.partition(b"\n")
        if not newline or header != b"%s %08x" % (_MAGIC, zlib.crc32(body)):
            raise ValueError("the saved cluster state is damaged or has an unknown format")
        saved = orjson.loads(body)
        if saved["cluster"] != self.cluster_name:
            raise ValueError(f"the saved cluster state is of {saved['cluster']}, not of {self.cluster_name}")
        return [
            change for kind in _SAVED_KINDS for change in self.replace(kind, saved["objects"].get(kind, ()))
        ]


# What a Lease says beside that it was renewed.
_details: Final = operator.attrgetter(
    *(
        field.name
        for field in dataclasses.fields(BrokerLease)
        if field.name not in ("renew_time", "resource_version")
    )
)


def _cluster_of(value: Typed) -> str:
    return value.name if isinstance(value, Cluster) else value.cluster


def _same_substance(old: Typed, new: Typed) -> bool:
    if isinstance(old, BrokerLease) and isinstance(new, BrokerLease):
        return bool(_details(old) == _details(new))
    if isinstance(old, Cluster | Topic) and isinstance(new, Cluster | Topic):
        meta = dataclasses.replace(old.meta, resource_version=new.meta.resource_version)
        return dataclasses.replace(old, meta=meta, status=new.status) == new
    return False
