"""Fetches of followers at their leader: what an answer holds, when it comes, and which partitions are looked at."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.unit.replica.support import state_of

from strandline_broker.api.fetch_replica import NEWS_MS, WHOLE_INTERVAL_S, ReplicaFetchHandler
from strandline_broker.api.fetch_sessions import FetchSessionCache
from strandline_broker.cluster.model import ReplicaRef
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.net.handler import Pending
from strandline_broker.replica.partition import FlushMode, Partition
from strandline_broker.seams.clock import ManualClock
from strandline_broker.seams.disk import FileSlice
from strandline_broker.seams.sim_disk import SimDisk
from strandline_broker.wire.batch import Record, build_batch
from strandline_broker.wire.fetch import decode_fetch
from strandline_broker.wire.fetch_client import FetchedPartition, decode_fetch_response, encode_fetch_request

TOPIC_ID = bytes(15) + b"t"
VERSION = 17
NOW_MS = 1_700_000_000_000
BATCH = bytes(build_batch([Record(value=bytes(1000), timestamp=NOW_MS)]))
HEADER_BYTES = 4 + 4 + 1
MAX_WAIT_MS = 500


class Timer:
    def __init__(self, at: float, run: Callable[[], None]) -> None:
        self.at = at
        self.run = run
        self.cancelled = False

    def when(self) -> float:
        return self.at

    def cancel(self) -> None:
        self.cancelled = True


class ManualLoop:
    """An event loop whose time is a clock's."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._soon: list[Callable[[], None]] = []
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self._clock.monotonic()

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        self._soon.append(lambda: call(*arguments))

    def call_at(self, at: float, call: Callable[..., None], *arguments: Any) -> Timer:
        timer = Timer(at, lambda: call(*arguments))
        self.timers.append(timer)
        return timer

    def call_later(self, delay: float, call: Callable[..., None], *arguments: Any) -> Timer:
        return self.call_at(self.time() + delay, call, *arguments)

    def turn(self, seconds: float = 0.0) -> None:
        """Let what is due happen, then time pass, then what is due by then."""
        self._run_soon()
        self._clock.advance(seconds)
        for timer in [timer for timer in self.timers if timer.at <= self.time() + 1e-9]:
            self.timers.remove(timer)
            if not timer.cancelled:
                timer.run()
        self._run_soon()

    def _run_soon(self) -> None:
        while self._soon:
            calls, self._soon = self._soon, []
            for call in calls:
                call()


class Replicas:
    """Stands for the replica manager of the leader."""

    def __init__(self) -> None:
        self.partitions: dict[int, Partition] = {}
        self.looked_at: list[int] = []

    def find(self, key: str | bytes, index: int) -> Partition | None:
        assert key == TOPIC_ID
        self.looked_at.append(index)
        return self.partitions.get(index)

    def followed_by(self, broker_id: int) -> int:
        return len(self.partitions)

    def why_absent(self, key: str | bytes, index: int) -> KafkaError:
        return KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)

    def current_leader(self, key: str | bytes, index: int) -> None:
        return None


class Throttle:
    """Holds everything back for `waits_s`."""

    rate = 1.0
    waits_s = 0.0

    def wait_s(self, topic: str, index: int, now: float) -> float:
        return self.waits_s

    def passed(self, topic: str, index: int, byte_count: int, now: float) -> None:
        """Take note."""


class Leader:
    """Broker 0 leading `count` partitions, of which broker 1 copies all; `in_sync`: it is in their ISRs."""

    def __init__(
        self,
        count: int,
        *,
        in_sync: bool = True,
        slots: int = 10,
        max_bytes: int = 1 << 20,
        throttle: Throttle | None = None,
    ) -> None:
        self.clock = ManualClock(wall_ms=NOW_MS)
        self.loop = ManualLoop(self.clock)
        self.replicas = Replicas()
        self.woken = 0
        self._in_sync = in_sync
        self._disk = SimDisk()
        for index in range(count):
            self.open(index)
        self.handler = ReplicaFetchHandler(
            cast("Any", self.replicas),
            cast("Any", SimpleNamespace(leases={})),
            FetchSessionCache(random.Random(1), slots=slots),
            self.clock,
            cast("Any", self.loop),
            max_bytes=max_bytes,
            may_join=self._wake,
            throttle=cast("Any", throttle),
        )

    def _wake(self) -> None:
        self.woken += 1

    def open(self, index: int) -> Partition:
        log = Log.open(self._disk, f"t-{index}", LogConfig(), now_ms=NOW_MS, clean=False)
        partition = Partition("t", TOPIC_ID, index, log, FlushMode.REPLICATED, 0)
        members = ((0, 1), (1, 1)) if self._in_sync else ((0, 1),)
        partition.lead(ReplicaRef(0, 1), state_of(*members, replicas=(0, 1)), 1, self.clock.monotonic())
        self.replicas.partitions[index] = partition
        return partition

    def write(self, index: int) -> None:
        partition = self.replicas.partitions[index]
        partition.stage(cast("Any", Waiter()), [0] * 8, memoryview(bytearray(BATCH)), NOW_MS)
        partition.commit()


