"""OffsetCommit, OffsetFetch and OffsetDelete.

Source: Kafka 4.2, `OffsetMetadataManager` (commitOffset, fetchOffsets, fetchAllOffsets, deleteOffsets) and
`ClassicGroup.validateOffsetCommit`, `validateOffsetDelete`.
"""

from __future__ import annotations

from strandline_broker.errors import ErrorCode
from strandline_broker.group import rebalance, replies
from strandline_broker.group.classic_group import ClassicGroup
from strandline_broker.group.effects import Body, Ticket
from strandline_broker.group.offsets import OffsetStore
from strandline_broker.group.outbox import Outbox
from strandline_broker.group.records import MAX_STRING_BYTES, OffsetKey, OffsetValue
from strandline_broker.group.requests import (
    CommitRequest,
    DeleteOffsetsRequest,
    FetchOffsetsRequest,
    PartitionCommit,
    TopicCommit,
    TopicPartitions,
)
from strandline_broker.group.states import GroupState

#: OffsetCommit says GROUP_ID_NOT_FOUND from this version on, ILLEGAL_GENERATION before.
_COMMIT_NOT_FOUND = 9
_NO_OFFSET = -1
_NO_EPOCH = -1


def check_commit(group: ClassicGroup | None, request: CommitRequest) -> ErrorCode:
    """Return why the request may not commit, or NONE. A group that is missing is made for simple consumers."""
    simple = request.generation_id < 0
    if group is None:
        if simple:
            return ErrorCode.NONE
        known = request.api_version >= _COMMIT_NOT_FOUND
        return ErrorCode.GROUP_ID_NOT_FOUND if known else ErrorCode.ILLEGAL_GENERATION
    if simple and group.state is GroupState.EMPTY:
        return ErrorCode.NONE
    if simple and not request.member_id and request.group_instance_id is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    error = group.validate_member(request.member_id, request.group_instance_id)
    if error is not ErrorCode.NONE:
        return error
    if request.generation_id != group.generation:
        return ErrorCode.ILLEGAL_GENERATION
    if group.state is GroupState.COMPLETING_REBALANCE:
        # The member knows the new generation and not yet its assignment: what would it commit?
        return ErrorCode.REBALANCE_IN_PROGRESS
    return ErrorCode.NONE


def commit(
    group: ClassicGroup | None, offsets: OffsetStore, ticket: Ticket, request: CommitRequest, out: Outbox
) -> None:
    """Write the offsets of a request that passed `check_commit`; commits keep a member's session alive."""
    if group is not None and request.member_id in group.members:
        rebalance.renew_session(group, group.members[request.member_id], out)
    topics = [
        {
            "name": topic.name,
            "topic_id": topic.topic_id,
            "partitions": [
                {
                    "partition_index": partition.partition,
                    "error_code": _commit_one(offsets, request, topic, partition, out),
                }
                for partition in topic.partitions
            ],
        }
        for topic in request.topics
    ]
    out.reply_when_committed(ticket, {"topics": topics}, lambda error: replies.commit_error(request, error))


def _commit_one(
    offsets: OffsetStore, request: CommitRequest, topic: TopicCommit, partition: PartitionCommit, out: Outbox
) -> ErrorCode:
    metadata = partition.metadata or ""
    if _utf16_length(metadata) > out.config.offset_metadata_max_bytes:
        return ErrorCode.OFFSET_METADATA_TOO_LARGE
    if len(topic.name.encode()) > MAX_STRING_BYTES:
        return ErrorCode.INVALID_TOPIC_EXCEPTION
    retention_ms = request.retention_time_ms
    value = OffsetValue(
        partition.offset,
        partition.leader_epoch,
        metadata,
        out.now_ms,
        -1 if retention_ms == -1 else out.now_ms + retention_ms,
        topic.topic_id,
    )
    offsets.write(OffsetKey(request.group_id, topic.name, partition.partition), value, out)
    return ErrorCode.NONE


def _utf16_length(text: str) -> int:
    """Return the length as Java counts it."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def fetch(offsets: OffsetStore, request: FetchOffsetsRequest) -> Body:
    """Answer from committed offsets; -1 where there is none."""
    topics = request.topics
    if topics is None:
        topics = tuple(
            TopicPartitions(name, tuple(partitions))
            for name, partitions in offsets.committed.of_group(request.group_id).items()
        )
    return {
        "group_id": request.group_id,
        "error_code": ErrorCode.NONE,
        "topics": [
            {
                "name": topic.name,
                "topic_id": topic.topic_id,
                "partitions": [
                    _fetch_one(
                        offsets, OffsetKey(request.group_id, topic.name, partition), request.require_stable
                    )
                    for partition in topic.partitions
                ],
            }
            for topic in topics
        ],
    }


def _fetch_one(offsets: OffsetStore, key: OffsetKey, require_stable: bool) -> replies.MutableBody:
    error = ErrorCode.NONE
    offset, epoch, metadata = _NO_OFFSET, _NO_EPOCH, ""
    if require_stable and offsets.is_unstable(key):
        error = ErrorCode.UNSTABLE_OFFSET_COMMIT
    else:
        found = offsets.committed.get(key)
        if found is not None:
            offset, epoch, metadata = found[1].offset, found[1].leader_epoch, found[1].metadata
    return {
        "partition_index": key.partition,
        "committed_offset": offset,
        "committed_leader_epoch": epoch,
        "metadata": metadata,
        "error_code": error,
    }


def check_delete(group: ClassicGroup | None) -> ErrorCode:
    """Return why no offsets of this group may be deleted, or NONE."""
    if group is None:
        return ErrorCode.GROUP_ID_NOT_FOUND
    if group.state is not GroupState.EMPTY and not group.uses_consumer_protocol:
        return ErrorCode.NON_EMPTY_GROUP
    return ErrorCode.NONE


def delete(
    group: ClassicGroup, offsets: OffsetStore, ticket: Ticket, request: DeleteOffsetsRequest, out: Outbox
) -> None:
    """Remove offsets of a group that passed `check_delete`, but of no topic that a member reads."""
    topics = []
    for topic in request.topics:
        error = ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC if group.is_subscribed_to(topic.name) else ErrorCode.NONE
        partitions = tuple(dict.fromkeys(topic.partitions))
        if error is ErrorCode.NONE:
            for partition in partitions:
                key = OffsetKey(request.group_id, topic.name, partition)
                if offsets.newest(key) is not None or offsets.in_transaction(key):
                    offsets.write(key, None, out)
        topics.append(
            {
                "name": topic.name,
                "partitions": [
                    {"partition_index": partition, "error_code": error} for partition in partitions
                ],
            }
        )
    body = {"error_code": ErrorCode.NONE, "topics": topics}
    out.reply_when_committed(ticket, body, replies.delete_offsets_error)
