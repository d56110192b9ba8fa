"""A leader that is new, or refused what came before, answers a gap in a sequence so that clients retry in order."""

from __future__ import annotations

import pytest
from tests.unit.replica.support import lead_alone, state_of

from strandline_broker.cluster.model import ReplicaRef
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.replica.partition import NEW_LEADER_MS, FlushMode, Partition
from strandline_broker.replica.waiters import ROW_ERROR
from strandline_broker.seams.sim_disk import SimDisk
from strandline_broker.wire.batch import Record, build_batch

NOW_MS = 1_700_000_000_000


class Waiter:
    """A produce request."""

    acks = -1
    patient = False

    def partition_done(self, row: list[object]) -> None:
        """Take the answer."""


def _stage(partition: Partition, sequence: int, now_ms: int) -> list[object]:
    batch = build_batch([Record(value=b"v")], producer_id=7, producer_epoch=0, base_sequence=sequence)
    row: list[object] = [0] * 8
    partition.stage(Waiter(), row, memoryview(bytearray(batch)), now_ms)
    return row


def _partition(disk: SimDisk | None = None) -> Partition:
    log = Log.open(disk or SimDisk(), "t-0", LogConfig(), now_ms=NOW_MS, clean=False)
    return Partition("t", bytes(16), 0, log, FlushMode.FSYNC, 0)


@pytest.mark.parametrize(
    ("after_ms", "code"),
    [
        (0, ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (NEW_LEADER_MS - 1, ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (NEW_LEADER_MS, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER),
    ],
)
def test_a_gap_is_named_only_by_a_leader_of_some_standing(after_ms: int, code: ErrorCode) -> None:
    partition = _partition()
    with pytest.raises(KafkaError) as refused:
        _stage(partition, 0, NOW_MS)
    assert refused.value.code is ErrorCode.NOT_LEADER_OR_FOLLOWER
    lead_alone(partition, 1)
    _stage(partition, 0, NOW_MS)
    with pytest.raises(KafkaError) as refused:
        _stage(partition, 3, NOW_MS + after_ms)
    assert refused.value.code is code
    _stage(partition, 1, NOW_MS + after_ms)


def test_every_new_epoch_starts_the_time_again() -> None:
    partition = _partition()
    lead_alone(partition, 1)
    _stage(partition, 0, NOW_MS)
    lead_alone(partition, 2)
    later_ms = NOW_MS + 10 * NEW_LEADER_MS
    _stage(partition, 1, later_ms)
    with pytest.raises(KafkaError) as refused:
        _stage(partition, 5, later_ms + 1)
    assert refused.value.code is ErrorCode.NOT_LEADER_OR_FOLLOWER


LATER_MS = NOW_MS + 10 * NEW_LEADER_MS


def _gap_is(code: ErrorCode, partition: Partition, now_ms: int) -> bool:
    with pytest.raises(KafkaError) as refused:
        _stage(partition, 5, now_ms)
    return refused.value.code is code


def test_who_refuses_for_want_of_replicas_excuses_the_gaps_that_follow() -> None:
    partition = _partition()
    alone, pair = state_of((0, 1), replicas=(0, 1)), state_of((0, 1), (1, 1), partition_epoch=1)
    partition.lead(ReplicaRef(0, 1), alone, 1, 0.0)
    _stage(partition, 0, NOW_MS)
    assert _gap_is(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, partition, LATER_MS)
    partition.lead(ReplicaRef(0, 1), alone, 2, 0.0)
    assert _gap_is(ErrorCode.NOT_ENOUGH_REPLICAS, partition, LATER_MS)
    partition.lead(ReplicaRef(0, 1), pair, 2, 0.0)
    assert _gap_is(ErrorCode.NOT_LEADER_OR_FOLLOWER, partition, LATER_MS + NEW_LEADER_MS)
    assert _gap_is(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, partition, LATER_MS + 2 * NEW_LEADER_MS)


def test_who_refuses_for_want_of_disk_space_excuses_the_gaps_that_follow() -> None:
    disk = SimDisk()
    partition = _partition(disk)
    lead_alone(partition, 1)
    _stage(partition, 0, NOW_MS)
    partition.commit()
    capacity, disk.capacity = disk.capacity, 0
    row = _stage(partition, 1, LATER_MS)
    partition.commit()
    assert row[ROW_ERROR] is ErrorCode.KAFKA_STORAGE_ERROR
    disk.capacity = capacity
    assert _gap_is(ErrorCode.NOT_LEADER_OR_FOLLOWER, partition, LATER_MS)
    _stage(partition, 1, LATER_MS)
    assert _gap_is(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, partition, LATER_MS + NEW_LEADER_MS)


def test_other_refusals_stay_what_they_are() -> None:
    partition = _partition()
    lead_alone(partition, 1)
    with pytest.raises(KafkaError) as refused:
        partition.stage(Waiter(), [0] * 8, memoryview(bytearray(61)), NOW_MS)
    assert refused.value.code is ErrorCode.INVALID_RECORD


def test_a_gap_behind_a_batch_that_was_not_looked_at_is_excused() -> None:
    partition = _partition()
    lead_alone(partition, 1)
    _stage(partition, 0, NOW_MS)
    assert _gap_is(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, partition, LATER_MS)
    partition.excuse_gaps()
    assert _gap_is(ErrorCode.NOT_LEADER_OR_FOLLOWER, partition, LATER_MS)
    _stage(partition, 1, LATER_MS)