class Waiter:
    acks = -1
    patient = False

    def partition_done(self, row: list[object]) -> None:
        """Take the answer."""


class Connection:
    listener = SimpleNamespace(internal=True, name="B")


class Follower:
    """Broker 1 on one connection; `fetch` sends what changed, `rows` are those of the last answer."""

    def __init__(self, leader: Leader) -> None:
        self.leader = leader
        self.connection = cast("Any", Connection())
        self.ends = dict.fromkeys(leader.replicas.partitions, 0)
        self.changed = set(self.ends)
        self.session = (0, 0)
        self.rows: dict[int, FetchedPartition] | None = None
        self.waiting: Pending | None = None

    def fetch(self, *, forgotten: tuple[int, ...] = (), max_bytes: int = 1 << 20) -> None:
        """Send a fetch; `rows` is None until it is answered."""
        assert self.waiting is None
        session_id, epoch = self.session
        entries = [
            (index, 1, self.ends[index], 1 if self.ends[index] else -1, 0, 1 << 20)
            for index in sorted(self.changed)
        ]
        self.changed = set()
        body = encode_fetch_request(
            VERSION, replica_id=1, replica_epoch=1, max_wait_ms=MAX_WAIT_MS, min_bytes=1, max_bytes=max_bytes,
            session_id=session_id, session_epoch=epoch, topics=[(TOPIC_ID, entries)] if entries else [],
            forgotten=[(TOPIC_ID, list(forgotten))] if forgotten else [],
        )  # fmt: skip
        header = cast("Any", SimpleNamespace(api_version=VERSION, correlation_id=1, body_offset=0))
        self.rows = None
        self.leader.replicas.looked_at.clear()
        answer = self.leader.handler.handle(
            self.connection, header, decode_fetch(memoryview(body), 0, VERSION)
        )
        if isinstance(answer, Pending):
            self.waiting = answer
        else:
            self._take(answer)

    def turn(self, seconds: float = 0.0) -> dict[int, FetchedPartition] | None:
        """Let the leader work; return the rows of the answer, None while there is none."""
        self.leader.loop.turn(seconds)
        if self.waiting is not None and self.waiting.done:
            waiting, self.waiting = self.waiting, None
            self._take(waiting.response)
        return self.rows

    def _take(self, response: Any) -> None:
        parts = response if isinstance(response, list | tuple) else [response]
        data = b"".join(part.read() if isinstance(part, FileSlice) else bytes(part) for part in parts)
        decoded = decode_fetch_response(memoryview(bytearray(data))[HEADER_BYTES:], VERSION)
        assert decoded.error_code == 0
        epoch = self.session[1]
        self.session = (decoded.session_id, epoch + 1 if decoded.session_id else 0)
        self.rows = {row.index: row for _, rows in decoded.topics for row in rows}
        for index, row in self.rows.items():
            if len(row.records):
                self.ends[index] += len(row.records) // len(BATCH)
            if not row.error_code:
                self.changed.add(index)
        if not decoded.session_id:
            self.changed = set(self.ends)

    def settle(self) -> None:
        """Fetch until there is nothing new, and leave a fetch waiting."""
        for _ in range(10):
            if self.waiting is None:
                self.fetch()
            if self.turn(NEWS_MS / 1000) is None:
                return
        raise AssertionError("there is always something new")


def copied(rows: dict[int, FetchedPartition] | None) -> list[int]:
    """Return the partitions of which an answer holds records."""
    assert rows is not None
    return [index for index, row in rows.items() if len(row.records)]


def settled(leader: Leader) -> Follower:
    follower = Follower(leader)
    follower.settle()
    return follower


def test_what_is_written_is_sent_at_once_and_nothing_else_is_looked_at() -> None:
    leader = Leader(50)
    follower = settled(leader)
    leader.write(7)
    leader.replicas.looked_at.clear()
    assert copied(follower.turn()) == [7]
    assert leader.replicas.looked_at == [7]
    follower.fetch()
    assert set(leader.replicas.looked_at) == {7}
    assert leader.replicas.partitions[7].high_watermark == 1
    rows = follower.turn(NEWS_MS / 1000)
    assert rows is not None
    assert {index: row.high_watermark for index, row in rows.items()} == {7: 1}


