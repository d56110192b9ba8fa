"""What clients ask of a group coordinator, as plain values.

The API handlers build these from decoded requests; `GroupShard` takes them. Nothing here knows the wire format, but
`api_version` travels along where Kafka's behaviour depends on it. All times are milliseconds; -1 and "" mean what they
mean on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

UNKNOWN_MEMBER_ID = ""
NO_GENERATION = -1
ZERO_UUID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """One JoinGroup request.

    `protocols` are (name, metadata) pairs in the member's order of preference. A `rebalance_timeout_ms` below 0
    (version 0 has none) means the session timeout. `client_host` is written as Kafka writes it: "/127.0.0.1".
    """

    group_id: str
    member_id: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]
    group_instance_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    reason: str | None = None
    api_version: int = 9


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """One SyncGroup request; `assignments` are (member id, assignment) pairs and come from the group's leader only."""

    group_id: str
    member_id: str
    generation_id: int
    group_instance_id: str | None = None
    protocol_type: str | None = None
    protocol_name: str | None = None
    assignments: tuple[tuple[str, bytes], ...] = ()
    api_version: int = 5


@dataclass(frozen=True, slots=True)
class HeartbeatRequest:
    """One Heartbeat request."""

    group_id: str
    member_id: str
    generation_id: int
    group_instance_id: str | None = None


@dataclass(frozen=True, slots=True)
class LeavingMember:
    """Who leaves: by member id, or (administrators) by group instance id with an empty member id."""

    member_id: str
    group_instance_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class LeaveRequest:
    """One LeaveGroup request. Versions 0-2 name one member; its error then becomes the response's error."""

    group_id: str
    members: tuple[LeavingMember, ...]
    api_version: int = 5


@dataclass(frozen=True, slots=True)
class PartitionCommit:
    """The offset a client commits for one partition."""

    partition: int
    offset: int
    leader_epoch: int = -1
    metadata: str | None = ""


@dataclass(frozen=True, slots=True)
class TopicCommit:
    """Offsets of one topic. `topic_id` is stored with the offset and echoed in the response (version 10 on)."""

    name: str
    partitions: tuple[PartitionCommit, ...]
    topic_id: UUID = ZERO_UUID


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """One OffsetCommit request. `retention_time_ms` exists in versions 2-4 only; -1: the broker's retention."""

    group_id: str
    topics: tuple[TopicCommit, ...]
    member_id: str = ""
    generation_id: int = NO_GENERATION
    group_instance_id: str | None = None
    retention_time_ms: int = -1
    api_version: int = 9


@dataclass(frozen=True, slots=True)
class TopicPartitions:
    """Partitions of one topic, for reading or deleting offsets."""

    name: str
    partitions: tuple[int, ...]
    topic_id: UUID = ZERO_UUID


@dataclass(frozen=True, slots=True)
class FetchOffsetsRequest:
    """One group of an OffsetFetch request; `topics` None means every topic that has an offset."""

    group_id: str
    topics: tuple[TopicPartitions, ...] | None
    member_id: str | None = None
    member_epoch: int = -1
    require_stable: bool = False


@dataclass(frozen=True, slots=True)
class DeleteOffsetsRequest:
    """One OffsetDelete request."""

    group_id: str
    topics: tuple[TopicPartitions, ...]
