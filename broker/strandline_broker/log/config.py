"""What a topic's configuration means to its logs; immutable, replaced as a whole by a dynamic change.

Source: Kafka `LogConfig`, `TopicConfig`. Names and defaults are Kafka's with dots as underscores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from strandline_broker.wire.batch import Compression

LONG_MAX = (1 << 63) - 1
_DAY_MS = 24 * 60 * 60 * 1000
_CODECS: dict[str, Compression | None] = {
    "producer": None,
    "uncompressed": Compression.NONE,
    "none": Compression.NONE,
    "gzip": Compression.GZIP,
    "snappy": Compression.SNAPPY,
    "lz4": Compression.LZ4,
    "zstd": Compression.ZSTD,
}


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Settings of one log. Bytes and milliseconds; -1 for no limit where Kafka says so."""

    segment_bytes: int = 1 << 30
    segment_ms: int = 7 * _DAY_MS
    segment_jitter_ms: int = 0
    segment_index_bytes: int = 10 << 20
    index_interval_bytes: int = 4096
    retention_ms: int = 7 * _DAY_MS
    retention_bytes: int = -1
    file_delete_delay_ms: int = 60_000
    max_message_bytes: int = 1_048_588
    message_timestamp_type: str = "CreateTime"
    message_timestamp_before_max_ms: int = LONG_MAX
    message_timestamp_after_max_ms: int = 3_600_000
    compression_type: str = "producer"
    cleanup_policy: frozenset[str] = frozenset({"delete"})
    delete_retention_ms: int = _DAY_MS
    min_compaction_lag_ms: int = 0
    max_compaction_lag_ms: int = LONG_MAX
    min_cleanable_dirty_ratio: float = 0.5
    preallocate: bool = False
    remote_storage_enable: bool | None = None
    """None: as the Cluster has a bucket or not."""
    remote_log_copy_disable: bool = False
    local_retention_ms: int = -2
    local_retention_bytes: int = -2
    # Derived, kept because every append asks.
    codec: Compression | None = field(init=False)
    """The codec that batches must have on disk, None for whatever the producer chose."""
    log_append_time: bool = field(init=False)
    """Whether the broker's clock names the time of records."""
    looks_inside: bool = field(init=False)
    """Whether every record of a batch has to be looked at."""
    roll_ms: int = field(init=False)
    """The age at which a segment ends: where there is compaction, no later than it may have to be compacted."""

    def __post_init__(self) -> None:
        if self.message_timestamp_type not in ("CreateTime", "LogAppendTime"):
            raise ValueError(f"message.timestamp.type={self.message_timestamp_type!r}")
        if self.compression_type not in _CODECS:
            raise ValueError(f"compression.type={self.compression_type!r}")
        if not self.cleanup_policy <= {"delete", "compact"}:
            raise ValueError(f"cleanup.policy={sorted(self.cleanup_policy)!r}")
        if self.segment_bytes < 1 or self.segment_index_bytes < 4 or self.index_interval_bytes < 0:
            raise ValueError("segment.bytes, segment.index.bytes and index.interval.bytes must be positive")
        object.__setattr__(self, "codec", _CODECS[self.compression_type])
        object.__setattr__(self, "log_append_time", self.message_timestamp_type == "LogAppendTime")
        finite = self.message_timestamp_before_max_ms != LONG_MAX
        object.__setattr__(self, "looks_inside", finite or "compact" in self.cleanup_policy)
        latest = self.max_compaction_lag_ms if self.compact and self.max_compaction_lag_ms > 0 else LONG_MAX
        object.__setattr__(self, "roll_ms", min(self.segment_ms, latest))

    @property
    def compact(self) -> bool:
        """Whether the log is compacted, so that every record needs a key."""
        return "compact" in self.cleanup_policy

    @property
    def delete(self) -> bool:
        """Whether retention by time and size applies."""
        return "delete" in self.cleanup_policy

    @property
    def tierable(self) -> bool:
        """Whether the log moves to the bucket, where the Cluster has one: compacted logs never do (design 7.2)."""
        return self.remote_storage_enable is not False and not self.compact

    @property
    def local_retention(self) -> tuple[int, int]:
        """Milliseconds and bytes for which a tiered log stays here; -2 means as long as in the bucket (KIP-405)."""
        ms, size = self.local_retention_ms, self.local_retention_bytes
        return self.retention_ms if ms == -2 else ms, self.retention_bytes if size == -2 else size

    @classmethod
    def from_topic_config(cls, values: Mapping[str, str]) -> LogConfig:
        """Build from effective topic configuration; keys that are no concern of a log are ignored.

        Raises ValueError for values that the topic configuration's validators would have refused.
        """
        fields: dict[str, object] = {}
        for key, text in values.items():
            name = key.replace(".", "_")
            if name == "cleanup_policy":
                fields[name] = frozenset(part.strip() for part in text.split(",") if part.strip())
            elif name in ("message_timestamp_type", "compression_type"):
                fields[name] = text
            elif name == "min_cleanable_dirty_ratio":
                fields[name] = float(text)
            elif name in _BOOLEANS:
                fields[name] = text.lower() == "true"
            elif name in _INTEGERS:
                fields[name] = int(text)
        if "internal.segment.bytes" in values:
            fields["segment_bytes"] = int(values["internal.segment.bytes"])
        return cls(**fields)  # type: ignore[arg-type] # each value was converted by its field's name above


_BOOLEANS = frozenset(("preallocate", "remote_storage_enable", "remote_log_copy_disable"))
_INTEGERS = frozenset(
    (
        "segment_bytes",
        "segment_ms",
        "segment_jitter_ms",
        "segment_index_bytes",
        "index_interval_bytes",
        "retention_ms",
        "retention_bytes",
        "file_delete_delay_ms",
        "max_message_bytes",
        "message_timestamp_before_max_ms",
        "message_timestamp_after_max_ms",
        "delete_retention_ms",
        "min_compaction_lag_ms",
        "max_compaction_lag_ms",
        "local_retention_ms",
        "local_retention_bytes",
    )
)
