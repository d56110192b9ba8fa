"""Random clients, clocks, failing appends and takeovers against what must always hold.

- Every ticket is answered exactly once, at the latest when all is quiet.
- No group is stuck: when nobody asks any more and all timers have fired, every group is EMPTY or STABLE (here: EMPTY, as
  nobody sends heartbeats).
- A group's generation never goes back while the group exists.
- What readers see of offsets is, at any moment, what a shard that reads the log would see.
- Counters and maps of a group agree; every wait has a timer that ends it.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.group.support import Driver, subscription

from strandline_broker.errors import ErrorCode
from strandline_broker.group.classic_group import ClassicGroup
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
from strandline_broker.group.shard import GroupShard
from strandline_broker.group.states import GroupState

_GROUPS = ("g", "h")
_TOPICS = ("a", "b")
_FAILURES = (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.MESSAGE_TOO_LARGE)
_PROTOCOLS: tuple[tuple[tuple[str, bytes], ...], ...] = (
    (("range", subscription("a")),),
    (("range", subscription("a", "b")), ("sticky", b"x")),
    (("sticky", b"y"), ("range", subscription("b"))),
    (("roundrobin", b""),),
)
_DELAYS_MS = (0, 1, 500, 3_000, 6_000, 10_000, 60_000, 400_000, 90_000_000)


class World(Driver):
    """A driver with clients that mostly, but not always, do the right thing."""

    def __init__(self, max_size: int, seed: int, *, failures: bool = True) -> None:
        config = GroupConfig(max_size=max_size, offsets_retention_minutes=5)
        super().__init__(config, auto_commit=False, seed=seed)
        self.failures = failures
        self.carry_out(self.shard.loaded(0))
        self.generations: dict[int, tuple[ClassicGroup, int]] = {}

    def ticket(self) -> str:
        return self.ask(f"t{len(self.asked)}")

    def groups(self) -> list[ClassicGroup]:
        return list(self.shard._groups.all())

    def somebody(self, group_id: str, pick: int) -> tuple[str, str | None, int]:
        """Return (member id, instance id, generation) of a member, a pending one, or nobody."""
        group = self.shard._groups.get(group_id)
        if group is None:
            return "nobody", None, 1
        ids = [*group.members, *sorted(group.pending_join), "nobody"]
        member_id = ids[pick % len(ids)]
        member = group.members.get(member_id)
        return member_id, member.group_instance_id if member else None, group.generation

    def step(self, op: str, group_id: str, pick: int, extra: int) -> None:
        getattr(self, f"do_{op}")(group_id, pick, extra)

    def do_join(self, group_id: str, pick: int, extra: int) -> None:
        instance = f"i{extra % 3}" if extra % 4 == 0 else None
        self._join(group_id, "", instance, pick, extra)

    def do_rejoin(self, group_id: str, pick: int, extra: int) -> None:
        member_id, instance, _ = self.somebody(group_id, pick)
        self._join(group_id, member_id, instance, extra, extra)

    def _join(self, group_id: str, member_id: str, instance: str | None, pick: int, extra: int) -> None:
        request = JoinRequest(
            group_id,
            member_id,
            (6_000, 10_000, 30_000)[extra % 3],
            (-1, 5_000, 60_000)[pick % 3],
            "connect" if extra % 13 == 12 else "consumer",
            _PROTOCOLS[(extra // 2) % len(_PROTOCOLS) if extra % 5 == 0 else pick % 3],
            instance,
            "client",
            "/h",
            api_version=(9, 3, 5)[extra % 3],
        )
        self.carry_out(self.shard.join_group(self.ticket(), request, self.now_ms))

    def do_sync(self, group_id: str, pick: int, extra: int) -> None:
        member_id, instance, generation = self.somebody(group_id, pick)
        group = self.shard._groups.get(group_id)
        if group is not None and extra % 2 and group.leader_id:
            member_id, instance = group.leader_id, None
        assignments = tuple((m, m.encode()[:3]) for m in group.members) if group is not None else ()
        request = SyncRequest(
            group_id, member_id, generation - (extra % 7 == 6), instance, None, None, assignments
        )
        self.carry_out(self.shard.sync_group(self.ticket(), request, self.now_ms))

    def do_beat(self, group_id: str, pick: int, extra: int) -> None:
        member_id, instance, generation = self.somebody(group_id, pick)
        request = HeartbeatRequest(group_id, member_id, generation, instance)
        self.carry_out(self.shard.heartbeat(self.ticket(), request, self.now_ms))

    def do_leave(self, group_id: str, pick: int, extra: int) -> None:
        leavers = [LeavingMember(*self.somebody(group_id, pick + i)[:2]) for i in range(1 + extra % 2)]
        if extra % 3 == 0:
            leavers.append(LeavingMember("", "i0"))
        request = LeaveRequest(group_id, tuple(leavers), (5, 2)[extra % 5 == 4])
        self.carry_out(self.shard.leave_group(self.ticket(), request, self.now_ms))

    def do_commit(self, group_id: str, pick: int, extra: int) -> None:
        member_id, instance, generation = self.somebody(group_id, pick)
        if extra % 3 == 0:
            member_id, instance, generation = "", None, -1
        partitions = (PartitionCommit(pick % 2, extra, metadata="m" * (extra % 7 == 6) * 5_000),)
        topics = (TopicCommit(_TOPICS[extra % 2], partitions), TopicCommit("a", (PartitionCommit(2, pick),)))
        retention_ms = 1_000 if extra % 11 == 10 else -1
        request = CommitRequest(
            group_id, topics, member_id, generation, instance, retention_ms, 9 - extra % 2
        )
        self.carry_out(self.shard.commit_offsets(self.ticket(), request, self.now_ms))

    def do_delete_offsets(self, group_id: str, pick: int, extra: int) -> None:
        topics = (TopicPartitions(_TOPICS[extra % 2], (0, 1, 1, 9)),)
        request = DeleteOffsetsRequest(group_id, topics)
        self.carry_out(self.shard.delete_offsets(self.ticket(), request, self.now_ms))

    def do_delete_group(self, group_id: str, pick: int, extra: int) -> None:
        self.carry_out(self.shard.delete_group(self.ticket(), group_id, self.now_ms))

    def do_gone(self, group_id: str, pick: int, extra: int) -> None:
        self.carry_out(self.shard.partitions_deleted(_TOPICS[: 1 + extra % 2], self.now_ms))

    def do_expire(self, group_id: str, pick: int, extra: int) -> None:
        self.carry_out(self.shard.expire_offsets(self.now_ms))

    def do_pass_time(self, group_id: str, pick: int, extra: int) -> None:
        self.run_until(self.now_ms + _DELAYS_MS[extra % len(_DELAYS_MS)])

    def do_outcome(self, group_id: str, pick: int, extra: int) -> None:
        if self.in_flight:
            if extra % 4 == 3 and self.failures:
                self.fail_next(_FAILURES[pick % len(_FAILURES)])
            else:
                self.commit_next()

    def do_reload(self, group_id: str, pick: int, extra: int) -> None:
        if extra % 4 == 0:
            self.reload()

    # -- what must hold ------------------------------------------------------------------------------------------

    def check(self) -> None:
        for group in self.groups():
            known, generation = self.generations.get(id(group), (group, 0))
            assert group.generation >= generation, "a generation went back"
            self.generations[id(group)] = known, group.generation
            self.check_group(group)
        self.check_timers()
        assert offsets_of(self.shard) == offsets_of(self.replayed())

    def check_group(self, group: ClassicGroup) -> None:
        members = group.members
        assert group.awaiting_join_count == sum(m.awaiting_join is not None for m in members.values())
        assert {
            m.group_instance_id: m.member_id for m in members.values() if m.group_instance_id
        } == group.static_members
        assert group.leader_id in members if members else group.leader_id is None
        assert group.pending_sync <= members.keys()
        assert not group.pending_join & members.keys()
        for member_id, member in members.items():
            assert member.member_id == member_id
            assert member.protocol_type == group.protocol_type
            if member.awaiting_sync is not None:
                assert group.state is GroupState.COMPLETING_REBALANCE
        if group.state is GroupState.EMPTY:
            assert not members
        if members and group.state is not GroupState.EMPTY:
            assert group.select_protocol()

    def check_timers(self) -> None:
        for group in self.groups():
            name = group.group_id
            for member_id, member in group.members.items():
                assert ("session", name, member_id) in self.timers or member.has_satisfied_heartbeat
            for member_id in group.pending_join:
                assert ("session", name, member_id) in self.timers
            if group.state is GroupState.PREPARING_REBALANCE:
                assert ("join", name) in self.timers
            if group.state is GroupState.COMPLETING_REBALANCE:
                assert ("sync", name) in self.timers or self.in_flight
        assert len(self.shard._timers._timers) == len(self.timers)

    def settle(self) -> None:
        """Let nobody ask any more, and everything else happen."""
        for _ in range(100):
            while self.in_flight:
                self.commit_next()
            busy = [key for key in self.timers if key[0] != "expiry"]
            if not busy:
                return
            self.run_until(min(self.timers[key] for key in busy))
            self.check()
        raise AssertionError(f"still busy: {self.timers}")


def names(shard: GroupShard) -> set[str]:
    return {entry["group_id"] for entry in shard.list_groups()}


def offsets_of(shard: GroupShard) -> dict[str, Any]:
    """Return everything that readers can see of offsets."""
    bodies = {group_id: shard.fetch_offsets(FetchOffsetsRequest(group_id, None)) for group_id in _GROUPS}
    return {
        group_id: {
            (topic["name"], partition["partition_index"]): partition
            for topic in body["topics"]
            for partition in topic["partitions"]
        }
        for group_id, body in bodies.items()
    }


_OPS = (
    *(
        "join",
        "join",
        "rejoin",
        "rejoin",
        "rejoin",
        "sync",
        "sync",
        "sync",
        "beat",
        "leave",
        "commit",
        "commit",
    ),
    *("pass_time", "pass_time", "pass_time", "outcome", "outcome", "outcome"),
    *("delete_offsets", "delete_group", "gone", "expire", "reload"),
)
_STEPS = st.lists(
    st.tuples(st.sampled_from(_OPS), st.sampled_from(_GROUPS), st.integers(0, 7), st.integers(0, 60)),
    min_size=10,
    max_size=60,
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_STEPS, st.sampled_from((2, 3, 1000)), st.integers(0, 3), st.booleans())
def test_random_operations(
    steps: list[tuple[str, str, int, int]], max_size: int, seed: int, failures: bool
) -> None:
    world = World(max_size, seed, failures=failures)
    for step in steps:
        world.step(*step)
        world.check()
    world.settle()
    unanswered = world.asked.keys() - world.answers.keys()
    assert not unanswered
    for group in world.groups():
        assert group.state is GroupState.EMPTY
    fresh = world.replayed()
    assert names(fresh) == names(world.shard)
    if failures:
        return  # a lost record of an empty generation leaves the log with the generation before
    for group_id in _GROUPS:
        assert fresh.describe_group(group_id) == world.shard.describe_group(group_id)


def test_the_random_clients_get_everywhere() -> None:
    """The property above is worth something only if its clients reach every state and most errors."""
    import random

    seen: set[object] = set()
    for seed in range(60):
        rng = random.Random(seed)
        world = World(rng.choice((2, 3, 1000)), seed)
        for _ in range(80):
            world.step(rng.choice(_OPS), rng.choice(_GROUPS), rng.randrange(8), rng.randrange(61))
            seen |= {group.state for group in world.groups()}
        seen |= {body.get("error_code") for body in world.answers.values()}
    missing = {
        *GroupState,
        ErrorCode.NONE,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.ILLEGAL_GENERATION,
        ErrorCode.INCONSISTENT_GROUP_PROTOCOL,
        ErrorCode.REBALANCE_IN_PROGRESS,
        ErrorCode.MEMBER_ID_REQUIRED,
        ErrorCode.GROUP_MAX_SIZE_REACHED,
        ErrorCode.FENCED_INSTANCE_ID,
        ErrorCode.NON_EMPTY_GROUP,
        ErrorCode.NOT_COORDINATOR,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
    } - seen
    assert missing == {GroupState.DEAD}