def test_everything_is_looked_at_now_and_then() -> None:
    leader = Leader(3)
    follower = settled(leader)
    leader.write(0)
    follower.turn(WHOLE_INTERVAL_S)
    follower.fetch()
    assert set(leader.replicas.looked_at) == {0, 1, 2}
    leadership = leader.replicas.partitions[2].leadership
    assert leadership is not None
    assert leadership.followers[1].caught_up_at == leader.clock.monotonic()


def test_what_comes_while_no_fetch_waits_is_not_lost() -> None:
    leader = Leader(3)
    follower = settled(leader)
    leader.write(0)
    follower.turn()
    leader.write(1)
    leader.write(2)
    follower.fetch()
    assert copied(follower.rows) == [1, 2]


def test_what_had_no_room_comes_with_the_next_answer() -> None:
    leader = Leader(3, max_bytes=len(BATCH))
    follower = settled(leader)
    for index in (0, 1, 2):
        leader.write(index)
    seen = copied(follower.turn())
    while len(seen) < 3:
        follower.fetch()
        assert len(copied(follower.rows)) == 1
        seen += copied(follower.rows)
    assert sorted(seen) == [0, 1, 2]


def test_a_change_of_role_is_told_at_once() -> None:
    leader = Leader(3)
    follower = settled(leader)
    leader.replicas.partitions[1].resign(2, 2)
    rows = follower.turn()
    assert rows is not None
    assert {index: row.error_code for index, row in rows.items()} == {1: ErrorCode.NOT_LEADER_OR_FOLLOWER}


def test_what_is_not_asked_for_any_more_is_not_sent() -> None:
    leader = Leader(2)
    follower = settled(leader)
    leader.write(0)
    follower.turn()
    follower.fetch(forgotten=(1,))
    leader.write(1)
    for _ in range(3):
        rows = follower.turn(MAX_WAIT_MS / 1000)
        assert rows is not None
        assert 1 not in rows
        follower.fetch()


def test_a_partition_that_was_opened_again_is_watched_when_the_follower_speaks_of_it() -> None:
    leader = Leader(2)
    follower = settled(leader)
    old = leader.replicas.partitions.pop(1)
    old.resign(-1, 1)
    follower.turn()
    new = leader.open(1)
    follower.changed = {1}
    follower.settle()
    assert not old.replica_waiters
    assert new.replica_waiters
    leader.write(1)
    assert copied(follower.turn()) == [1]


def test_each_fetch_counts_while_the_follower_is_outside_the_isr() -> None:
    leader = Leader(2, in_sync=False)
    follower = settled(leader)
    woken = leader.woken
    leader.write(0)
    follower.turn()
    follower.fetch()
    assert leader.woken > woken
    assert set(leader.replicas.looked_at) == {0, 1}


def test_deleted_records_are_told_soon() -> None:
    leader = Leader(1)
    follower = settled(leader)
    leader.write(0)
    follower.settle()
    partition = leader.replicas.partitions[0]
    deletion = partition.delete_records(1)
    with pytest.raises(RuntimeError):
        deletion.send(None)  # waits for the follower; there is no loop to wait in
    rows = follower.turn(NEWS_MS / 1000)
    assert rows is not None
    assert rows[0].log_start_offset == 1


def test_a_follower_without_a_session_is_served_as_well() -> None:
    leader = Leader(3, slots=0)
    follower = Follower(leader)
    follower.fetch()
    follower.turn(NEWS_MS / 1000)
    assert follower.session == (0, 0)
    follower.fetch()
    leader.write(2)
    assert copied(follower.turn()) == [2]


def test_what_a_throttle_holds_back_is_no_reason_to_answer_until_it_may_pass() -> None:
    throttle = Throttle()
    leader = Leader(2, in_sync=False, throttle=throttle)
    follower = settled(leader)
    throttle.waits_s = 0.2
    leader.write(0)
    assert copied(follower.turn()) == []
    follower.settle()
    leader.write(0)
    assert follower.turn() is None, "held back already"
    throttle.waits_s = 0.0
    assert copied(follower.turn(0.2)) == [0]


def test_nothing_is_left_of_a_connection_that_is_gone() -> None:
    leader = Leader(3)
    follower = settled(leader)
    leader.handler.connection_lost(follower.connection)
    assert all(not partition.replica_waiters for partition in leader.replicas.partitions.values())
    leader.write(0)
    assert follower.turn(MAX_WAIT_MS / 1000) is None
