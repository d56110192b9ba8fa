from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.operator.kubernetes.builders import blueprint_of_spec

from strandline_broker.cluster.model import (
    BrokerIdentity,
    Object,
    PartitionSet,
    PartitionState,
    ReplicaRef,
    new_partition_set,
)
from strandline_operator.kubernetes.children import children
from strandline_operator.kubernetes.rolling import BrokerPod, Restart, Wait, next_restart

BROKERS = range(3)
LIVE = {b: BrokerIdentity(b, 5, "a") for b in BROKERS}


def stateful_set(revision: str = "new", **more: Any) -> Object:
    made = children(blueprint_of_spec({}))[-1]
    made["metadata"]["generation"] = 2
    return {**made, "status": {"updateRevision": revision, "observedGeneration": 2, **more}}


def pod(broker_id: int, revision: str, *, ready: bool = True, idle: bool = False) -> BrokerPod:
    template = children(blueprint_of_spec({}))[-1]["spec"]["template"]
    metadata = {
        "name": f"demo-broker-{broker_id}",
        "uid": f"u{broker_id}",
        "labels": {"controller-revision-hash": revision},
        "annotations": dict(template["metadata"]["annotations"]),
    }
    return BrokerPod(broker_id, {"metadata": metadata, "spec": template["spec"]}, ready, idle)


def topic(
    *isrs: tuple[int, ...], minimum: int = 2, replicas: tuple[int, ...] = (0, 1, 2), **more: Any
) -> PartitionSet:
    states = tuple(
        PartitionState(
            replicas=replicas,
            leader=isr[0],
            leader_epoch=0,
            leader_incarnation="a",
            isr=tuple(ReplicaRef(b, 5) for b in isr),
        )
        for isr in isrs
    )
    made = new_partition_set(
        cluster="demo",
        topic_id=UUID(int=1),
        topic_name="orders",
        slice_index=0,
        config={"min.insync.replicas": str(minimum)},
        partitions=states,
    )
    return replace(made, **more)


def chosen(outcome: Restart | Wait | None) -> int | None:
    assert isinstance(outcome, Restart), outcome
    return outcome.broker_id


def test_nothing_happens_while_all_are_as_they_should_be() -> None:
    assert next_restart(stateful_set(), [pod(b, "new") for b in BROKERS], [], LIVE) is None


def test_nothing_is_decided_from_a_status_that_is_older_than_the_template() -> None:
    pods = [pod(b, "old") for b in BROKERS]
    assert next_restart(stateful_set(observedGeneration=1), pods, [], LIVE) is None
    assert next_restart({**stateful_set(), "status": {}}, pods, [], LIVE) is None


def test_the_first_outdated_broker_is_restarted_when_all_are_ready() -> None:
    pods = [pod(0, "new"), pod(1, "old"), pod(2, "old")]
    outcome = next_restart(stateful_set(), pods, [topic((0, 1, 2))], LIVE)
    assert chosen(outcome) == 1
    assert isinstance(outcome, Restart)
    assert outcome.gentle


@pytest.mark.parametrize("missing", BROKERS)
def test_a_broker_that_is_not_ready_is_waited_for_outdated_or_not(missing: int) -> None:
    pods = [pod(b, "old" if b else "new", ready=b != missing) for b in BROKERS]
    outcome = next_restart(stateful_set(), pods, [], LIVE)
    assert outcome == Wait(f"waiting for broker {missing} to be ready")
    without = [one for one in pods if one.broker_id != missing]
    assert isinstance(next_restart(stateful_set(), without, [], LIVE), Wait)


def test_a_pod_in_which_nothing_runs_is_replaced_at_any_time() -> None:
    pods = [pod(0, "new", ready=False), pod(1, "old"), pod(2, "old", ready=False, idle=True)]
    outcome = next_restart(stateful_set(), pods, [], LIVE)
    assert chosen(outcome) == 2
    assert isinstance(outcome, Restart)
    assert not outcome.gentle


def test_a_broker_that_partitions_need_is_left_alone_and_they_are_named() -> None:
    pods = [pod(b, "old") for b in BROKERS]
    outcome = next_restart(stateful_set(), pods, [topic((0, 1, 2), (1, 2))], LIVE)
    assert chosen(outcome) == 0, "the one that no partition counts on"
    outcome = next_restart(stateful_set(), pods, [topic((0, 1), (1, 2), (0, 2))], LIVE)
    assert isinstance(outcome, Wait)
    assert outcome.reason.startswith("no broker can be spared: orders-0, orders-2 ")


def test_a_replica_with_another_log_counts_for_nothing() -> None:
    pods = [pod(b, "old") for b in BROKERS]
    live = {**LIVE, 2: BrokerIdentity(2, 6, "b")}
    assert isinstance(next_restart(stateful_set(), pods, [topic((0, 1, 2))], live), Restart)
    outcome = next_restart(stateful_set(), [*pods[:2], pod(2, "new")], [topic((0, 1, 2))], live)
    assert isinstance(outcome, Wait)


def test_topics_that_can_spare_nobody_do_not_block_for_ever() -> None:
    pods = [pod(b, "old") for b in BROKERS]
    alone = topic((0,), minimum=1, replicas=(0,))
    tight = topic((0, 1), minimum=2, replicas=(0, 1))
    assert chosen(next_restart(stateful_set(), pods, [alone, tight], LIVE)) == 0
    behind = topic((0,), minimum=2, replicas=(0, 1))
    assert chosen(next_restart(stateful_set(), pods, [behind], LIVE)) == 1


def test_what_is_being_deleted_blocks_nobody() -> None:
    pods = [pod(b, "old") for b in BROKERS]
    gone = topic((0,), deleting=True)
    assert chosen(next_restart(stateful_set(), pods, [gone], LIVE)) == 0


def test_people_learn_why() -> None:
    outdated = pod(0, "old")
    outdated.pod["metadata"]["annotations"]["strandline.io/config-checksum"] = "other"
    outdated.pod["spec"] = {"containers": [{"name": "broker", "image": "example.org/strandline:1.0.0"}]}
    outcome = next_restart(stateful_set(), [outdated, pod(1, "new"), pod(2, "new")], [], LIVE)
    assert isinstance(outcome, Restart)
    assert outcome.reason == (
        "image example.org/strandline:1.0.0 becomes example.org/strandline:1.2.3; its configuration changed"
    )


@given(
    st.lists(st.sets(st.sampled_from(BROKERS), min_size=1), max_size=4),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.integers(1, 3),
)
def test_no_restart_takes_a_partition_below_what_it_can_keep(
    isrs: list[set[int]], outdated: list[bool], ready: list[bool], minimum: int
) -> None:
    pods = [pod(b, "old" if outdated[b] else "new", ready=ready[b]) for b in BROKERS]
    sets = topic(*(tuple(sorted(isr)) for isr in isrs), minimum=minimum) if isrs else None
    outcome = next_restart(stateful_set(), pods, [sets] if sets else [], LIVE)
    if isinstance(outcome, Restart):
        assert outdated[outcome.broker_id]
        assert all(ready)
        assert all(len(isr - {outcome.broker_id}) >= min(minimum, 2) for isr in isrs)
    else:
        assert outcome is None or isinstance(outcome, Wait)
        assert (outcome is None) == (not any(outdated))
