"""Produce (key 0), versions 3-13; 0-2 are advertised and refused (KAFKA-18659).

Differences from Kafka: batches stay opaque, so records inside a batch are not looked at unless the topic asks for it
(recompression). Transactional batches are refused until the transaction APIs are advertised. Internal topics are closed to
every client; Kafka lets one in that calls itself `__admin_client`.

Version notes: v10 adds the current leader to errors (KIP-951); v13 names topics by id only.

When the disk fills with what may not be deleted yet, clients are throttled, then refused (`replica.disk_pressure`); the
cluster's own records do not come this way.

How a burst works: each frame *stages* its batches (validation, sequence check, offsets patched in place); when all
frames of one socket read are staged, every touched partition is written with one system call, and then acknowledged
at once (page cache) or when the flusher reports its sync.
"""

from __future__ import annotations

import logging
from math import ceil
from typing import TYPE_CHECKING, cast

from strandline_broker.api.support.brokers import leader_endpoints
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.net.handler import Pending
from strandline_broker.replica.disk_pressure import Pressure
from strandline_broker.replica.waiters import ROW_APPEND_TIME, ROW_BASE_OFFSET, ROW_ERROR, ROW_LEADER
from strandline_broker.wire.produce import decode_produce, encode_produce_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from strandline_broker.api.support.brokers import BrokerAddress
    from strandline_broker.cluster.view import ClusterView
    from strandline_broker.net.connection import Connection
    from strandline_broker.replica.disk_pressure import DiskPressure
    from strandline_broker.replica.manager import ReplicaManager
    from strandline_broker.replica.partition import Partition
    from strandline_broker.seams.clock import Clock
    from strandline_broker.wire.header import RequestHeader

logger = logging.getLogger(__name__)


class ProduceOperation(Pending):
    """One produce request from its staging to its answer."""

    __slots__ = (
        "_waiting",
        "acks",
        "correlation_id",
        "deadline",
        "node_endpoints",
        "partitions",
        "patient",
        "throttle_ms",
        "topics",
        "unsettled",
        "version",
    )

    def __init__(self, version: int, correlation_id: int, acks: int, deadline: float) -> None:
        super().__init__()
        self._waiting: dict[ProduceOperation, None] | None = None
        self.version = version
        self.correlation_id = correlation_id
        self.acks = acks
        self.patient = False
        self.deadline = deadline
        self.throttle_ms = 0
        self.topics: list[tuple[str | bytes, list[list[object]]]] = []
        self.node_endpoints: list[BrokerAddress] = []
        self.partitions: list[Partition] = []
        # One more than the partitions under way, so that nothing completes while the request is still being staged.
        self.unsettled = 1

    def partition_done(self, row: list[object]) -> None:
        """Count down; the last partition sends the answer."""
        self.unsettled -= 1
        if self.unsettled == 0:
            self._answer()

    def wait_in(self, waiting: dict[ProduceOperation, None]) -> None:
        """Be listed among the operations whose time may run out."""
        self._waiting = waiting
        waiting[self] = None

    def _answer(self) -> None:
        if self._waiting is not None:
            self._waiting.pop(self, None)
        if self.acks != 0:
            self.complete(
                encode_produce_response(
                    self.version, self.correlation_id, self.topics, self.throttle_ms, self.node_endpoints
                )
            )


