"""What a listing of a bucket shows, partition by partition and topic by topic.

Who uses it: whoever looks into a bucket from outside, without leading anything: `strandline tier`, restore. Pure.

A listing ascends by key, so the names of one partition follow each other, and behind the partitions of a topic come its
topic manifests. `Grouping` takes one object after the other and keeps no more than one partition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from strandline_tiered.keys import (
    ClaimName,
    ManifestName,
    Name,
    OffsetsName,
    PartitionKeys,
    TopicKeys,
    TopicManifestName,
    parse_key,
)


@dataclass(frozen=True, slots=True)
class PartitionListing:
    """The objects of one partition: `sizes` in bytes, by name."""

    keys: PartitionKeys
    sizes: Mapping[Name, int]

    @property
    def manifest(self) -> ManifestName | None:
        """The greatest manifest, which is the truth; None where nothing was published."""
        return max((name for name in self.sizes if isinstance(name, ManifestName)), default=None)

    @property
    def offsets(self) -> OffsetsName | None:
        """The greatest snapshot of group offsets."""
        return max((name for name in self.sizes if isinstance(name, OffsetsName)), default=None)

    @property
    def claims(self) -> tuple[int, ...]:
        """The leader epochs of claims, ascending."""
        return tuple(sorted(name.leader_epoch for name in self.sizes if isinstance(name, ClaimName)))

    @property
    def highest_epoch(self) -> int:
        """The greatest leader epoch in any name, 0 where there is none."""
        return max((name.leader_epoch for name in self.sizes), default=0)


@dataclass(frozen=True, slots=True)
class TopicListing:
    """A topic: the numbers of the partitions that have objects, and its topic manifests."""

    keys: TopicKeys
    partitions: tuple[int, ...] = ()
    names: tuple[TopicManifestName, ...] = ()

    @property
    def manifest(self) -> TopicManifestName | None:
        """The greatest topic manifest, which is the truth."""
        return max(self.names, default=None)

    @property
    def highest_epoch(self) -> int:
        """The greatest epoch in the name of a topic manifest, 0 where there is none."""
        return max((name.leader_epoch for name in self.names), default=0)


Listing: TypeAlias = PartitionListing | TopicListing


class _Open(NamedTuple):
    """A partition of which more may come."""

    keys: PartitionKeys
    sizes: dict[Name, int]


@dataclass(slots=True)
class Grouping:
    """Groups the objects of an ascending listing. `foreign` counts those that are none of ours."""

    foreign: int = 0
    _partition: _Open | None = None
    _topic: TopicKeys | None = None
    _partitions: list[int] = field(default_factory=list)
    _names: list[TopicManifestName] = field(default_factory=list)

    def add(self, key: str, size: int) -> Iterator[Listing]:
        """Take the next object; yield what is complete by that."""
        parsed = parse_key(key)
        if parsed is None:
            self.foreign += 1
            return
        if parsed.topic != self._topic:
            yield from self.end()
            self._topic = parsed.topic
        if isinstance(parsed.name, TopicManifestName):
            yield from self._end_partition()
            self._names.append(parsed.name)
            return
        assert parsed.partition is not None, "only topic manifests belong to no partition"
        if self._partition is None or self._partition.keys.partition != parsed.partition:
            yield from self._end_partition()
            self._partition = _Open(parsed.topic.partition(parsed.partition), {})
        self._partition.sizes[parsed.name] = size

    def end(self) -> Iterator[Listing]:
        """Yield what is complete because nothing follows."""
        yield from self._end_partition()
        if self._topic is not None:
            yield TopicListing(self._topic, tuple(self._partitions), tuple(self._names))
        self._topic, self._partitions, self._names = None, [], []

    def _end_partition(self) -> Iterator[Listing]:
        if self._partition is not None:
            self._partitions.append(self._partition.keys.partition)
            yield PartitionListing(*self._partition)
            self._partition = None
