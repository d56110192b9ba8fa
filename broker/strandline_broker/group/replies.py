"""Response bodies of the group APIs, with the field names of their newest versions (see `wire.cold`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from strandline_broker.errors import ErrorCode

if TYPE_CHECKING:
    from strandline_broker.group.classic_group import ClassicGroup
    from strandline_broker.group.members import Member
    from strandline_broker.group.requests import CommitRequest

MutableBody: TypeAlias = dict[str, Any]

#: JoinGroup says which protocol was chosen as a nullable field from this version on.
_JOIN_NULLABLE_PROTOCOL = 7
#: SyncGroup and LeaveGroup answer per member from this version on.
_LEAVE_MANY = 3


def join_error(member_id: str, error: ErrorCode) -> MutableBody:
    """JoinGroup refused."""
    return {
        "error_code": error,
        "generation_id": -1,
        "protocol_type": None,
        "protocol_name": None,
        "leader": "",
        "skip_assignment": False,
        "member_id": member_id,
        "members": [],
    }


def join_success(group: ClassicGroup, member_id: str, *, skip_assignment: bool = False) -> MutableBody:
    """JoinGroup answered with the present generation; the leader learns of all members."""
    return {
        "error_code": ErrorCode.NONE,
        "generation_id": group.generation,
        "protocol_type": group.protocol_type,
        "protocol_name": group.protocol_name,
        "leader": group.leader_id or "",
        "skip_assignment": skip_assignment,
        "member_id": member_id,
        "members": _joined_members(group) if member_id == group.leader_id else [],
    }


def _joined_members(group: ClassicGroup) -> list[MutableBody]:
    protocol = group.protocol_name
    assert protocol is not None, "a generation with members has a protocol"
    return [
        {
            "member_id": member.member_id,
            "group_instance_id": member.group_instance_id,
            "metadata": member.metadata(protocol),
        }
        for member in group.members.values()
    ]


def for_join_version(body: MutableBody, api_version: int) -> MutableBody:
    """Write the absence of a protocol as old versions want it."""
    if api_version < _JOIN_NULLABLE_PROTOCOL and body["protocol_name"] is None:
        body["protocol_name"] = ""
    return body


def sync_error(error: ErrorCode) -> MutableBody:
    """SyncGroup refused."""
    return {"error_code": error, "protocol_type": None, "protocol_name": None, "assignment": b""}


def sync_success(group: ClassicGroup, member: Member) -> MutableBody:
    """SyncGroup answered with the member's assignment."""
    return {
        "error_code": ErrorCode.NONE,
        "protocol_type": group.protocol_type,
        "protocol_name": group.protocol_name,
        "assignment": member.assignment,
    }


def error_only(error: ErrorCode) -> MutableBody:
    """Heartbeat, and whatever else has nothing to say but an error."""
    return {"error_code": error}


def leave(members: Iterable[tuple[str, str | None, ErrorCode]], api_version: int) -> MutableBody:
    """LeaveGroup answered per (member id, group instance id, error); old versions know one member only."""
    entries = [
        {"member_id": member_id, "group_instance_id": instance_id, "error_code": error}
        for member_id, instance_id, error in members
    ]
    if api_version < _LEAVE_MANY:
        return {"error_code": entries[0]["error_code"] if entries else ErrorCode.NONE}
    return {"error_code": ErrorCode.NONE, "members": entries}


def leave_error(error: ErrorCode) -> MutableBody:
    """LeaveGroup refused as a whole."""
    return {"error_code": error, "members": []}


def commit_error(request: CommitRequest, error: ErrorCode) -> MutableBody:
    """OffsetCommit refused as a whole: every partition gets the error."""
    return {
        "topics": [
            {
                "name": topic.name,
                "topic_id": topic.topic_id,
                "partitions": [
                    {"partition_index": partition.partition, "error_code": error}
                    for partition in topic.partitions
                ],
            }
            for topic in request.topics
        ]
    }


def delete_offsets_error(error: ErrorCode) -> MutableBody:
    """OffsetDelete refused as a whole."""
    return {"error_code": error, "topics": []}


def describe(group: ClassicGroup) -> MutableBody:
    """DescribeGroups' entry of a group; members' metadata is shown when the group is stable."""
    stable = group.state.value == "Stable"
    protocol = group.protocol_name if stable else None
    return {
        "error_code": ErrorCode.NONE,
        "error_message": None,
        "group_id": group.group_id,
        "group_state": group.state.value,
        "protocol_type": group.protocol_type or "",
        "protocol_data": protocol or "",
        "members": [
            {
                "member_id": member.member_id,
                "group_instance_id": member.group_instance_id,
                "client_id": member.client_id,
                "client_host": member.client_host,
                "member_metadata": member.metadata(protocol) if protocol is not None else b"",
                "member_assignment": member.assignment,
            }
            for member in group.members.values()
        ],
    }


#: DescribeGroups says GROUP_ID_NOT_FOUND from this version on (KIP-1043).
_DESCRIBE_NOT_FOUND = 6


def describe_missing(group_id: str, api_version: int) -> MutableBody:
    """DescribeGroups' entry of a group that is not there."""
    found = api_version < _DESCRIBE_NOT_FOUND
    return {
        "error_code": ErrorCode.NONE if found else ErrorCode.GROUP_ID_NOT_FOUND,
        "error_message": None if found else f"Group {group_id} not found.",
        "group_id": group_id,
        "group_state": "Dead",
        "protocol_type": "",
        "protocol_data": "",
        "members": [],
    }
