"""A leader whose partition is recovering: what it does not do before it may, and how its log begins anew."""

from __future__ import annotations

from typing import Any, cast

import pytest
from tests.unit.replica.support import state_of
from tests.unit.replica.tiered_support import NOW_MS, PER_BATCH, Waiter, append, led

from strandline_broker.cluster.model import ReplicaRef
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.producer_state import ProducerEntry
from strandline_broker.replica.partition import Partition
from strandline_broker.replica.recovery import Recovery, recovery_of
from strandline_broker.replica.remote import TailState
from strandline_broker.wire.batch import Record, build_batch

OWN = ReplicaRef(0, 1)


def lead(
    partition: Partition, recovery: Recovery, *isr: int, epoch: int = 2, recovering: bool = True
) -> None:
    state = state_of(*((broker_id, 1) for broker_id in (isr or (0,))), epoch=epoch, recovering=recovering)
    partition.lead(OWN, state, 1, 0.0, recovery=recovery)


def to_do(partition: Partition) -> Recovery:
    return partition.recovery


def may_tell(partition: Partition) -> bool:
    return partition.has_recovered


def refused(partition: Partition) -> ErrorCode:
    batch = build_batch([Record(value=b"v")])
    with pytest.raises(KafkaError) as caught:
        partition.stage(cast("Any", Waiter()), [0] * 8, memoryview(bytearray(batch)), NOW_MS)
    return caught.value.code


@pytest.mark.parametrize(
    ("recovering", "has_bucket", "is_tiered", "has_group_offsets", "expected"),
    [
        (False, True, True, False, Recovery.NONE),
        (True, True, True, False, Recovery.LOG),
        (True, False, True, False, Recovery.NONE),
        (True, True, False, False, Recovery.NONE),
        (True, True, False, True, Recovery.OFFSETS),
        (True, False, False, True, Recovery.NONE),
    ],
)
def test_what_is_to_be_done(
    recovering: bool, has_bucket: bool, is_tiered: bool, has_group_offsets: bool, expected: Recovery
) -> None:
    state = state_of((0, 1), recovering=recovering)
    found = recovery_of(
        state, has_bucket=has_bucket, is_tiered=is_tiered, has_group_offsets=has_group_offsets
    )
    assert found is expected


def test_a_leader_that_has_to_recover_its_log_serves_and_takes_nothing() -> None:
    partition = led(5)
    lead(partition, Recovery.LOG, 0, 1)
    end = partition.log.end_offset
    assert refused(partition) is ErrorCode.NOT_LEADER_OR_FOLLOWER
    for epoch in (-1, 2):
        with pytest.raises(KafkaError) as caught:
            partition.check_leader(epoch)
        assert caught.value.code is ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert partition.log.end_offset == end
    partition.recovered()
    partition.check_leader(2)
    append(partition, 5, 1)
    assert partition.log.end_offset == end + PER_BATCH


def test_its_high_watermark_stands_still_until_then() -> None:
    partition = led(5)
    partition.high_watermark = 6
    lead(partition, Recovery.LOG)
    partition.synced()
    partition.advance_high_watermark()
    assert partition.high_watermark == 6
    partition.recovered()
    assert partition.high_watermark == partition.log.end_offset


@pytest.mark.parametrize("recovery", [Recovery.NONE, Recovery.OFFSETS])
def test_a_leader_that_has_not_takes_records_at_once(recovery: Recovery) -> None:
    partition = led(5)
    lead(partition, recovery)
    partition.check_leader(2)
    append(partition, 5, 1)
    assert partition.high_watermark == partition.log.end_offset == 6 * PER_BATCH


def test_within_an_epoch_a_recovery_only_ends() -> None:
    partition = led(5)
    told: list[str] = []
    partition.on_recovered = lambda: told.append("recovered")
    lead(partition, Recovery.LOG)
    lead(partition, Recovery.LOG)
    assert to_do(partition) is Recovery.LOG
    lead(partition, Recovery.NONE, recovering=False)
    assert to_do(partition) is Recovery.NONE
    lead(partition, Recovery.LOG)
    assert to_do(partition) is Recovery.NONE
    lead(partition, Recovery.LOG, epoch=3)
    assert to_do(partition) is Recovery.LOG
    partition.resign(1, 4)
    assert to_do(partition) is Recovery.NONE
    assert told == ["recovered"]


def test_the_store_may_be_told_when_everybody_in_sync_has_what_was_recovered() -> None:
    partition = led(5)
    lead(partition, Recovery.LOG, 0, 1)
    assert not may_tell(partition)
    partition.start_over(40)
    partition.recovered()
    assert not may_tell(partition), "nothing is known of broker 1"
    partition.follower_fetched(1, 1, 12, 0, 1.0)
    assert not may_tell(partition)
    partition.follower_fetched(1, 1, 40, 40, 2.0)
    assert may_tell(partition)
    lead(partition, Recovery.NONE, 0, 1, recovering=False)
    assert not may_tell(partition), "it knows"


def test_the_store_is_not_told_while_others_may_lead_who_were_in_sync_once() -> None:
    partition = led(5)
    told: list[int] = []
    partition.on_recovered = lambda: told.append(partition.high_watermark)
    alone = state_of((0, 1), epoch=2, replicas=(0, 1), recovering=True)
    partition.lead(OWN, alone, 2, 0.0, recovery=Recovery.LOG)
    partition.start_over(40)
    partition.recovered()
    partition.follower_fetched(1, 1, 40, 40, 1.0)
    assert not may_tell(partition), "below its minimum: who was in sync before stays eligible"
    assert not told
    partition.lead(OWN, state_of((0, 1), (1, 1), epoch=2, partition_epoch=1, recovering=True), 2, 2.0)
    assert may_tell(partition)
    assert told == [40]


def test_a_leader_starts_over_in_its_epoch_and_knows_what_came_before() -> None:
    partition = led(5)
    lead(partition, Recovery.LOG)
    partition.start_over(40, TailState([(0, 0), (1, 30)], [ProducerEntry(9, 3, last_timestamp=NOW_MS)]))
    log, leadership = partition.log, partition.leadership
    assert leadership is not None
    assert (log.start_offset, log.end_offset, partition.high_watermark) == (40, 40, 40)
    assert leadership.epoch_start == 40
    assert log.epochs.entries[-1] == (2, 40)
    assert [entry.producer_id for entry in log.producers] == [9]
    assert partition.diverging_epoch(1, 45) == (1, 40), "a follower that has more is cut there"
    partition.recovered()
    append(partition, 0, 1)
    assert partition.high_watermark == 40 + PER_BATCH
