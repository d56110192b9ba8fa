"""Rows of Fetch responses, for consumers and followers alike: errors with hints, and what a session remembers of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from strandline_broker.api.support.brokers import leader_endpoints
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.fetch import encode_fetch_response

if TYPE_CHECKING:
    from strandline_broker.api.fetch_sessions import FetchSession, FetchTarget, TopicKey
    from strandline_broker.cluster.view import ClusterView
    from strandline_broker.net.connection import Connection
    from strandline_broker.net.handler import Response
    from strandline_broker.replica.manager import ReplicaManager
    from strandline_broker.replica.partition import Partition

NO_RECORDS = b""
NO_REPLICA = -1
_ROW_LEADER = 9
_ROW_TIER = 11

Row = tuple[object, ...]
"""A partition as `wire.fetch.encode_fetch_response` takes it."""


def error_row(
    replicas: ReplicaManager, target: FetchTarget, error: KafkaError, partition: Partition | None
) -> Row:
    """Return the row of a partition that cannot be read, with a hint where its leader is (KIP-951)."""
    leader = None
    if error.code in (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.FENCED_LEADER_EPOCH):
        leader = replicas.current_leader(target.key, target.index)
    start_offset = partition.log_start_offset if partition is not None and partition.is_leader else -1
    tier = None
    if error.code is ErrorCode.OFFSET_MOVED_TO_TIERED_STORAGE and partition is not None and partition.tier:
        tier = partition.tier.news
    return (
        target.index,
        int(error.code),
        -1,
        -1,
        start_offset,
        None,
        NO_REPLICA,
        NO_RECORDS,
        None,
        leader,
        None,
        tier,
    )


def encode_rows(
    view: ClusterView,
    connection: Connection,
    version: int,
    correlation_id: int,
    session: FetchSession | None,
    topics: dict[TopicKey, list[Row]],
) -> Response:
    """Encode an answer, and let its session remember what the client is being told."""
    if session is not None:
        _remember(session, topics)
    leaders = {
        cast("tuple[int, int]", row[_ROW_LEADER])[0]
        for rows in topics.values()
        for row in rows
        if len(row) > _ROW_LEADER and row[_ROW_LEADER] is not None
    }
    endpoints = leader_endpoints(view, connection.listener.name, leaders) if leaders else []
    session_id = session.id if session is not None else 0
    return encode_fetch_response(version, correlation_id, 0, session_id, list(topics.items()), 0, endpoints)


def _remember(session: FetchSession, topics: dict[TopicKey, list[Row]]) -> None:
    """Note what the client is being told, and let those that got data wait behind the others next time."""
    for key, rows in topics.items():
        for row in rows:
            target = session.targets.get((key, row[0]))  # type: ignore[arg-type]
            if target is None or row[1] != 0:
                continue
            target.told_high_watermark = row[2]  # type: ignore[assignment]
            target.told_start_offset = row[4]  # type: ignore[assignment]
            if len(row) > _ROW_TIER and row[_ROW_TIER] is not None:
                target.told_tiered_through = row[_ROW_TIER].tiered_through  # type: ignore[attr-defined]
            if row[7] is not NO_RECORDS:
                session.served(target)
