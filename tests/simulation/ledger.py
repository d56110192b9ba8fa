"""What lay in the simulated bucket, and how far logs may begin: checked with every write as it lands.

The rules (design sections 1 and 7.3), each broken by a violation of its name:

- *uncommitted upload*: whatever anybody ever puts into the bucket agrees with what others put there and what consumers saw;
- *dangling manifest*: what the highest manifest of a partition names exists, at every moment;
- *truth deleted*: the highest manifest of a partition stays;
- *deleted too early*: nobody gives up local segments above the end of the highest manifest, but for deleted records;
- *log start too high*: a log begins no later than DeleteRecords or the retention of its topic allow.

The values of records that are deleted by right are kept, so that the history checker sees every log from its first record.

Who uses it: `TierProbes` and `Simulation`, where a schedule tiers.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from strandline_broker.wire.batch import iter_batches, iter_records
from strandline_tiered.content import PartsSource
from strandline_tiered.envelope import FormatError
from strandline_tiered.keys import MAX_OFFSET, ManifestName, Name, ParsedKey, SegmentName
from strandline_tiered.manifest import Entry, Manifest, PageRef
from strandline_tiered.manifest_format import decode_manifest, load_page
from strandline_tiered.segment_object import verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.bucket import Bucket
    from tests.simulation.journal import Journal, TopicPartition

    from strandline_broker.log.config import LogConfig


class BatchSize(NamedTuple):
    """What retention has to know of a batch: the offset behind it, its bytes, and its highest timestamp (ms)."""

    next_offset: int
    size: int
    max_timestamp: int


class Ledger:
    """See the module. Partitions are told by name: no topic of a schedule is deleted."""

    def __init__(self, journal: Journal, bucket: Bucket) -> None:
        self.journal = journal
        self.bucket = bucket
        bucket.on_stored = self._stored
        bucket.on_deleted = self._deleted
        self.on_truth: Callable[[TopicPartition], None] = lambda partition: None
        """Told of a partition that has a new highest manifest."""
        self._manifests: dict[TopicPartition, dict[ManifestName, Manifest]] = defaultdict(dict)
        self._released: dict[TopicPartition, dict[int, bytes]] = defaultdict(dict)
        # What the highest manifest of each partition names, itself or in its pages.
        self._named: dict[TopicPartition, set[Name]] = {}
        self._keys: dict[TopicPartition, ParsedKey] = {}
        self._batches: dict[TopicPartition, dict[int, BatchSize]] = defaultdict(dict)

    # -- the bucket ----------------------------------------------------------------------------------------------------

    @property
    def partitions(self) -> list[TopicPartition]:
        """The partitions that have a manifest."""
        return [partition for partition, manifests in self._manifests.items() if manifests]

    def truth(self, partition: TopicPartition) -> Manifest | None:
        """Return the highest manifest of a partition; None while there is none."""
        manifests = self._manifests.get(partition)
        return manifests[max(manifests)] if manifests else None

    def _stored(self, parsed: ParsedKey, data: bytes) -> None:
        if parsed.partition is None:
            return
        partition = (parsed.topic.topic, parsed.partition)
        try:
            if isinstance(parsed.name, SegmentName):
                self._read_segment(partition, parsed.name, data)
            elif isinstance(parsed.name, ManifestName):
                manifest = decode_manifest(data)
                if manifest.name != parsed.name:
                    self._violation("unreadable object", f"{parsed.name} calls itself {manifest.name}")
                self._keys[partition] = parsed
                self._manifests[partition][parsed.name] = manifest
                self.journal.event(
                    f"{partition[0]}-{partition[1]} {parsed.name} [{manifest.log_start}, {manifest.end_offset})"
                )
                self.raises_log_start(partition, manifest.log_start, f"{parsed.name} of")
                if self.truth(partition) is manifest:
                    self.entries(partition)
                    self.on_truth(partition)
        except FormatError as error:
            self._violation("unreadable object", f"{parsed.name} of {partition}: {error}")

    def _deleted(self, parsed: ParsedKey) -> None:
        if parsed.partition is None:
            return
        partition = (parsed.topic.topic, parsed.partition)
        self.journal.count("objects deleted")
        truth = self.truth(partition)
        if isinstance(parsed.name, ManifestName):
            if truth is not None and parsed.name == truth.name:
                self._violation("truth deleted", f"{partition} {parsed.name}")
            self._manifests[partition].pop(parsed.name, None)
        elif truth is not None and parsed.name in self._named[partition]:
            self._violation(
                "dangling manifest", f"{partition}: {parsed.name} is deleted, {truth.name} names it"
            )

    def _read_segment(self, partition: TopicPartition, name: SegmentName, data: bytes) -> None:
        footer = verify(PartsSource([data])).footer
        if (footer.info.base_offset, footer.info.leader_epoch) != name[:2]:
            self._violation("unreadable object", f"{name} of {partition} calls itself {footer.info}")
        if partition[0] not in self.journal.unclean:
            self.note(partition, data[: footer.log_bytes], name)

    def entries(self, partition: TopicPartition) -> list[Entry]:
        """Return the entries of the highest manifest, having checked that all they name is there."""
        truth = self.truth(partition)
        if truth is None:
            return []
        topic = self._keys[partition].topic
        keys = topic.partition(partition[1])
        found: list[Entry] = []
        for part in truth.parts:
            if isinstance(part, PageRef):
                page = self.bucket.objects.get(part.key(keys))
                if page is None:
                    self._violation("dangling manifest", f"{partition} {truth.name} names {part.name}")
                else:
                    found += load_page(part, page)
            else:
                found.append(part)
        self._named[partition] = {part.name for part in (*truth.parts, *found)}
        for entry in found:
            data = self.bucket.objects.get(entry.key(keys))
            if data is None or len(data) != entry.object_bytes:
                self._violation("dangling manifest", f"{partition} {truth.name} names {entry.name}")
        return found

    def read(self, partition: TopicPartition, start: int, end: int) -> dict[int, bytes]:
        """Return the values in [start, end) as the highest manifest has them, by offset."""
        values: dict[int, bytes] = {}
        for entry in self.entries(partition):
            keys = self._keys[partition].topic.partition(partition[1])
            data = self.bucket.objects.get(entry.key(keys))
            if data is None or entry.end_offset <= start or entry.start_offset >= end:
                continue
            for at, header in iter_batches(data[entry.start_position : entry.log_bytes]):
                begin = entry.start_position + at
                for record in iter_records(data[begin : begin + header.size]):
                    if max(start, entry.start_offset) <= record.offset < min(end, entry.end_offset):
                        values[record.offset] = record.value or b""
        return values

    # -- records -------------------------------------------------------------------------------------------------------

    def note(self, partition: TopicPartition, log: bytes, what: object) -> None:
        """Take note of committed batches, and compare them with what is known of them."""
        number = self.journal.number_of(partition)
        seen, times = self.journal.seen, self.journal.times
        for at, header in iter_batches(log):
            batch = log[at : at + header.size]
            if len(batch) < header.size:
                break
            size = BatchSize(header.next_offset, header.size, header.max_timestamp)
            self._batches[partition][header.base_offset] = size
            for record in iter_records(batch):
                value = record.value or b""
                times[number, record.offset] = record.timestamp
                known = seen.setdefault((number, record.offset), value)
                if known != value:
                    self._violation(
                        "uncommitted upload",
                        f"{partition} offset {record.offset} is {known!r}, and {value!r} in {what}",
                    )

    # -- where logs begin ----------------------------------------------------------------------------------------------

    def begins_here(self, partition: TopicPartition, offset: int, who: str) -> None:
        """Check that a replica may lack all records below `offset`."""
        truth = self.truth(partition)
        end = max(truth.end_offset if truth is not None else 0, self.journal.log_starts[partition])
        if offset > end:
            self._violation(
                "deleted too early",
                f"{who} {partition} begins at {offset}, the bucket's part ends at {end}",
            )

    def asks_for_log_start(
        self,
        partition: TopicPartition,
        offset: int,
        config: LogConfig,
        now_ms: int,
        uncommitted_bytes: int,
    ) -> None:
        """Check that a leader has a reason to let a log begin at `offset`; `now_ms` is its clock."""
        starts = self.journal.log_starts
        if offset <= starts[partition]:
            return
        if offset <= self.journal.delete_requests[partition] or self._is_obsolete(
            partition, offset, config, now_ms, uncommitted_bytes
        ):
            starts[partition] = offset
        else:
            self._violation("log start too high", f"{partition} {offset}, from {starts[partition]}")

    def _is_obsolete(
        self,
        partition: TopicPartition,
        offset: int,
        config: LogConfig,
        now_ms: int,
        uncommitted_bytes: int,
    ) -> bool:
        batches = self._batches[partition]
        if config.retention_bytes >= 0:
            left = sum(batch.size for base, batch in batches.items() if base >= offset)
            if left + uncommitted_bytes >= config.retention_bytes:
                return True
        floor = self.journal.log_starts[partition]
        return config.retention_ms >= 0 and all(
            now_ms - batch.max_timestamp > config.retention_ms
            for base, batch in batches.items()
            if floor <= base < offset
        )

    def raises_log_start(self, partition: TopicPartition, offset: int, who: str) -> None:
        """Check that a log may begin at `offset`."""
        if offset > self.journal.log_starts[partition]:
            self._violation(
                "log start too high", f"{who} {partition} {offset}, {self.journal.log_starts[partition]}"
            )

    def releases(self, partition: TopicPartition, offset: int) -> None:
        """Keep what a leader lets replicas give up below `offset`: no election may lose it any more, clean or not."""
        log_start = self.journal.log_starts[partition]
        # All there is: who was replaced may release late what it may release, and less than its successor did.
        values = self.read(partition, log_start, MAX_OFFSET)
        missing = next((one for one in range(log_start, offset) if one not in values), None)
        if missing is not None:
            self._violation("tiered record lost", f"{partition} offset {missing} is released")
        self.holds_released(partition, values)
        self._released[partition].update({one: value for one, value in values.items() if one < offset})

    def holds_released(self, partition: TopicPartition, values: dict[int, bytes]) -> None:
        """Check that these values of a whole log are those that were released before."""
        log_start = self.journal.log_starts[partition]
        for offset, value in self._released[partition].items():
            if offset >= log_start and values.get(offset) != value:
                self._violation(
                    "tiered record lost",
                    f"{partition} offset {offset}: {value!r}, now {values.get(offset)!r}",
                )
                return

    def _violation(self, rule: str, text: str) -> None:
        self.journal.violation(rule, text)
