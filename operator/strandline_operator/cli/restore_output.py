"""What `strandline tier restore` prints: progress and plan or report for people, JSON for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from strandline_operator.cli.summary import format_table
from strandline_operator.cli.tier_output import size

if TYPE_CHECKING:
    from strandline_operator.cli.tier_restore import Restore
    from strandline_tiered.restore_copying import Progress

RESTORE_COLUMNS = ("TOPIC", "PARTITION", "START", "END", "HIGH-WATERMARK", "GAP", "BYTES")
GROUP_COLUMNS = ("GROUP", "OFFSETS", "MOVED-BACK", "LEFT-OUT")


def progress_line(progress: Progress) -> str:
    """Return how far a restore is."""
    return (
        f"{progress.objects} of {progress.objects_total} segments, {size(progress.bytes)} of {size(progress.bytes_total)}; "
        f"{progress.objects_kept} were there already"
    )


def restore_lines(restore: Restore) -> Iterator[str]:
    """Yield what is restored, or would be."""
    done = restore.progress is not None
    yield f"{'restored' if done else 'would restore'} cluster {restore.source} into {restore.target}" + (
        f", which is cluster {restore.cluster_id}" if done else ""
    )
    rows = [
        (
            topic.keys.topic,
            str(one.keys.partition),
            str(one.manifest.log_start),
            str(one.manifest.end_offset),
            str(one.former_high_watermark) if one.former_high_watermark >= 0 else "-",
            str(one.gap) if one.former_high_watermark >= 0 else "unknown",
            size(one.object_bytes),
        )
        for topic in restore.topics.topics
        for one in topic.partitions
    ]
    if rows:
        yield ""
        yield format_table(RESTORE_COLUMNS, rows)
    if restore.offsets.groups:
        yield ""
        groups = restore.offsets.groups
        yield format_table(
            GROUP_COLUMNS,
            [(one.group, str(one.restored), str(one.clamped), str(one.left_out)) for one in groups],
        )
    yield ""
    yield from _notes(restore)


def _notes(restore: Restore) -> Iterator[str]:
    if any(topic.partitions for topic in restore.topics.topics):
        yield (
            "gap: records that were committed when the last manifest was written, and are not in the bucket; what was "
            "written after that is not known"
        )
    if restore.offsets.keys is None:
        yield "the bucket has no group offsets"
    yield from restore.topics.notes
    for name, why in restore.topics.skipped:
        yield f"{name}: not restored, {why}"
    if restore.progress is not None:
        progress = restore.progress
        yield (
            f"{progress.objects} segments, {size(progress.bytes)}; {progress.objects_kept} of them were there already, "
            f"{progress.objects_repaired} were damaged and copied again"
        )


def restore_object(restore: Restore) -> dict[str, Any]:
    """Return what is restored, or would be, for programs."""
    return {
        "from": str(restore.source),
        "clusterId": str(restore.cluster_id) if restore.progress is not None else None,
        "dryRun": restore.progress is None,
        "topics": [
            {
                "topic": topic.keys.topic,
                "topicId": str(topic.keys.topic_id) if topic.partitions else None,
                "partitions": [
                    {
                        "partition": one.keys.partition,
                        "startOffset": one.manifest.log_start,
                        "endOffset": one.manifest.end_offset,
                        "highWatermark": one.former_high_watermark,
                        "gap": one.gap,
                        "objectBytes": one.object_bytes,
                        "segments": len(one.copies),
                        "leaderEpoch": one.leader_epoch,
                    }
                    for one in topic.partitions
                ],
            }
            for topic in restore.topics.topics
        ],
        "groups": [
            {"group": one.group, "offsets": one.restored, "movedBack": one.clamped, "leftOut": one.left_out}
            for one in restore.offsets.groups
        ],
        "skipped": [{"topic": name, "why": why} for name, why in restore.topics.skipped],
        "notes": list(restore.topics.notes),
        "progress": None if restore.progress is None else asdict(restore.progress),
    }
