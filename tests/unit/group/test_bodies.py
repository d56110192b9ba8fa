"""Every body that a shard hands out can be encoded in every version of its API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.unit.group.support import Driver

from strandline_broker.errors import ErrorCode
from strandline_broker.group.config import GroupConfig
from strandline_broker.group.requests import (
    CommitRequest,
    DeleteOffsetsRequest,
    FetchOffsetsRequest,
    HeartbeatRequest,
    JoinRequest,
    LeaveRequest,
    LeavingMember,
    PartitionCommit,
    SyncRequest,
    TopicCommit,
    TopicPartitions,
)
from strandline_broker.wire import cold
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.registry import KAFKA_RANGES

_VERSIONS = {entry.key: range(entry.min_version, entry.max_version + 1) for entry in KAFKA_RANGES}


class Client(Driver):
    """Asks and hands back the answer."""

    def join(self, version: int, **fields: Any) -> Mapping[str, Any]:
        request: dict[str, Any] = {
            "group_id": "g",
            "member_id": "",
            "session_timeout_ms": 10_000,
            "rebalance_timeout_ms": -1,
        }
        request |= {"protocol_type": "consumer", "protocols": (("range", b"x"),), "api_version": version}
        ticket = self.ask(f"t{len(self.asked)}")
        self.carry_out(self.shard.join_group(ticket, JoinRequest(**(request | fields)), self.now_ms))
        self.run_until(self.now_ms)
        return self.answers[ticket]

    def do(self, method: str, request: Any) -> Mapping[str, Any]:
        ticket = self.ask(f"t{len(self.asked)}")
        self.carry_out(getattr(self.shard, method)(ticket, request, self.now_ms))
        return self.answers[ticket]


def bodies(key: ApiKey, version: int) -> Iterator[Mapping[str, Any]]:
    """Yield answers of this API that between them show every field."""
    client = Client(GroupConfig(initial_rebalance_delay_ms=0))
    member = client.join(3)
    me = member["member_id"]
    static = Client(GroupConfig(initial_rebalance_delay_ms=0))
    who = static.join(version, group_instance_id="i")["member_id"]
    offset = TopicCommit("a", (PartitionCommit(0, 5, 7, "m"), PartitionCommit(1, 5, metadata="x" * 9_999)))
    commit = CommitRequest("g", (offset,), me, 1, api_version=version)
    refused = client.do("commit_offsets", commit)
    leave = LeaveRequest("g", (LeavingMember("x"), LeavingMember(me)), version)
    if key is ApiKey.JOIN_GROUP:
        yield client.join(version, group_id="")
        yield client.join(version, group_id="h")
        yield static.join(version, member_id=who, group_instance_id="i")
        static.do("sync_group", SyncRequest("g", who, 1, assignments=((who, b"A"),)))
        yield static.join(version, group_instance_id="i")
    if key is ApiKey.SYNC_GROUP:
        yield client.do("sync_group", SyncRequest("g", "x", 1))
    synced = client.do("sync_group", SyncRequest("g", me, 1, assignments=((me, b"A"),)))
    if key is ApiKey.SYNC_GROUP:
        yield synced
    if key is ApiKey.HEARTBEAT:
        yield client.do("heartbeat", HeartbeatRequest("g", me, 1))
        yield client.do("heartbeat", HeartbeatRequest("g", "x", 1))
    committed = client.do("commit_offsets", commit)
    if key is ApiKey.OFFSET_COMMIT:
        yield refused
        yield committed
    if key is ApiKey.OFFSET_FETCH:
        for topics in (None, (TopicPartitions("a", (0, 9)),)):
            fetched = client.shard.fetch_offsets(FetchOffsetsRequest("g", topics))
            old = [{"name": topic["name"], "partitions": topic["partitions"]} for topic in fetched["topics"]]
            yield (
                {"groups": [fetched]}
                if version >= 8
                else {"topics": old, "error_code": fetched["error_code"]}
            )
    if key is ApiKey.OFFSET_DELETE:
        yield client.do("delete_offsets", DeleteOffsetsRequest("g", (TopicPartitions("a", (0, 1)),)))
        yield client.do("delete_offsets", DeleteOffsetsRequest("", ()))
    if key is ApiKey.DESCRIBE_GROUPS:
        yield {"groups": [client.shard.describe_group(name, version) for name in ("g", "h")]}
        yield {"groups": [static.shard.describe_group("g", version)]}
    if key is ApiKey.LIST_GROUPS:
        yield {"groups": client.shard.list_groups()}
    if key is ApiKey.DELETE_GROUPS:
        yield {"results": [client.do("delete_group", name) for name in ("g", "h")]}
    if key is ApiKey.LEAVE_GROUP:
        yield client.do("leave_group", LeaveRequest("h", (LeavingMember("x", "i"),), version))
        yield client.do("leave_group", LeaveRequest("", (), version))
        yield client.do("leave_group", leave)


_KEYS = (
    *(ApiKey.JOIN_GROUP, ApiKey.SYNC_GROUP, ApiKey.HEARTBEAT, ApiKey.LEAVE_GROUP, ApiKey.OFFSET_COMMIT),
    *(
        ApiKey.OFFSET_FETCH,
        ApiKey.OFFSET_DELETE,
        ApiKey.DESCRIBE_GROUPS,
        ApiKey.LIST_GROUPS,
        ApiKey.DELETE_GROUPS,
    ),
)


@pytest.mark.parametrize(("key", "version"), [(key, version) for key in _KEYS for version in _VERSIONS[key]])
def test_every_version(key: ApiKey, version: int) -> None:
    count = 0
    for body in bodies(key, version):
        frame = cold.encode_response(key, version, 1, body)
        correlation_id, _ = cold.decode_response(key, version, memoryview(frame)[4:])
        assert correlation_id == 1
        count += 1
    assert count


def test_an_old_leave_tells_the_members_error() -> None:
    client = Client(GroupConfig(initial_rebalance_delay_ms=0))
    client.join(3)
    body = client.do("leave_group", LeaveRequest("g", (LeavingMember("x"),), 2))
    _, answer = cold.decode_response(
        ApiKey.LEAVE_GROUP, 2, memoryview(cold.encode_response(ApiKey.LEAVE_GROUP, 2, 1, body))[4:]
    )
    assert answer.error_code == ErrorCode.UNKNOWN_MEMBER_ID
