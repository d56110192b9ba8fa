"""A follower's copying from one leader: one connection, one Fetch under way, everything that this broker follows there.

    connect ──▶ wait until what was copied is durable ──▶ Fetch from the log ends ──▶ append, truncate or back off ──▶ ...

The fetch offset is the end of the follower's log, and with it what the leader may count: so with `flush: Fsync` no Fetch
leaves before everything copied so far is synced (design section 3.4). While one batch is being synced the next one gathers
at the leader, so under load each round carries more and costs less, as group commit does.

What a leader answers, and what is done about it:

| answer | what is done |
|---|---|
| records | appended as they are |
| a diverging epoch | the log is cut where the two part (KIP-595), at once, durably |
| OFFSET_OUT_OF_RANGE, our end below the leader's start | everything is dropped, copying starts at the leader's start |
| OFFSET_MOVED_TO_TIERED_STORAGE | the same, but copying starts behind what is in the bucket (`bootstrap.py`) |
| NOT_LEADER_OR_FOLLOWER, an epoch error, an unknown topic id | one of us has not heard yet: again in a moment |
| anything else, or our own disk | again after `replica.fetch.backoff.ms`; the others go on |

`Fetchers` (in `fetchers.py`) starts and ends these.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, NamedTuple

from strandline_broker.cluster.backoff import Backoff
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.peers.contract import PeerError
from strandline_broker.replica.bootstrap import Bootstraps
from strandline_broker.replica.follower_session import FollowerSession
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.errors import DecodeError
from strandline_broker.wire.fetch_client import decode_fetch_response, encode_fetch_request

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from strandline_broker.cluster.model import ReplicaRef
    from strandline_broker.log.log import Log
    from strandline_broker.peers.contract import PeerConnection
    from strandline_broker.replica.follower_session import PartitionKey
    from strandline_broker.replica.partition import Partition
    from strandline_broker.replica.remote import TailState, TierBootstrap
    from strandline_broker.replica.throttle import ReplicationThrottle
    from strandline_broker.seams.clock import Clock
    from strandline_broker.wire.fetch import FetchPartition, TierNews
    from strandline_broker.wire.fetch_client import FetchedPartition

logger = logging.getLogger(__name__)

FETCH_VERSION = 17
_FIRST_DELAY_S = 0.01
_SESSION_ERRORS = (
    ErrorCode.FETCH_SESSION_ID_NOT_FOUND,
    ErrorCode.INVALID_FETCH_SESSION_EPOCH,
    ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR,
)
_NOT_HEARD_YET = (
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.UNKNOWN_LEADER_EPOCH,
    ErrorCode.FENCED_LEADER_EPOCH,
    ErrorCode.UNKNOWN_TOPIC_ID,
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
)


class FetchSettings(NamedTuple):
    """How followers fetch; Kafka's `replica.fetch.*`."""

    partition_max_bytes: int = 1 << 20
    response_max_bytes: int = 10 << 20
    wait_max_ms: int = 500
    min_bytes: int = 1
    backoff_s: float = 1.0


class FetchCounters:
    """What all fetchers of a broker count, for metrics."""

    __slots__ = ("connections", "failures", "refusals")

    def __init__(self) -> None:
        self.connections = 0
        self.failures = 0
        """Connections to leaders made, and those that failed or could not be made."""
        self.refusals = 0
        """Partitions that could not be copied for a moment, because of an error of the leader or of this disk."""


class _Followed:
    """One partition that is followed in one epoch."""

    __slots__ = (
        "backoff",
        "delayed_until",
        "epoch",
        "key",
        "leader_log_start",
        "partition",
        "requested",
    )

    def __init__(self, partition: Partition, epoch: int, backoff: Backoff) -> None:
        self.partition = partition
        self.key: PartitionKey = (partition.topic_id, partition.index)
        self.epoch = epoch
        self.backoff = backoff
        self.delayed_until = 0.0
        self.requested = False
        """Whether an answer may speak of this partition in this epoch: it was asked for."""
        self.leader_log_start = 0


