"""What cold handlers may ask of the broker that runs them.

`server.broker` implements `BrokerApi`, tests fake it. Handlers see nothing else of the broker: no sockets, no
files, no replica manager. Everything runs on the event loop's thread.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from strandline_broker.cluster.store import ClusterStore
from strandline_broker.cluster.view import ClusterView
from strandline_broker.coordinator.groups import GroupCoordinator
from strandline_broker.errors import ErrorCode
from strandline_broker.seams.clock import Clock
from strandline_broker.wire.registry import Registry

# A record found by time: its timestamp (ms), offset, and leader epoch (-1 where it is not known).
Found = tuple[int, int, int]


class LogDirReplica(NamedTuple):
    """A partition's log in a directory; `offset_lag` is what it lacks of the high watermark, -1 if unknown."""

    topic: str
    partition: int
    size_bytes: int
    offset_lag: int


class LogDir(NamedTuple):
    """A directory with logs. `error` is KAFKA_STORAGE_ERROR when it cannot be used; bytes are -1 then."""

    path: str
    error: ErrorCode
    total_bytes: int
    usable_bytes: int
    replicas: Sequence[LogDirReplica]


class Producer(Protocol):
    """What a partition remembers of one producer; numbers are -1 where there are none."""

    @property
    def producer_id(self) -> int:
        """Its id."""
        ...

    @property
    def epoch(self) -> int:
        """The epoch of its last batch."""
        ...

    @property
    def last_sequence(self) -> int:
        """Sequence of its last record."""
        ...

    @property
    def last_timestamp(self) -> int:
        """Largest timestamp of its last batch, in milliseconds."""
        ...

    @property
    def coordinator_epoch(self) -> int:
        """Epoch of the transaction coordinator that wrote its last marker."""
        ...

    @property
    def txn_first_offset(self) -> int:
        """First offset of its open transaction."""
        ...


class PartitionHandle(Protocol):
    """A partition that this broker leads."""

    @property
    def leader_epoch(self) -> int:
        """Epoch in which this broker leads it."""
        ...

    @property
    def leader_epoch_start_offset(self) -> int:
        """Log end when the current epoch began; below it the high watermark may not be known yet."""
        ...

    @property
    def log_start_offset(self) -> int:
        """First offset that can be read, in whatever tier."""
        ...

    @property
    def earliest_offset(self) -> int:
        """The log start as clients may be told. Raises KafkaError(LEADER_NOT_AVAILABLE) while it is not known."""
        ...

    @property
    def local_log_start_offset(self) -> int:
        """First offset on a local disk; the log start without tiering."""
        ...

    @property
    def highest_tiered_offset(self) -> int:
        """Last offset in the bucket, or -1. Raises KafkaError(LEADER_NOT_AVAILABLE) while that is not known."""
        ...

    @property
    def earliest_pending_upload_offset(self) -> int:
        """First offset that is to go to the bucket, or -1. Raises KafkaError(LEADER_NOT_AVAILABLE)."""
        ...

    @property
    def high_watermark(self) -> int:
        """First offset that consumers do not see yet."""
        ...

    @property
    def last_stable_offset(self) -> int:
        """First offset that read-committed consumers do not see yet."""
        ...

    @property
    def log_end_offset(self) -> int:
        """Offset of the next record."""
        ...

    @property
    def producers(self) -> Iterable[Producer]:
        """The producers that are remembered for checking sequences and for open transactions."""
        ...

    def epoch_at(self, offset: int) -> int:
        """Return the leader epoch in which the record at `offset` was written, or -1."""
        ...

    async def offset_for_timestamp(self, timestamp: int, end: int) -> Found | None:
        """Return the first record whose timestamp is not below `timestamp` (ms), if its offset is below `end`.

        Raises KafkaError LEADER_NOT_AVAILABLE, KAFKA_STORAGE_ERROR where the bucket has to be read and cannot be.
        """
        ...

    async def max_timestamp(self, end: int) -> Found | None:
        """Return the first record with the highest timestamp among those below `end`, or None. Raises as above."""
        ...

    def epoch_end_offset(self, epoch: int) -> tuple[int, int]:
        """Return (largest epoch not above `epoch`, its end offset), or (-1, -1) (OffsetForLeaderEpoch)."""
        ...

    async def delete_records(self, before_offset: int) -> int:
        """Raise the log start to `before_offset` and return the low watermark once all live replicas have it.

        Raises KafkaError OFFSET_OUT_OF_RANGE beyond the high watermark, POLICY_VIOLATION where
        `cleanup.policy` does not contain `delete`, NOT_LEADER_OR_FOLLOWER, KAFKA_STORAGE_ERROR.
        """
        ...


class BrokerSettings(Protocol):
    """The part of the broker's configuration that handlers use (`server.config.BrokerConfig`)."""

    @property
    def broker_id(self) -> int:
        """Number of this broker."""
        ...

    @property
    def auto_create_topics_enable(self) -> bool:
        """Whether unknown topics are created when a client asks for them."""
        ...

    @property
    def num_partitions(self) -> int:
        """Partitions of a topic created without a number."""
        ...

    @property
    def default_replication_factor(self) -> int:
        """Replicas of a topic created without a number."""
        ...

    @property
    def request_timeout_max_ms(self) -> int:
        """Longest time that a request may wait."""
        ...

    def kafka_configs(self) -> Mapping[str, tuple[str | None, str, str, str | None]]:
        """Return {name: (value, type name, documentation, default)} for DescribeConfigs."""
        ...


class BrokerApi(Protocol):
    """One broker, as its handlers see it."""

    @property
    def config(self) -> BrokerSettings:
        """This broker's configuration."""
        ...

    @property
    def cluster_id(self) -> str:
        """Id of the cluster, as clients are told it."""
        ...

    @property
    def clock(self) -> Clock:
        """Time."""
        ...

    @property
    def rng(self) -> random.Random:
        """Randomness."""
        ...

    @property
    def store(self) -> ClusterStore:
        """Where admin requests are written as intent."""
        ...

    @property
    def view(self) -> ClusterView:
        """The newest known cluster state."""
        ...

    @property
    def registry(self) -> Registry:
        """The APIs that this broker serves."""
        ...

    @property
    def groups(self) -> GroupCoordinator:
        """The groups that this broker coordinates."""
        ...

    def partition(self, topic: str, index: int, current_leader_epoch: int = -1) -> PartitionHandle:
        """Return a partition that this broker leads.

        Raises KafkaError UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER, KAFKA_STORAGE_ERROR; and, with a
        `current_leader_epoch` of 0 or more that is not the leader's, FENCED_LEADER_EPOCH (older) or
        UNKNOWN_LEADER_EPOCH (newer), KIP-320.
        """
        ...

    async def describe_log_dirs(self) -> Sequence[LogDir]:
        """Return the directories that hold logs, with every replica in them."""
        ...

    async def allocate_producer_id(self) -> int:
        """Return a producer id that nobody was given before.

        Raises KafkaError COORDINATOR_LOAD_IN_PROGRESS (retriable) while none can be had.
        """
        ...
