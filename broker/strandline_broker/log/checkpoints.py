"""Kafka's small text files: offsets per partition, leader epochs, and the topic id of a partition.

Formats (Kafka `CheckpointFile`): a version (0), the number of entries, then one entry per line:

- `recovery-point-offset-checkpoint`, `log-start-offset-checkpoint`, `replication-offset-checkpoint`,
  `cleaner-offset-checkpoint`: `<topic> <partition> <offset>`
- `leader-epoch-checkpoint`: `<epoch> <start offset>`
- `partition.metadata`: `version: 0` and `topic_id: <22 characters of URL-safe base64>`

Writing is `Disk.write_atomic`, so a reader finds the old file or the new one.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from strandline_broker.seams.disk import Disk

RECOVERY_POINTS = "recovery-point-offset-checkpoint"
LOG_STARTS = "log-start-offset-checkpoint"
HIGH_WATERMARKS = "replication-offset-checkpoint"
CLEANER_OFFSETS = "cleaner-offset-checkpoint"

TopicPartition = tuple[str, int]


class CorruptCheckpoint(ValueError):  # noqa: N818 # it names what was found
    """A checkpoint file cannot be read."""


def _encode(lines: Iterable[str]) -> bytes:
    entries = list(lines)
    return "\n".join(["0", str(len(entries)), *entries, ""]).encode()


def _decode(data: bytes, path: str) -> list[list[str]]:
    try:
        lines = data.decode("ascii").split("\n")
        if not data:
            return []
        if lines[0] != "0":
            raise CorruptCheckpoint(f"{path}: unknown version {lines[0]!r}")
        count = int(lines[1])
        entries = [line.split() for line in lines[2:] if line]
    except (ValueError, IndexError) as error:
        raise CorruptCheckpoint(f"{path}: {error}") from error
    if len(entries) != count:
        raise CorruptCheckpoint(f"{path}: {count} entries announced, {len(entries)} found")
    return entries


def encode_offsets(offsets: Mapping[TopicPartition, int]) -> bytes:
    """Return an offset checkpoint."""
    return _encode(f"{topic} {partition} {offset}" for (topic, partition), offset in sorted(offsets.items()))


def read_offsets(disk: Disk, path: str) -> dict[TopicPartition, int]:
    """Return an offset checkpoint, empty if there is no such file. Raises CorruptCheckpoint."""
    try:
        entries = _decode(disk.read_bytes(path), path)
        return {(topic, int(partition)): int(offset) for topic, partition, offset in entries}
    except FileNotFoundError:
        return {}
    except CorruptCheckpoint:
        raise
    except ValueError as error:
        raise CorruptCheckpoint(f"{path}: {error}") from error


def encode_epochs(epochs: Iterable[tuple[int, int]]) -> bytes:
    """Return a leader epoch checkpoint of (epoch, start offset) pairs."""
    return _encode(f"{epoch} {start}" for epoch, start in epochs)


def read_epochs(disk: Disk, path: str) -> list[tuple[int, int]]:
    """Return a leader epoch checkpoint. Raises FileNotFoundError, CorruptCheckpoint."""
    try:
        return [(int(epoch), int(start)) for epoch, start in _decode(disk.read_bytes(path), path)]
    except CorruptCheckpoint:
        raise
    except ValueError as error:
        raise CorruptCheckpoint(f"{path}: {error}") from error


def encode_single_offset(offset: int) -> bytes:
    """Return a checkpoint that holds one offset."""
    return _encode([str(offset)])


def read_single_offset(disk: Disk, path: str) -> int | None:
    """Return the offset of such a checkpoint, None if there is no such file. Raises CorruptCheckpoint."""
    try:
        ((offset,),) = _decode(disk.read_bytes(path), path)
        return int(offset)
    except FileNotFoundError:
        return None
    except CorruptCheckpoint:
        raise
    except ValueError as error:
        raise CorruptCheckpoint(f"{path}: {error}") from error


def encode_partition_metadata(topic_id: UUID) -> bytes:
    """Return a `partition.metadata` file."""
    text = base64.urlsafe_b64encode(topic_id.bytes).rstrip(b"=").decode()
    return f"version: 0\ntopic_id: {text}".encode()


def decode_partition_metadata(data: bytes) -> UUID:
    """Return the topic id of a `partition.metadata` file. Raises CorruptCheckpoint."""
    try:
        values = dict(line.split(": ", 1) for line in data.decode("ascii").splitlines() if line)
        return UUID(bytes=base64.urlsafe_b64decode(values["topic_id"].strip() + "=="))
    except (ValueError, KeyError) as error:
        raise CorruptCheckpoint(f"partition.metadata: {error}") from error