class LeaderFetcher:
    """See the module. `connect` returns a connection to the leader, wherever it is now; it raises PeerError."""

    def __init__(
        self,
        leader_id: int,
        own: ReplicaRef,
        *,
        connect: Callable[[int], Awaitable[PeerConnection]],
        request_sync: Callable[[Partition], None],
        settings: FetchSettings,
        throttle: ReplicationThrottle | None,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        rng: random.Random,
        counters: FetchCounters | None = None,
        bootstrap: TierBootstrap | None = None,
    ) -> None:
        self.leader_id = leader_id
        self._counters = counters if counters is not None else FetchCounters()
        self._own = own
        self._connect = connect
        self._request_sync = request_sync
        self._settings = settings
        self._throttle = throttle
        self._clock = clock
        self._loop = loop
        self._rng = rng
        self._session = FollowerSession()
        self._bootstraps = Bootstraps(bootstrap, loop)
        self._followed: dict[PartitionKey, _Followed] = {}
        # What the session has to be told; everything, while there is no session.
        self._changed: dict[PartitionKey, None] = {}
        self._dropped: dict[PartitionKey, None] = {}
        self._delayed: dict[PartitionKey, None] = {}
        self._unsynced: dict[PartitionKey, None] = {}
        self._wake = asyncio.Event()
        self._complained = False

    def __len__(self) -> int:
        return len(self._followed)

    # -- what to follow ------------------------------------------------------------------------------------------------

    def follow(self, partition: Partition, epoch: int) -> None:
        """Copy `partition` from now on, as a follower in `epoch`."""
        followed = _Followed(
            partition, epoch, Backoff(self._rng, first_s=_FIRST_DELAY_S, cap_s=self._settings.backoff_s)
        )
        self._followed[followed.key] = followed
        self._bootstraps.cancel(followed.key)
        self._dropped.pop(followed.key, None)
        self._delayed.pop(followed.key, None)
        self._changed[followed.key] = None
        partition.on_synced = self._wake.set
        if partition.wants_sync:
            self._unsynced[followed.key] = None
            self._request_sync(partition)
        self._wake.set()

    def unfollow(self, key: PartitionKey) -> None:
        """Copy this partition no longer."""
        followed = self._followed.pop(key, None)
        if followed is None:
            return
        followed.partition.on_synced = None
        self._bootstraps.cancel(key)
        for table in (self._changed, self._delayed, self._unsynced):
            table.pop(key, None)
        self._dropped[key] = None
        self._wake.set()

    def epoch_of(self, key: PartitionKey) -> int:
        """Return the epoch in which a partition is followed here, -1 for not at all."""
        followed = self._followed.get(key)
        return followed.epoch if followed is not None else -1

    # -- the task ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Copy until cancelled. Never raises because of the leader, the network or this broker's disk."""
        try:
            await self._run()
        finally:
            self._bootstraps.close()

    async def _run(self) -> None:
        backoff = Backoff(self._rng, first_s=0.02, cap_s=self._settings.backoff_s)
        while True:
            connection: PeerConnection | None = None
            try:
                connection = await self._connect(self.leader_id)
                self._counters.connections += 1
                self._session.reset()
                while True:
                    await self._round(connection)
                    backoff.reset()
                    self._complained = False
            except (PeerError, DecodeError) as error:
                level = logging.DEBUG if self._complained else logging.WARNING
                self._complained = True
                self._counters.failures += 1
                logger.log(level, "cannot fetch from broker %d, trying again: %s", self.leader_id, error)
            finally:
                if connection is not None:
                    connection.close()
            await self._pause(backoff.next_s())

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until something new is to be followed."""
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _round(self, connection: PeerConnection) -> None:
        await self._until_durable()
        wait_ms = self._take_back_delayed()
        entries = self._entries()
        if len(self._followed) == len(self._delayed):
            await self._pause(wait_ms / 1000)
            return
        settings = self._settings
        session_id, session_epoch, topics, forgotten = self._session.request(entries, self._dropped)
        self._changed.clear()
        self._dropped.clear()
        body = encode_fetch_request(
            FETCH_VERSION,
            replica_id=self._own.broker_id,
            replica_epoch=self._own.generation,
            max_wait_ms=wait_ms,
            min_bytes=settings.min_bytes,
            max_bytes=settings.response_max_bytes,
            session_id=session_id,
            session_epoch=session_epoch,
            topics=topics,
            forgotten=forgotten,
        )
        answer = await connection.request(ApiKey.FETCH, FETCH_VERSION, body)
        response = decode_fetch_response(answer, FETCH_VERSION)
        if response.error_code:
            code = ErrorCode(response.error_code)
            if code in _SESSION_ERRORS:
                self._session.reset()
                return
            raise PeerError(f"broker {self.leader_id} refused a fetch: {code.name}")
        self._session.answered(response.session_id)
        for topic_id, rows in response.topics:
            for row in rows:
                self._take((topic_id, row.index), row)

    def _entries(self) -> dict[PartitionKey, FetchPartition]:
        """Return what to ask for, of the partitions that changed; of all, while there is no session."""
        followed = self._followed
        max_bytes = self._settings.partition_max_bytes
        entries: dict[PartitionKey, FetchPartition] = {}
        for key in list(self._changed) if self._session.established else list(followed):
            if key in self._delayed:
                continue
            one = followed[key]
            log = one.partition.log
            if log.failed:
                self._delay(one, self._settings.backoff_s)
                continue
            if self._hold_back(one):
                continue
            one.requested = True
            log_start = one.partition.log_start_offset
            entries[key] = (key[1], one.epoch, log.end_offset, log.last_epoch, log_start, max_bytes)
        return entries

    # -- durability ----------------------------------------------------------------------------------------------------

    async def _until_durable(self) -> None:
        """Wait until everything copied is synced, where that is what counts; a log that failed is not waited for."""
        unsynced = self._unsynced
        while unsynced:
            self._wake.clear()
            for key in list(unsynced):
                one = self._followed[key]
                if one.partition.log.failed:
                    del unsynced[key]
                elif not one.partition.wants_sync:
                    del unsynced[key]
                    self._learn(one)
            if unsynced:
                await self._wake.wait()

    def _learn(self, one: _Followed) -> None:
        try:
            one.partition.learn_from_leader(one.partition.leader_high_watermark, one.leader_log_start)
        except KafkaError as error:
            logger.error("%r: %s", one.partition, error)
            self._delay(one, self._settings.backoff_s)

    # -- delays --------------------------------------------------------------------------------------------------------

    def _delay(self, one: _Followed, seconds: float) -> None:
        one.delayed_until = self._loop.time() + seconds
        self._delayed[one.key] = None
        self._changed.pop(one.key, None)
        self._dropped[one.key] = None

    def _hold_back(self, one: _Followed) -> bool:
        """Put a throttled partition off that lacks something of its leader's, as long as its share is used up."""
        partition = one.partition
        if self._throttle is None or partition.lag == 0:
            return False
        wait_s = self._throttle.wait_s(partition.topic, partition.index, self._clock.monotonic())
        if wait_s > 0:
            self._delay(one, wait_s)
        return wait_s > 0

    def _take_back_delayed(self) -> int:
        """Ask again for partitions whose delay is over; return the longest wait (ms) that suits the others."""
        wait_s = self._settings.wait_max_ms / 1000
        if self._delayed:
            now = self._loop.time()
            for key in list(self._delayed):
                left = self._followed[key].delayed_until - now
                if left > 0:
                    wait_s = min(wait_s, left)
                else:
                    del self._delayed[key]
                    self._dropped.pop(key, None)
                    self._changed[key] = None
        return max(1, round(wait_s * 1000))

    # -- answers -------------------------------------------------------------------------------------------------------

    def _take(self, key: PartitionKey, row: FetchedPartition) -> None:
        one = self._followed.get(key)
        if (
            one is None
            or not one.requested
            or one.partition.is_leader
            or one.partition.leader_epoch != one.epoch
        ):
            return  # asked for in another role; whoever changed it has told us, or will
        self._changed[key] = None
        if row.error_code:
            self._refused(one, ErrorCode(row.error_code), row)
            return
        partition = one.partition
        try:
            if row.diverging is not None:
                offset = truncation_offset(partition.log, *row.diverging)
                logger.info(
                    "%r: cut at %d: its log parts from the leader's in epoch %d",
                    partition,
                    offset,
                    row.diverging[0],
                )
                partition.cut(offset)
            else:
                if row.tier is not None:
                    partition.start_tiering().learn(row.tier)
                if len(row.records):
                    partition.append_from_leader(row.records, self._clock.now_ms())
                    if self._throttle is not None:
                        now = self._clock.monotonic()
                        self._throttle.passed(partition.topic, partition.index, len(row.records), now)
                partition.leader_high_watermark = row.high_watermark
                one.leader_log_start = row.log_start_offset
                if partition.wants_sync:
                    self._unsynced[key] = None
                    self._request_sync(partition)
                else:
                    partition.learn_from_leader(row.high_watermark, row.log_start_offset)
        except KafkaError as error:
            logger.error("%r: cannot take what its leader sent: %s", partition, error)
            self._counters.refusals += 1
            self._delay(one, self._settings.backoff_s)
            return
        one.backoff.reset()
        self._hold_back(one)

    def _refused(self, one: _Followed, code: ErrorCode, row: FetchedPartition) -> None:
        partition = one.partition
        if code in _NOT_HEARD_YET:
            logger.debug("%r: broker %d answers %s", partition, self.leader_id, code.name)
            self._delay(one, one.backoff.next_s())
            return
        if code is ErrorCode.OFFSET_MOVED_TO_TIERED_STORAGE and row.tier is not None:
            self._moved(one, row, row.tier)
            return
        if code is ErrorCode.OFFSET_OUT_OF_RANGE and row.log_start_offset > partition.log.end_offset:
            try:
                partition.start_over(row.log_start_offset)
            except KafkaError as error:
                logger.error("%r: %s", partition, error)
            else:
                return
        else:
            self._counters.refusals += 1
            logger.error("%r: broker %d refuses a fetch at %d: %s", partition, self.leader_id,
                         partition.log.end_offset, code.name)  # fmt: skip
        self._delay(one, self._settings.backoff_s)

    def _moved(self, one: _Followed, row: FetchedPartition, news: TierNews) -> None:
        """Begin behind what is in the bucket: now, if nothing is there that counts, or when the state there is known."""
        log_start = row.log_start_offset
        if news.segment_key and news.tiered_through >= news.local_log_start:
            self._delay(one, math.inf)
            self._bootstraps.begin(
                one.key,
                news,
                lambda tail: self._start_over(one, news.tiered_through, log_start, tail),
                lambda: self._start_later(one),
            )
        elif log_start >= news.local_log_start:
            self._start_over(one, log_start, log_start, None)
        else:
            # The leader has not looked into the bucket yet.
            self._delay(one, one.backoff.next_s())

    def _start_over(self, one: _Followed, offset: int, log_start: int, tail: TailState | None) -> None:
        partition = one.partition
        if (
            self._followed.get(one.key) is not one
            or partition.is_leader
            or partition.leader_epoch != one.epoch
        ):
            return
        try:
            partition.start_tiering().raise_log_start(log_start)
            partition.start_over(offset, tail)
        except KafkaError as error:
            logger.error("%r: %s", partition, error)
            self._start_later(one)
            return
        one.backoff.reset()
        one.delayed_until = 0.0
        self._changed[one.key] = None
        self._wake.set()

    def _start_later(self, one: _Followed) -> None:
        self._counters.refusals += 1
        if self._followed.get(one.key) is one:
            self._delay(one, self._settings.backoff_s)
            self._wake.set()


def truncation_offset(log: Log, leader_epoch: int, leader_end: int) -> int:
    """Return where to cut a log whose leader's last epoch in common ends at `leader_end` (KIP-279, KIP-595).

    If this log does not know that epoch, it is cut at the end of its largest one below, and the next Fetch asks again.
    """
    own_epoch, own_end = log.epoch_end_offset(leader_epoch)
    if own_epoch < 0:
        return min(leader_end, log.end_offset)
    if own_epoch != leader_epoch:
        return min(own_end, log.end_offset)
    return min(own_end, leader_end, log.end_offset)
