"""Names of files and directories, exactly Kafka's, in one place.

Source: Kafka `LogFileUtils`, `LocalLog.parseTopicPartitionName`.
"""

from __future__ import annotations

LOG_SUFFIX = ".log"
INDEX_SUFFIX = ".index"
TIME_INDEX_SUFFIX = ".timeindex"
TXN_INDEX_SUFFIX = ".txnindex"
SNAPSHOT_SUFFIX = ".snapshot"
DELETED_SUFFIX = ".deleted"
CLEANED_SUFFIX = ".cleaned"
SWAP_SUFFIX = ".swap"
TEMPORARY_SUFFIX = ".tmp"

SEGMENT_SUFFIXES = (LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX)

LEADER_EPOCH_CHECKPOINT = "leader-epoch-checkpoint"
PARTITION_METADATA = "partition.metadata"
LOG_START_CHECKPOINT = "log-start-offset"
"""Ours, beside Kafka's file of the same purpose in the data directory, so that one log alone is durable."""
TIER_LOG_START = "tier-log-start"
"""Ours: the log start across both tiers; only partitions that are tiered have it."""

DELETE_DIR_SUFFIX = "-delete"
STRAY_DIR_SUFFIX = "-stray"
_OFFSET_DIGITS = 20


def file_name(offset: int, suffix: str) -> str:
    """Return the name of a segment file or snapshot: the offset in 20 digits, and the suffix."""
    return f"{offset:020d}{suffix}"


def split_name(name: str) -> tuple[int, str]:
    """Return (offset, suffix with its dot) of a file that is named after an offset, or (-1, "") for others."""
    stem, dot, kind = name.partition(".")
    if len(stem) == _OFFSET_DIGITS and stem.isdecimal() and stem.isascii():
        return int(stem), dot + kind
    return -1, ""


def log_directory(topic: str, partition: int) -> str:
    """Return the directory name of a partition."""
    return f"{topic}-{partition}"


def parse_log_directory(name: str) -> tuple[str, int] | None:
    """Return (topic, partition) of a log directory's name, or None for other directories and files."""
    topic, dash, digits = name.rpartition("-")
    if not dash or not topic or not (digits.isascii() and digits.isdigit()):
        return None
    return topic, int(digits)
