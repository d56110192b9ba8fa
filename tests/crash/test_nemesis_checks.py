"""The checkers behind the nemesis find what they are there for, and nothing in what is sound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.crash.ack_watch import AckWatch
from tests.crash.cluster_state import Snapshot
from tests.crash.history import UNREPLICATED, Ack, History, Key, Read, Send, check
from tests.crash.replica_logs import ReplicaLog, compare, compare_all, read_batches
from tests.crash.seen_records import SeenRecords
from tests.crash.storm_check import Place

from strandline_broker.cluster.model import BrokerLease, BrokerPhase, PartitionState, ReplicaRef
from strandline_broker.log.checkpoints import HIGH_WATERMARKS, encode_offsets
from strandline_broker.wire.batch import Record, build_batch, set_base_offset, set_leader_epoch

PLACE = Place("t", 0)


def _key(number: int) -> Key:
    return Key("p", number)


# -- acks=1 ------------------------------------------------------------------------------------------------------------


def _lossy() -> History:
    """Two records, of which the first was acknowledged by a leader that nobody heard of again."""
    history = History()
    history.sends = [Send(_key(0), 0, 0.0), Send(_key(1), 0, 1.0)]
    history.acks = [Ack(_key(0), 0, 0, 0.5), Ack(_key(1), 0, 0, 1.5)]
    history.final = [Read(0, 0, _key(1))]
    return history


def test_records_that_only_a_leader_acknowledged_may_go_with_it() -> None:
    assert not check(_lossy()).ok
    verdict = check(_lossy(), tolerated=UNREPLICATED)
    assert verdict.ok
    assert verdict.passed_over == {"lost": 1, "one offset for two": 1, "offset went back": 1}


def test_what_consumers_saw_must_stay_with_acks_1_too() -> None:
    history = _lossy()
    history.polls["r"] = [Read(0, 0, _key(0))]
    assert dict(check(history, tolerated=UNREPLICATED).counts) == {"read, then changed": 1}


# -- readers that read again -------------------------------------------------------------------------------------------


def _seen(*passes: list[tuple[int, int]]) -> SeenRecords:
    seen = SeenRecords()
    for number, reads in enumerate(passes):
        walk = seen.begin(f"pass {number}")
        for offset, record in reads:
            walk.take(Read(0, offset, _key(record)))
    return seen


def test_passes_that_agree_are_sound() -> None:
    seen = _seen([(0, 0), (1, 1)], [(0, 0), (1, 1), (2, 2)], [(2, 2)])
    seen.check([Read(0, offset, _key(offset)) for offset in range(4)])
    assert seen.counts == {}
    assert seen.reads == 6


@pytest.mark.parametrize(
    ("second", "rule"),
    [
        ([(0, 0), (1, 7)], "two values at one offset"),
        ([(0, 0), (2, 2)], "poll skipped"),
        ([(1, 1), (0, 0)], "poll went back"),
        ([(1, 1), (1, 1)], "poll went back"),
    ],
)
def test_a_pass_that_contradicts_is_found(second: list[tuple[int, int]], rule: str) -> None:
    assert set(_seen([(0, 0), (1, 1)], second).counts) == {rule}


def test_damaged_records_are_found() -> None:
    seen = SeenRecords()
    seen.begin("r").take(Read(0, 0, None))
    assert set(seen.counts) == {"damaged"}


@pytest.mark.parametrize(
    ("final", "rule"), [([0], "read, then gone"), ([0, 7], "read, then changed")], ids=["gone", "changed"]
)
def test_what_was_seen_must_be_in_the_log_in_the_end(final: list[int], rule: str) -> None:
    seen = _seen([(0, 0), (1, 1)])
    seen.check([Read(0, offset, _key(number)) for offset, number in enumerate(final)])
    assert set(seen.counts) == {rule}


# -- times without writes ----------------------------------------------------------------------------------------------


def test_writes_are_back_when_something_sent_after_the_fault_is_acknowledged() -> None:
    history = History()
    watch = AckWatch(history)
    history.sends = [Send(_key(0), 0, 0.9), Send(_key(1), 1, 0.9)]
    history.acks = [Ack(_key(0), 0, 0, 1.1), Ack(_key(1), 1, 0, 1.2)]
    watch.update()
    assert watch.recovered_at([0, 1], since=1.0) is None, "those had been sent before"
    assert watch.recovered_at([0, 1], since=0.5) == 1.2
    history.sends += [Send(_key(2), 0, 2.0), Send(_key(3), 1, 2.0)]
    history.acks += [Ack(_key(2), 0, 1, 3.0)]
    watch.update()
    assert watch.recovered_at([0, 1], since=1.0) is None
    assert watch.recovered_at([0], since=1.0) == 3.0
    history.acks += [Ack(_key(3), 1, 1, 5.0)]
    watch.update()
    assert watch.recovered_at([0, 1], since=1.0) == 5.0
    assert watch.longest_gap([0], since=1.0, until=3.5) == pytest.approx(1.9)
    assert watch.longest_gap([0, 1], since=1.0, until=5.5) == pytest.approx(3.8)
    assert watch.recovered_at([], since=9.0) == 9.0


# -- replicas' files ---------------------------------------------------------------------------------------------------


def _batch(offset: int, *values: bytes, epoch: int = 0) -> bytes:
    batch = bytearray(build_batch([Record(value=value) for value in values]))
    set_base_offset(batch, offset)
    set_leader_epoch(batch, epoch)
    return bytes(batch)


SOUND = _batch(0, b"a", b"b") + _batch(2, b"c", epoch=1)


def _log(data: bytes) -> ReplicaLog:
    log = ReplicaLog()
    read_batches(data, "t-0/0.log", log)
    return log


def test_equal_replicas_are_sound() -> None:
    logs = {broker: _log(SOUND) for broker in range(3)}
    assert [log.end for log in logs.values()] == [3, 3, 3]
    assert compare(PLACE, logs, 3, compacted=False) == []


def test_above_the_high_watermark_replicas_may_differ() -> None:
    logs = {0: _log(SOUND), 1: _log(SOUND + _batch(3, b"d", epoch=1)), 2: _log(SOUND[:])}
    assert compare(PLACE, logs, 3, compacted=False) == []


def test_a_replica_may_start_later() -> None:
    assert compare(PLACE, {0: _log(SOUND), 1: _log(_batch(2, b"c", epoch=1))}, 3, compacted=False) == []


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (_batch(0, b"a", b"x") + _batch(2, b"c", epoch=1), "broker 0 has 0..1 of epoch 0"),
        (_batch(0, b"a", b"b") + _batch(2, b"c", epoch=2), "2..2 of epoch 2"),
        (_batch(0, b"a", b"b"), "ends at 2, below the high watermark 3"),
        (SOUND[:-1], "no batch"),
        (SOUND[:-1] + b"?", "wrong checksum, offset 2"),
        (SOUND + _batch(2, b"c", epoch=1), "offset 2 after 2"),
        (SOUND + _batch(3, b"d"), "epoch 0 after 1"),
        (SOUND + b"\0" * 20, "20 bytes are no batch"),
    ],
)
def test_replicas_that_contradict_are_found(other: bytes, text: str) -> None:
    found = compare(PLACE, {0: _log(SOUND), 1: _log(other)}, 3, compacted=False)
    assert any(text in finding for finding in found), found


def test_replicas_that_compact_are_judged_one_by_one() -> None:
    compacted = _batch(2, b"c", epoch=1)
    assert compare(PLACE, {0: _log(SOUND), 1: _log(compacted)}, 4, compacted=True) == []
    assert compare(PLACE, {0: _log(SOUND), 1: _log(compacted[:-1])}, 4, compacted=True) != []


def _volume(folder: Path, broker: int, data: bytes, high_watermark: int) -> Path:
    directory = folder / str(broker)
    (directory / "t-0").mkdir(parents=True)
    half = len(_batch(0, b"a", b"b"))
    (directory / "t-0" / f"{0:020d}.log").write_bytes(data[:half])
    (directory / "t-0" / f"{2:020d}.log").write_bytes(data[half:])
    (directory / HIGH_WATERMARKS).write_bytes(encode_offsets({("t", 0): high_watermark}))
    return directory


def test_the_highest_watermark_of_all_brokers_counts(tmp_path: Path) -> None:
    behind = _volume(tmp_path, 1, _batch(0, b"a", b"b"), 2)
    data_dirs = {0: _volume(tmp_path, 0, SOUND, 3), 1: behind, 2: _volume(tmp_path, 2, SOUND, 3)}
    whole = compare_all(data_dirs, {PLACE: [0, 2]}, frozenset())
    assert (whole.findings, whole.partitions, whole.batches) == ([], 1, 4)
    assert any(
        "broker 1 ends at 2" in text
        for text in compare_all(data_dirs, {PLACE: [0, 1, 2]}, frozenset()).findings
    )
    assert compare_all(data_dirs, {Place("u", 0): [0]}, frozenset()).findings == ["broker 0 has no u-0"]


# -- what the store says -----------------------------------------------------------------------------------------------


def _well() -> Snapshot:
    refs = tuple(ReplicaRef(broker, 1) for broker in range(3))
    state = PartitionState(replicas=(0, 1, 2), isr=refs, leader=1, leader_epoch=3, leader_incarnation="one")
    leases = {
        broker: BrokerLease(broker, name, 1, {}, state=BrokerPhase.RUNNING)
        for broker, name in enumerate(("zero", "one", "two"))
    }
    return Snapshot({PLACE: state}, frozenset(), leases)


def test_a_whole_cluster_has_no_problems() -> None:
    assert _well().problems(3) == []
    assert _well().led_by(frozenset((1,)), "t") == {0}
    assert _well().led_by(frozenset((0, 2)), "t") == set()


def _change(**changes: Any) -> Callable[[Snapshot], Snapshot]:
    def change(snapshot: Snapshot) -> Snapshot:
        return replace(snapshot, partitions={PLACE: replace(snapshot.partitions[PLACE], **changes)})

    return change


def _without_broker(snapshot: Snapshot) -> Snapshot:
    return Snapshot(snapshot.partitions, snapshot.compacted, {0: snapshot.leases[0], 1: snapshot.leases[1]})


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (_change(leader=-1), "has no leader"),
        (_change(leader_incarnation="before"), "a life of broker 1 that is over"),
        (_change(isr=(ReplicaRef(1, 1), ReplicaRef(0, 1))), "has isr (1, 0) of (0, 1, 2)"),
        (_change(removing=(2,)), "is being reassigned"),
        (_without_broker, "broker 2 is not there"),
    ],
)
def test_what_is_not_well_is_named(spoil: Callable[[Snapshot], Snapshot], text: str) -> None:
    problems = spoil(_well()).problems(3)
    assert len(problems) == 1
    assert text in problems[0]
