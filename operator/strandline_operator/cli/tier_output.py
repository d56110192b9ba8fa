"""What `strandline tier ls` prints: tables for people, JSON for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from strandline_operator.cli.summary import format_table
from strandline_operator.controller.world import format_time
from strandline_tiered.overview import PartitionOverview, TopicOverview

PARTITION_COLUMNS = (
    "PARTITION",
    "START",
    "END",
    "HIGH-WATERMARK",
    "SEGMENTS",
    "BYTES",
    "NEWEST",
    "WRITTEN",
    "MANIFEST",
    "CLAIMS",
)
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: int) -> str:
    """Return bytes as people read them."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in _UNITS:
        value /= 1024
        if value < 1024 or unit == _UNITS[-1]:
            return f"{value:.1f} {unit}"
    raise AssertionError("the last unit takes everything")


def time_of(ms: int | None) -> str:
    """Return wall-clock milliseconds in RFC 3339, `-` for none."""
    return format_time(ms) if ms is not None and ms >= 0 else "-"


def overview_lines(topics: Sequence[TopicOverview]) -> Iterator[str]:
    """Yield what a bucket holds, cluster by cluster."""
    cluster = None
    for topic in topics:
        if topic.keys.cluster_id != cluster:
            cluster = topic.keys.cluster_id
            yield f"cluster {cluster}"
        yield ""
        yield f"topic {topic.keys.topic} ({topic.keys.topic_id}): {_topic_state(topic)}"
        rows = [_row(one) for one in topic.partitions if not one.offsets]
        if rows:
            yield format_table(PARTITION_COLUMNS, rows)
        offsets = [str(one.partition) for one in topic.partitions if one.offsets]
        if offsets:
            yield f"group offsets of partitions {', '.join(offsets)}"
        for one in topic.partitions:
            if one.problem:
                yield f"partition {one.partition}: {one.manifest} cannot be read: {one.problem}"


def _topic_state(topic: TopicOverview) -> str:
    if topic.problem:
        return f"its topic manifest cannot be read: {topic.problem}"
    manifest = topic.manifest
    if manifest is None:
        return "no topic manifest yet"
    state = f"{manifest.partitions} partitions, {manifest.replicas} replicas"
    if manifest.deleted_at_ms is not None:
        return f"deleted at {time_of(manifest.deleted_at_ms)}"
    return (
        f"{state}, {manifest.name.leader_epoch}-{manifest.name.sequence} of {time_of(manifest.written_at_ms)}"
    )


def _row(one: PartitionOverview) -> tuple[str, ...]:
    if not one.manifest:
        shown = ("-",) * 5
        return (str(one.partition), *shown, "-", "-", "-", _claims(one))
    return (
        str(one.partition),
        str(one.start_offset),
        str(one.end_offset),
        str(one.high_watermark),
        str(one.entries),
        size(one.size),
        time_of(one.max_timestamp),
        time_of(one.written_at_ms),
        one.manifest.removeprefix("manifests/").removesuffix(".manifest"),
        _claims(one),
    )


def _claims(one: PartitionOverview) -> str:
    return ",".join(map(str, one.claims)) or "-"


def overview_object(topics: Iterable[TopicOverview]) -> dict[str, Any]:
    """Return what a bucket holds, for programs."""
    clusters: dict[str, list[dict[str, Any]]] = {}
    for topic in topics:
        manifest = topic.manifest
        clusters.setdefault(str(topic.keys.cluster_id), []).append(
            {
                "topic": topic.keys.topic,
                "topicId": str(topic.keys.topic_id),
                "problem": topic.problem,
                "manifest": None
                if manifest is None
                else {
                    "name": str(manifest.name),
                    "partitions": manifest.partitions,
                    "replicas": manifest.replicas,
                    "config": dict(manifest.config),
                    "deletedAtMs": manifest.deleted_at_ms,
                    "writtenAtMs": manifest.written_at_ms,
                },
                "partitions": [_partition_object(one) for one in topic.partitions],
            }
        )
    return {
        "clusters": [
            {"clusterId": cluster_id, "topics": found} for cluster_id, found in sorted(clusters.items())
        ]
    }


def _partition_object(one: PartitionOverview) -> dict[str, Any]:
    return {
        "partition": one.partition,
        "manifest": one.manifest or None,
        "startOffset": one.start_offset,
        "endOffset": one.end_offset,
        "highWatermark": one.high_watermark,
        "segments": one.entries,
        "logBytes": one.size,
        "objectBytes": one.object_bytes,
        "objects": one.objects,
        "listedBytes": one.listed_bytes,
        "maxTimestamp": one.max_timestamp,
        "writtenAtMs": one.written_at_ms,
        "claims": list(one.claims),
        "offsetsSnapshot": one.offsets or None,
        "problem": one.problem,
    }
