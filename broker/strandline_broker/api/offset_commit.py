"""OffsetCommit (key 8), versions 2-10.

Differences from Kafka: none known. It answers when the offsets are durable.

Version notes: v2-4 retention time, v5 without it (KIP-211), v6 leader epochs (KIP-320), v7 static membership, v8 flexible,
v9 GROUP_ID_NOT_FOUND and STALE_MEMBER_EPOCH (KIP-848), v10 topic ids instead of names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support import offset_topics
from strandline_broker.api.support.tickets import Ticket
from strandline_broker.errors import ErrorCode
from strandline_broker.group import replies
from strandline_broker.group.requests import CommitRequest, PartitionCommit, TopicCommit
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.OFFSET_COMMIT


def handle(broker: BrokerApi, request: Request) -> Ticket:
    """Commit offsets of partitions that exist; answer one error code per partition."""
    body = request.body
    topics, refused = _sort(broker, request)
    commit = CommitRequest(
        group_id=body.group_id,
        topics=topics,
        member_id=body.member_id,
        generation_id=body.generation_id_or_member_epoch,
        group_instance_id=getattr(body, "group_instance_id", None),
        retention_time_ms=request.milliseconds("retention_time", -1),
        api_version=request.version,
    )

    def refusal(code: ErrorCode) -> Mapping[str, Any]:
        return replies.commit_error(commit, code)

    ticket = Ticket(request, refusal, offset_topics.merge_topics(refused))
    if not topics:
        ticket.answer({"topics": []})
    else:
        broker.groups.run(
            commit.group_id, ticket, lambda shard, now_ms: shard.commit_offsets(ticket, commit, now_ms)
        )
    return ticket


def _sort(broker: BrokerApi, request: Request) -> tuple[tuple[TopicCommit, ...], list[offset_topics.Row]]:
    """Return the topics to commit, and the entries of those that do not exist."""
    view = broker.view
    wanted: list[TopicCommit] = []
    refused: list[offset_topics.Row] = []
    for topic in request.body.topics:
        name = offset_topics.name_of(view, topic)
        missing: list[offset_topics.Row] = []
        found: list[PartitionCommit] = []
        for part in topic.partitions:
            index = part.partition_index
            if name is None:
                missing.append(offset_topics.error_row(index, ErrorCode.UNKNOWN_TOPIC_ID))
            elif not offset_topics.has_partition(view, name, index):
                missing.append(offset_topics.error_row(index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION))
            else:
                epoch = getattr(part, "committed_leader_epoch", -1)
                found.append(PartitionCommit(index, part.committed_offset, epoch, part.committed_metadata))
        if missing:
            refused.append(offset_topics.refused_topic(topic, name or "", missing))
        if found:
            assert name is not None, "only known topics have partitions"
            wanted.append(TopicCommit(name, tuple(found), offset_topics.id_of(topic)))
    return tuple(wanted), refused
