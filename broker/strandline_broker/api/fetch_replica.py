"""Fetch as brokers send it: followers copying from this leader, on the listener between brokers.

What differs from a consumer's Fetch (`fetch.py`): reads go to the log end; the offset asked for is what the follower has,
and moves the high watermark; logs are compared first, and an answer about a diverging log counts nothing (design 3.4).

How long a Fetch waits when there is nothing to copy: as long as the follower says, but only `NEWS_MS` when the follower has
not heard of the newest high watermark, or does not ask yet for everything that it has to copy from here: it then learns
soon of either, although nothing is written. Which partitions a Fetch looks at: `replica_feed.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from strandline_broker.api.replica_feed import ReplicaFeed
from strandline_broker.api.support.fetch_rows import NO_RECORDS, NO_REPLICA, Row, encode_rows, error_row
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.net.handler import Pending
from strandline_broker.wire.fetch import encode_fetch_response

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from strandline_broker.api.fetch_sessions import FetchSession, FetchSessionCache, FetchTarget, TopicKey
    from strandline_broker.cluster.view import ClusterView
    from strandline_broker.net.connection import Connection
    from strandline_broker.net.handler import Response
    from strandline_broker.replica.manager import ReplicaManager
    from strandline_broker.replica.partition import Partition
    from strandline_broker.replica.throttle import ReplicationThrottle
    from strandline_broker.seams.clock import Clock
    from strandline_broker.seams.disk import FileSlice
    from strandline_broker.wire.fetch import FetchRequest, TierNews
    from strandline_broker.wire.header import RequestHeader

NEWS_MS = 50
"""So long may a follower lag behind a high watermark that moved without new data."""
WHOLE_INTERVAL_S = 0.25
"""So often, at least, a fetch looks at all partitions that it is for."""


class ReplicaFetchOperation(Pending):
    """One fetch of a follower from its arrival to its answer."""

    __slots__ = (
        "_handler",
        "connection",
        "correlation_id",
        "feed",
        "is_ready",
        "request",
        "session",
        "short",
        "targets",
        "timer",
        "version",
    )

    def __init__(
        self,
        handler: ReplicaFetchHandler,
        connection: Connection,
        feed: ReplicaFeed,
        header: RequestHeader,
        request: FetchRequest,
        session: FetchSession | None,
        targets: list[FetchTarget],
    ) -> None:
        super().__init__(mute=True)
        self._handler = handler
        self.connection = connection
        self.feed = feed
        self.version = header.api_version
        self.correlation_id = header.correlation_id
        self.request = request
        self.session = session
        self.targets = targets
        self.is_ready = False
        self.short = False
        """Whether it waits no longer than `NEWS_MS` already."""
        self.timer: asyncio.TimerHandle | None = None

    def answer_soon(self) -> None:
        """Be answered at the end of this turn of the loop."""
        if not self.is_ready:
            self.is_ready = True
            self._handler.ready(self)

    def answer_within_news_ms(self) -> None:
        """Be answered within `NEWS_MS`."""
        if not self.short:
            self.short = True
            self._handler.hurry(self)


class _Reading:
    """What was read for one fetch so far."""

    __slots__ = ("byte_count", "held_back", "left", "must_answer", "topics")

    def __init__(self, left: int) -> None:
        self.left = left
        """Bytes of records that there is still room for."""
        self.byte_count = 0
        self.topics: dict[TopicKey, list[Row]] = {}
        self.must_answer = False
        """An error, or logs that part, forbid waiting."""
        self.held_back: dict[tuple[TopicKey, int], float] = {}
        """Partitions whose records a throttle keeps from the follower, and for how many seconds."""

    def add(self, target: FetchTarget, row: Row) -> None:
        """Add the row of one partition."""
        self.topics.setdefault(target.key, []).append(row)


class ReplicaFetchHandler:
    """Takes the fetches of followers. `may_join` is told when a follower may be ready for the ISR."""

    def __init__(
        self,
        replicas: ReplicaManager,
        view: ClusterView,
        sessions: FetchSessionCache,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        *,
        max_bytes: int,
        may_join: Callable[[], None],
        throttle: ReplicationThrottle | None = None,
        whole_interval_s: float = WHOLE_INTERVAL_S,
    ) -> None:
        self._replicas = replicas
        self._view = view
        self._sessions = sessions
        self._clock = clock
        self._loop = loop
        self._max_bytes = max_bytes
        self._may_join = may_join
        self._throttle = throttle
        self._whole_interval_s = whole_interval_s
        self._feeds: dict[Connection, ReplicaFeed] = {}
        self._ready: list[ReplicaFetchOperation] = []

    def handle(
        self, connection: Connection, header: RequestHeader, request: FetchRequest
    ) -> Response | Pending:
        """Take note of what the follower has, and answer at once if there is more."""
        version, correlation_id = header.api_version, header.correlation_id
        now = self._clock.monotonic()
        try:
            session, targets = self._sessions.open(request, version, now)
        except KafkaError as error:
            return encode_fetch_response(version, correlation_id, int(error.code), 0, [])
        feed = self._feeds.get(connection)
        if feed is None:
            feed = self._feeds[connection] = ReplicaFeed(self._replicas)
        due = feed.due(request, session, targets, now, self._whole_interval_s)
        reading = self._read(feed, request, session, due, arrived=True)
        topics, held_back = reading.topics, reading.held_back
        if reading.byte_count or reading.must_answer or request.max_wait_ms <= 0 or not targets:
            return encode_rows(self._view, connection, version, correlation_id, session, topics)
        for topic, rows in topics.items():
            for row in rows:
                feed.news[(topic, cast("int", row[0]))] = None  # not told after all, for now
        operation = ReplicaFetchOperation(self, connection, feed, header, request, session, targets)
        operation.short = bool(topics) or len(targets) < self._replicas.followed_by(request.replica_id)
        feed.parked = operation
        feed.held_back = held_back
        wait_ms = min(request.max_wait_ms, NEWS_MS) if operation.short else request.max_wait_ms
        wait_s = min(wait_ms / 1000, *held_back.values()) if held_back else wait_ms / 1000
        operation.timer = self._loop.call_later(wait_s, self._answer, operation)
        return operation

    def ready(self, operation: ReplicaFetchOperation) -> None:
        """Answer at the end of this turn of the loop, when everything of the burst has been written."""
        if not self._ready:
            self._loop.call_soon(self._answer_ready)
        self._ready.append(operation)

    def hurry(self, operation: ReplicaFetchOperation) -> None:
        """Answer within `NEWS_MS`."""
        assert operation.timer is not None
        at = self._loop.time() + NEWS_MS / 1000
        if operation.timer.when() > at:
            operation.timer.cancel()
            operation.timer = self._loop.call_at(at, self._answer, operation)

    def _answer_ready(self) -> None:
        ready, self._ready = self._ready, []
        for operation in ready:
            self._answer(operation)

    def _answer(self, operation: ReplicaFetchOperation) -> None:
        feed = operation.feed
        if feed.parked is not operation:
            return
        self._unpark(operation)
        due = feed.new_since(operation)
        topics = self._read(feed, operation.request, operation.session, due, arrived=False).topics
        operation.complete(
            encode_rows(
                self._view,
                operation.connection,
                operation.version,
                operation.correlation_id,
                operation.session,
                topics,
            )
        )

    @staticmethod
    def _unpark(operation: ReplicaFetchOperation) -> None:
        operation.feed.parked = None
        operation.feed.held_back = {}
        if operation.timer is not None:
            operation.timer.cancel()

    def connection_lost(self, connection: Connection) -> None:
        """Forget the follower behind a connection that is gone."""
        feed = self._feeds.pop(connection, None)
        if feed is not None:
            if feed.parked is not None:
                self._unpark(feed.parked)
            feed.close()

    def _read(
        self,
        feed: ReplicaFeed,
        request: FetchRequest,
        session: FetchSession | None,
        targets: list[FetchTarget],
        *,
        arrived: bool,
    ) -> _Reading:
        """Read for every target, and leave in the feed those that nothing new has to happen to for more to say.

        `arrived`: the fetch is new and counts as the follower's word; it must not count twice.
        """
        reading = _Reading(min(request.max_bytes, self._max_bytes))
        incremental = session is not None and request.session_epoch > 0
        now = self._clock.monotonic()
        news = feed.news
        news.clear()
        for target in targets:
            key = (target.key, target.index)
            partition = self._replicas.find(target.key, target.index)
            try:
                if partition is None:
                    raise self._replicas.why_absent(target.key, target.index)
                diverging = self._compare(partition, target)
                if diverging is not None:
                    reading.must_answer = True
                    reading.add(target, _parted(partition, target, diverging))
                    continue
                if arrived:
                    feed.counted(key, may_join=_count(partition, request, target, now))
                found = self._records(reading, partition, target, request.replica_id, now)
            except KafkaError as error:
                reading.must_answer = True
                reading.add(target, error_row(self._replicas, target, error, partition))
                target.told_high_watermark = -1
                continue
            high_watermark, start_offset = partition.high_watermark, partition.log_start_offset
            told = (target.told_high_watermark, target.told_start_offset)
            tier = _tier_news(partition, target)
            if found is not None or not incremental or told != (high_watermark, start_offset) or tier:
                records = found or NO_RECORDS
                row: Row = (
                    target.index,
                    0,
                    high_watermark,
                    high_watermark,
                    start_offset,
                    None,
                    NO_REPLICA,
                    records,
                )
                reading.add(target, row if tier is None else (*row, None, None, None, tier))
                news.pop(key, None)  # also what counting the follower made new
            elif target.fetch_offset != partition.log.end_offset:
                news[key] = None  # no room for it, or held back
        if arrived and feed.outside:
            self._may_join()
        return reading

    def _records(
        self, reading: _Reading, partition: Partition, target: FetchTarget, replica_id: int, now: float
    ) -> FileSlice | None:
        """Return what the follower lacks, as far as there is room and no throttle keeps it. Raises KafkaError."""
        if target.fetch_offset == partition.log.end_offset:
            return None
        wait_s = self._throttled_s(partition, replica_id, now)
        if wait_s > 0:
            reading.held_back[(target.key, target.index)] = wait_s
            return None
        if reading.left <= 0:
            return None
        found = partition.read_for_follower(
            target.fetch_offset, min(reading.left, target.max_bytes), min_one_batch=reading.byte_count == 0
        )
        if found is not None:
            reading.left -= found.length
            reading.byte_count += found.length
            partition.replicated_out += found.length
            if self._throttle is not None:
                self._throttle.passed(partition.topic, partition.index, found.length, now)
        return found

    def _throttled_s(self, partition: Partition, replica_id: int, now: float) -> float:
        """Return for how long records must not be sent to a follower that is not in sync; 0 for not at all (KIP-73)."""
        throttle, leadership = self._throttle, partition.leadership
        if throttle is None or throttle.rate is None or leadership is None:
            return 0.0
        return (
            0.0
            if replica_id in leadership.state.isr_ids
            else throttle.wait_s(partition.topic, partition.index, now)
        )

    @staticmethod
    def _compare(partition: Partition, target: FetchTarget) -> tuple[int, int] | None:
        """Return where the follower's log parts from ours, if it does.

        Raises KafkaError for a follower that asks the wrong broker, in another epoch than ours or in none, or for an offset
        that is not here. What it says of itself must not count before this.
        """
        if target.current_leader_epoch < 0:
            raise KafkaError(ErrorCode.FENCED_LEADER_EPOCH, "a follower names the epoch in which it follows")
        partition.check_leader(target.current_leader_epoch)
        if target.last_fetched_epoch >= 0:
            diverging = partition.diverging_epoch(target.last_fetched_epoch, target.fetch_offset)
            if diverging is not None:
                return diverging
        tier = partition.tier
        if tier is not None and tier.has_moved(target.fetch_offset, target.last_fetched_epoch):
            raise KafkaError(ErrorCode.OFFSET_MOVED_TO_TIERED_STORAGE)
        log = partition.log
        if not log.start_offset <= target.fetch_offset <= log.end_offset:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
        return None


def _count(partition: Partition, request: FetchRequest, target: FetchTarget, now: float) -> bool:
    """Take note of what the follower has; return whether it may want to join the ISR. Raises KafkaError."""
    return partition.follower_fetched(
        request.replica_id, request.replica_epoch, target.fetch_offset, target.log_start_offset, now
    )


def _tier_news(partition: Partition, target: FetchTarget) -> TierNews | None:
    """Return what a follower of a tiered partition has not been told of the bucket, None for nothing."""
    tier = partition.tier
    if tier is None or tier.tiered_through == target.told_tiered_through:
        return None
    return tier.news


def _parted(partition: Partition, target: FetchTarget, diverging: tuple[int, int]) -> Row:
    """Return the row that tells a follower where its log parts from ours."""
    high_watermark, start_offset = partition.high_watermark, partition.log_start_offset
    return (
        target.index, 0, high_watermark, high_watermark, start_offset, None, NO_REPLICA, NO_RECORDS, diverging, None, None
    )  # fmt: skip
