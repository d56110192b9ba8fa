"""Fetch (key 1), versions 4-18.

Differences from Kafka: a replica's fetch is answered only on the inter-broker listener (`fetch_replica.py`); the leader
reads what lies only in the bucket, and followers send consumers of it to the leader; beyond the end of its log a follower
answers NOT_LEADER_OR_FOLLOWER (Kafka: OFFSET_OUT_OF_RANGE, after which a client with old metadata that takes it for the
leader would begin anew); what is here is not held back for what is still being read from the bucket; read-committed
filtering arrives with transactions (until then the last stable offset is the high watermark).

Version notes: v7 sessions (KIP-227), v9 leader epochs (KIP-320), v11 rack (KIP-392), v12 flexible, diverging epochs
(KIP-595), v13 topic ids (KIP-516), v15 ReplicaState (KIP-903), v16 node endpoints (KIP-951), v17-18 replica fields.

Records on the disk are never read: a response holds slices of segment files that the network layer hands to sendfile. A
request that finds less than `min_bytes` is parked, its connection muted, until enough arrived or its time is up. What only
the bucket holds arrives by `remote_reads.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strandline_broker.api.remote_reads import MAX_PER_FETCH, RemoteReads
from strandline_broker.api.support.fetch_rows import NO_RECORDS, NO_REPLICA, Row, encode_rows, error_row
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.net.handler import Pending
from strandline_broker.wire.fetch import decode_fetch, encode_fetch_response

if TYPE_CHECKING:
    import asyncio

    from strandline_broker.api.fetch_replica import ReplicaFetchHandler
    from strandline_broker.api.fetch_sessions import FetchSession, FetchSessionCache, FetchTarget, TopicKey
    from strandline_broker.api.remote_reads import RemoteRead
    from strandline_broker.cluster.view import ClusterView
    from strandline_broker.net.connection import Connection
    from strandline_broker.net.handler import Response
    from strandline_broker.replica.manager import ReplicaManager
    from strandline_broker.replica.partition import Partition
    from strandline_broker.seams.clock import Clock
    from strandline_broker.wire.fetch import FetchRequest
    from strandline_broker.wire.header import RequestHeader

_FIRST_WITH_RACK = 11


class FetchOperation(Pending):
    """One fetch from its arrival to its answer; parked, it is what partitions wake."""

    __slots__ = (
        "_handler",
        "available",
        "connection",
        "correlation_id",
        "is_ready",
        "reads",
        "request",
        "session",
        "targets",
        "timer",
        "version",
    )

    def __init__(
        self,
        handler: FetchHandler,
        connection: Connection,
        header: RequestHeader,
        request: FetchRequest,
        session: FetchSession | None,
        targets: list[FetchTarget],
    ) -> None:
        super().__init__(mute=True)
        self._handler = handler
        self.connection = connection
        self.version = header.api_version
        self.correlation_id = header.correlation_id
        self.request = request
        self.session = session
        self.targets = targets
        self.available = 0
        self.is_ready = False
        self.reads: list[RemoteRead] = []
        self.timer: asyncio.TimerHandle | None = None

    def data_arrived(self, byte_count: int) -> None:
        """Count what arrived since the request was parked; zero means a change of role, which answers at once."""
        self.available += byte_count
        if not self.is_ready and (byte_count == 0 or self.available >= self.request.min_bytes):
            self.is_ready = True
            self._handler.ready(self)


class FetchHandler:
    """Takes fetch requests of all connections of one event loop."""

    def __init__(
        self,
        replicas: ReplicaManager,
        view: ClusterView,
        sessions: FetchSessionCache,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        replica_handler: ReplicaFetchHandler,
        *,
        max_bytes: int,
        max_parked: int,
        rack_aware: bool = False,
    ) -> None:
        """`rack_aware`: send consumers to an in-sync follower in their rack (KIP-392)."""
        self.remote_reads = RemoteReads(clock, loop)
        self._replica_handler = replica_handler
        self._rack_aware = rack_aware
        self._replicas = replicas
        self._view = view
        self._sessions = sessions
        self._clock = clock
        self._loop = loop
        self._max_bytes = max_bytes
        self._max_parked = max_parked
        # At most one per connection: parking mutes it.
        self._parked: dict[Connection, FetchOperation] = {}
        self._ready: list[FetchOperation] = []

    @property
    def parked_count(self) -> int:
        """Return how many long polls wait."""
        return len(self._parked)

    def handle(self, connection: Connection, header: RequestHeader, frame: memoryview) -> Response | Pending:
        """Answer at once if there is enough, else park."""
        request = decode_fetch(frame, header.body_offset, header.api_version)
        version = header.api_version
        if request.replica_id >= 0:
            if connection.listener.internal:
                return self._replica_handler.handle(connection, header, request)
            # Only an authenticated inter-broker listener may move high watermarks (design section 5).
            return encode_fetch_response(
                version, header.correlation_id, int(ErrorCode.CLUSTER_AUTHORIZATION_FAILED), 0, []
            )
        try:
            session, targets = self._sessions.open(request, version, self._clock.monotonic())
        except KafkaError as error:
            return encode_fetch_response(version, header.correlation_id, int(error.code), 0, [])
        reads: list[RemoteRead] = []
        topics, byte_count, must_answer = self._read(request, session, targets, version, reads)
        if (
            byte_count >= request.min_bytes
            or must_answer
            or request.max_wait_ms <= 0
            or not targets
            or len(self._parked) >= self._max_parked
        ):
            return encode_rows(self._view, connection, version, header.correlation_id, session, topics)
        operation = FetchOperation(self, connection, header, request, session, targets)
        operation.reads = reads
        return self._park(operation, byte_count)

    # -- parking -------------------------------------------------------------------------------------------------------

    def _park(self, operation: FetchOperation, byte_count: int) -> Pending:
        operation.available = byte_count
        for read in operation.reads:
            read.waiters[operation] = None
        self._parked[operation.connection] = operation
        for partition in self._partitions(operation):
            partition.fetch_waiters[operation] = None
        operation.timer = self._loop.call_later(operation.request.max_wait_ms / 1000, self._answer, operation)
        return operation

    def ready(self, operation: FetchOperation) -> None:
        """Answer at the end of this turn of the loop, when everything of the burst has been written."""
        if not self._ready:
            self._loop.call_soon(self._answer_ready)
        self._ready.append(operation)

    def _answer_ready(self) -> None:
        ready, self._ready = self._ready, []
        for operation in ready:
            self._answer(operation)

    def _answer(self, operation: FetchOperation) -> None:
        if self._parked.get(operation.connection) is not operation:
            return
        self._unpark(operation)
        topics, _, _ = self._read(
            operation.request, operation.session, operation.targets, operation.version, [], final=True
        )
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

    def _unpark(self, operation: FetchOperation, *, lost: bool = False) -> None:
        del self._parked[operation.connection]
        for read in operation.reads:
            self.remote_reads.left(read, operation, lost=lost)
        for partition in self._partitions(operation):
            partition.fetch_waiters.pop(operation, None)
        if operation.timer is not None:
            operation.timer.cancel()

    def connection_lost(self, connection: Connection) -> None:
        """Forget the long poll of a connection that is gone."""
        self._replica_handler.connection_lost(connection)
        operation = self._parked.get(connection)
        if operation is not None:
            self._unpark(operation, lost=True)

    async def close(self) -> None:
        """Read nothing more from the bucket."""
        await self.remote_reads.close()

    def _partitions(self, operation: FetchOperation) -> list[Partition]:
        found = (self._replicas.find(target.key, target.index) for target in operation.targets)
        return [partition for partition in found if partition is not None]

    # -- reading -------------------------------------------------------------------------------------------------------

    def _read(
        self,
        request: FetchRequest,
        session: FetchSession | None,
        targets: list[FetchTarget],
        version: int,
        reads: list[RemoteRead],
        *,
        final: bool = False,
    ) -> tuple[dict[TopicKey, list[Row]], int, bool]:
        """Return response rows by topic, bytes of records, and whether an error or divergence forbids waiting.

        `reads` gets the reads from the bucket that are under way; `final`: nobody waits for them after this.
        """
        left = min(request.max_bytes, self._max_bytes)
        topics: dict[TopicKey, list[Row]] = {}
        by_key = self._replicas.by_key
        byte_count = 0
        must_answer = False
        incremental = session is not None and request.session_epoch > 0
        for target in targets:
            topic = by_key.get(target.key)
            partition = topic.partitions.get(target.index) if topic is not None else None
            records: object = NO_RECORDS
            try:
                if partition is None:
                    raise self._replicas.why_absent(target.key, target.index)
                other = self._check(partition, target, request.rack_id, version)
                if other >= 0:
                    must_answer = True
                    topics.setdefault(target.key, []).append(_go_to(partition, target, other))
                    continue
                high_watermark, tier, offset = partition.high_watermark, partition.tier, target.fetch_offset
                start_offset = partition.log.start_offset if tier is None else tier.log_start
                if target.last_fetched_epoch >= 0:
                    diverging = partition.diverging_epoch(target.last_fetched_epoch, offset)
                    if diverging is not None:
                        must_answer = True
                        topics.setdefault(target.key, []).append(_parted(partition, target, diverging))
                        continue
                if tier is not None and tier.holds(offset):
                    room = left if byte_count else None
                    data = self._read_remote(partition, target, request, reads, room, final=final)
                    if data is not None:
                        records = data
                        left -= len(data)
                        byte_count += len(data)
                        partition.bytes_out += len(data)
                elif left > 0 and offset != high_watermark:
                    found = partition.read(offset, min(left, target.max_bytes), min_one_batch=byte_count == 0)
                    if found is not None:
                        records = found
                        left -= found.length
                        byte_count += found.length
                        partition.bytes_out += found.length
            except KafkaError as error:
                must_answer = True
                topics.setdefault(target.key, []).append(error_row(self._replicas, target, error, partition))
                target.told_high_watermark = -1
                continue
            told = (target.told_high_watermark, target.told_start_offset)
            if incremental and records is NO_RECORDS and told == (high_watermark, start_offset):
                continue
            topics.setdefault(target.key, []).append(
                (target.index, 0, high_watermark, partition.last_stable_offset, start_offset, None, NO_REPLICA, records)
            )  # fmt: skip
        return topics, byte_count, must_answer

    def _read_remote(
        self,
        partition: Partition,
        target: FetchTarget,
        request: FetchRequest,
        reads: list[RemoteRead],
        room: int | None,
        *,
        final: bool,
    ) -> bytes | memoryview | None:
        """Return what the bucket holds from an offset on, if it has arrived; ask for it otherwise. Raises KafkaError.

        `room`: bytes that the answer can still take; None for at least one batch, whatever its size.
        """
        assert partition.tier is not None, "its log begins in the bucket"
        remote = partition.tier.remote
        if remote is None:
            return None  # the manifest is not loaded yet: nobody can say more
        max_bytes = min(request.max_bytes, self._max_bytes, target.max_bytes)
        may_start = len(reads) < MAX_PER_FETCH
        read = self.remote_reads.ask(partition, remote, target.fetch_offset, max_bytes, may_start=may_start)
        if read is None:
            return None
        if read.error is not None:
            self.remote_reads.taken(read)
            raise read.error
        if read.data is None:
            if final and self.remote_reads.is_failing:
                raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "the bucket cannot be read")
            reads.append(read)
            return None
        if room is not None and len(read.data) > room:
            return None
        self.remote_reads.taken(read)
        return read.data

    def _check(self, partition: Partition, target: FetchTarget, rack: str, version: int) -> int:
        """Return the replica that the consumer should ask instead, -1 for this one. Raises KafkaError."""
        if partition.is_leader:
            partition.check_leader(target.current_leader_epoch)
            return (
                self._nearer_replica(partition, rack, target.fetch_offset)
                if self._rack_aware and rack
                else -1
            )
        if version < _FIRST_WITH_RACK:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        partition.check_reader(target.current_leader_epoch)
        # Only the leader knows the bucket.
        return (
            partition.leader_id
            if partition.tier is not None and partition.tier.holds(target.fetch_offset)
            else -1
        )

    def _nearer_replica(self, partition: Partition, rack: str, offset: int) -> int:
        """Return the in-sync follower in the consumer's rack that has what it asks for, -1 for the leader itself.

        Kafka's `RackAwareReplicaSelector`: of several the one that has most.
        """
        leadership, tier = partition.leadership, partition.tier
        if leadership is None or (tier is not None and offset < tier.tiered_through):
            return -1  # what may be deleted locally, a follower may not have
        leases = self._view.leases
        own = leases.get(partition.leader_id)
        if own is not None and own.rack == rack:
            return -1
        best, best_end = -1, -1
        for broker_id, generation in leadership.state.isr:
            lease, follower = leases.get(broker_id), leadership.followers.get(broker_id)
            if (
                lease is not None
                and lease.held
                and lease.rack == rack
                and follower is not None
                and follower.generation == generation
                and follower.log_start <= offset <= follower.log_end
                and follower.log_end > best_end
            ):
                best, best_end = broker_id, follower.log_end
        return best


def _go_to(partition: Partition, target: FetchTarget, replica: int) -> Row:
    """Return the row that sends a consumer to another replica; it carries no records (KIP-392)."""
    high_watermark, start_offset = partition.high_watermark, partition.log_start_offset
    return (target.index, 0, high_watermark, high_watermark, start_offset, None, replica, NO_RECORDS)


def _parted(partition: Partition, target: FetchTarget, diverging: tuple[int, int]) -> Row:
    """Return the row that tells a consumer where what it read parts from this log (KIP-595)."""
    high_watermark, start_offset = partition.high_watermark, partition.log_start_offset
    return (
        target.index, 0, high_watermark, high_watermark, start_offset, None, NO_REPLICA, NO_RECORDS, diverging, None, None
    )  # fmt: skip
