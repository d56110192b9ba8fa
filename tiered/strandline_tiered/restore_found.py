"""What a restore found of a lost cluster in the bucket: decoded, nothing judged. Values only.

Who uses it: `restore_reading` makes it, `restore_plan` decides by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from strandline_tiered.keys import PageName, PartitionKeys, TopicKeys
from strandline_tiered.manifest import Entry, Manifest
from strandline_tiered.offsets_snapshot import OffsetsSnapshot
from strandline_tiered.topic_manifest import TopicManifest


@dataclass(frozen=True, slots=True)
class FoundPartition:
    """One partition. `manifest`: the greatest one, None where there is none; `pages`: the entries of those it refers to.

    `highest_epoch`: the greatest leader epoch in the name of any object. `problem`: what cannot be read, for people.
    """

    keys: PartitionKeys
    highest_epoch: int
    manifest: Manifest | None = None
    pages: Mapping[PageName, tuple[Entry, ...]] = field(default_factory=dict)
    offsets: OffsetsSnapshot | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class FoundTopic:
    """One topic. `manifest`: the greatest topic manifest; `partitions`: those that have objects, ascending."""

    keys: TopicKeys
    highest_epoch: int
    manifest: TopicManifest | None = None
    partitions: tuple[FoundPartition, ...] = ()
    problem: str = ""

    @property
    def label(self) -> str:
        """How a person can name it when its name alone is not enough: as in keys."""
        return f"{self.keys.topic}-{self.keys.topic_id}"

    @property
    def is_deleted(self) -> bool:
        """Whether it has a tombstone."""
        return self.manifest is not None and self.manifest.deleted_at_ms is not None

    @property
    def object_bytes(self) -> int:
        """Bytes of the objects that its manifests name."""
        return sum(one.manifest.object_bytes for one in self.partitions if one.manifest is not None)