class ProduceHandler:
    """Takes produce requests of all connections of one event loop."""

    def __init__(
        self,
        replicas: ReplicaManager,
        view: ClusterView,
        clock: Clock,
        request_sync: Callable[[Partition], None],
        max_timeout_ms: int,
        pressure: DiskPressure,
    ) -> None:
        self._replicas = replicas
        self._view = view
        self._clock = clock
        self._request_sync = request_sync
        self._max_timeout_ms = max_timeout_ms
        self._pressure = pressure
        # Of the current burst, which is one connection's, while there is pressure.
        self._pressed: Connection | None = None
        self._pressed_bytes = 0
        self._dirty: list[Partition] = []
        self._burst_operations: list[ProduceOperation] = []
        self._waiting: dict[ProduceOperation, None] = {}

    def handle(self, connection: Connection, header: RequestHeader, frame: memoryview) -> Pending | None:
        """Stage one request; `end_of_burst` writes it."""
        request = decode_produce(frame, header.body_offset, header.api_version)
        acks = request.acks
        operation = ProduceOperation(
            header.api_version,
            header.correlation_id,
            acks,
            self._clock.monotonic() + min(max(request.timeout_ms, 0), self._max_timeout_ms) / 1000,
        )
        now_ms = self._clock.now_ms()
        refused = False
        pressure = self._pressure
        if pressure.level is not Pressure.FREE:
            self._pressed = connection
            self._pressed_bytes += len(frame)
        by_key = self._replicas.by_key
        for key, parts in request.topics:
            rows: list[list[object]] = []
            operation.topics.append((key, rows))
            topic = by_key.get(key)
            for index, records in parts:
                row: list[object] = [index, 0, -1, -1, -1]
                rows.append(row)
                partition = topic.partitions.get(index) if topic is not None else None
                try:
                    if partition is None or topic is None:
                        raise self._replicas.why_absent(key, index)
                    if topic.internal:
                        raise KafkaError(
                            ErrorCode.INVALID_TOPIC_EXCEPTION,
                            "only the cluster writes to its internal topics",
                        )
                    if acks not in (-1, 0, 1):
                        raise KafkaError(
                            ErrorCode.INVALID_REQUIRED_ACKS, f"acks={acks}: use -1 (all), 0 or 1"
                        )
                    if records is None:
                        raise KafkaError(ErrorCode.INVALID_RECORD, "no records for this partition")
                    if pressure.refuses:
                        partition.excuse_gaps()
                        raise pressure.refusal()
                    first = partition.stage(operation, row, records, now_ms)
                except KafkaError as error:
                    refused = True
                    self._refuse(row, error, partition)
                    if error.code is ErrorCode.NOT_LEADER_OR_FOLLOWER:
                        self._name_leader(connection, operation, row, key)
                    continue
                operation.unsettled += 1
                operation.partitions.append(partition)
                if first:
                    self._dirty.append(partition)
        if acks == 0:
            if refused:
                # Kafka's only way to tell a client that does not wait for answers.
                connection.close("an acks=0 produce request was refused")
            operation.unsettled = 0
            return None
        self._burst_operations.append(operation)
        return operation

    def _refuse(self, row: list[object], error: KafkaError, partition: Partition | None) -> None:
        row[ROW_ERROR] = int(error.code)
        row[ROW_BASE_OFFSET] = -1
        row[ROW_APPEND_TIME] = -1
        row.extend((error.message or None, (), None))
        if partition is not None and error.code is ErrorCode.CORRUPT_MESSAGE:
            logger.warning("refused a batch for %s-%d: %s", partition.topic, partition.index, error)

    def _name_leader(
        self, connection: Connection, operation: ProduceOperation, row: list[object], key: str | bytes
    ) -> None:
        """Tell the client where to go instead (KIP-951)."""
        leader = self._replicas.current_leader(key, cast("int", row[0]))
        if leader is None or leader[0] < 0:
            return
        row[ROW_LEADER] = leader
        known = {address.broker_id for address in operation.node_endpoints}
        if leader[0] not in known:
            operation.node_endpoints += leader_endpoints(self._view, connection.listener.name, (leader[0],))

    def end_of_burst(self) -> None:
        """Write what the burst staged and answer what needs no waiting."""
        if self._dirty:
            dirty = self._dirty
            self._dirty = []
            for partition in dirty:
                if partition.commit():
                    self._request_sync(partition)
        throttle_ms = self._throttle() if self._pressed is not None else 0
        if self._burst_operations:
            operations = self._burst_operations
            self._burst_operations = []
            for operation in operations:
                operation.throttle_ms = throttle_ms
                operation.partition_done(_NO_ROW)
                if operation.unsettled:
                    operation.wait_in(self._waiting)

    def _throttle(self) -> int:
        """Let the connection of this burst pause, if the disk wants it; return for how many milliseconds."""
        connection, byte_count = self._pressed, self._pressed_bytes
        self._pressed, self._pressed_bytes = None, 0
        assert connection is not None, "asked for only if there is one"
        pause_s = self._pressure.pause_s(byte_count, self._clock.monotonic())
        if pause_s > 0:
            connection.throttle(pause_s)
        return ceil(1000 * pause_s)

    def expire(self) -> None:
        """Answer REQUEST_TIMED_OUT where the time is up. Called a few times per second while anything may wait."""
        now = self._clock.monotonic()
        for operation in list(self._waiting):
            if operation.deadline <= now:
                for partition in operation.partitions:
                    for row in partition.pending_appends.forget(operation):
                        row[ROW_ERROR] = int(ErrorCode.REQUEST_TIMED_OUT)
                        row[ROW_BASE_OFFSET] = -1
                        operation.partition_done(row)


_NO_ROW: list[object] = []
