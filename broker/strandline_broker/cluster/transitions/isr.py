"""Changes of the in-sync replicas: the controller fences dead brokers, the leader shrinks and grows, and steps down.

State of a replica with respect to a partition:

    outside ──grow_isr: caught up in this epoch──▶ in sync
    in sync ──fence, step_down or shrink_isr (it lags, or is spared), ISR stays at the minimum──▶ outside
    in sync ──fence, step_down or shrink_isr, ISR falls below the minimum──▶ eligible (ELR)
    eligible ──grow_isr──▶ in sync
    eligible ──the ISR is back at the minimum──▶ outside
    in sync or eligible ──its log generation changed──▶ outside

All functions are pure and return the very argument when nothing changes; otherwise `partition_epoch` is
higher. The caller stores the result with `patches.patch_partition`, which tests what the decision was made
from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from strandline_broker.cluster.model import NO_LEADER, PartitionState, ReplicaRef

from .rules import RULES, FollowerProgress, Live, Rules, effective_min_isr


def with_isr(
    state: PartitionState,
    members: Iterable[ReplicaRef],
    *,
    min_isr: int,
    lost: Collection[ReplicaRef] = (),
    rules: Rules = RULES,
) -> PartitionState:
    """Return `state` with another ISR and the ELR that follows from it (KIP-966).

    `min_isr` is the topic's setting. `lost` are references whose logs have lost bytes: they are eligible for
    nothing. The order is that of the replicas, so that equal sets are equal states.
    """
    by_broker = {ref.broker_id: ref for ref in members}
    isr = tuple(by_broker[broker_id] for broker_id in state.replicas if broker_id in by_broker)
    elr: tuple[ReplicaRef, ...] = ()
    if rules.keeps_former_members(len(isr), effective_min_isr(min_isr, state)):
        former = {ref.broker_id: ref for ref in (*state.elr, *state.isr) if ref not in lost}
        elr = tuple(
            former[broker_id]
            for broker_id in state.replicas
            if broker_id in former and broker_id not in by_broker
        )
    if isr == state.isr and elr == state.elr:
        return state
    return replace(state, isr=isr, elr=elr, partition_epoch=state.partition_epoch + 1)


def replaced_logs(state: PartitionState, live: Live, rules: Rules = RULES) -> list[ReplicaRef]:
    """Return the members of ISR and ELR whose brokers live with another log generation."""
    return [
        ref
        for ref in (*state.isr, *state.elr)
        if ref.broker_id in live and not rules.generation_matches(ref, live)
    ]


def fence(state: PartitionState, *, live: Live, min_isr: int, rules: Rules = RULES) -> PartitionState:
    """Take out of the ISR who is dead, and out of ISR and ELR whose log has another generation now.

    While a member lives, the dead leave and the partition goes on with the living. While none does, nobody
    leaves for being dead: a shrink would help nobody, and whoever comes back first with its log intact has
    every acknowledged record. A member whose log was replaced leaves in either case, unless it is the last
    one. A leader that leaves the ISR leads no more; `election.react` names its successor in the same change.
    """
    fenced = fence_members(state, live=live, min_isr=min_isr, rules=rules)
    if fenced.leader == NO_LEADER or fenced.leader in fenced.isr_ids:
        return fenced
    return replace(depose(fenced), partition_epoch=fenced.partition_epoch)


def depose(state: PartitionState) -> PartitionState:
    """Return the partition without a leader, in a new epoch."""
    return replace(
        state,
        leader=NO_LEADER,
        leader_incarnation="",
        leader_epoch=state.leader_epoch + 1,
        partition_epoch=state.partition_epoch + 1,
    )


def step_down(state: PartitionState, *, live: Live, min_isr: int, rules: Rules = RULES) -> PartitionState:
    """Return the partition without a leader, in a new epoch: the leader's decision, whose log cannot be used now.

    It leaves the ISR, too, while another member lives: it could be elected again at once otherwise. That loses nothing, as
    no shrink does: whoever stays in the ISR has everything that was acknowledged. While no other member lives it stays,
    for its log may be the only one that comes back.
    """
    others = [ref for ref in state.isr if ref.broker_id != state.leader]
    if not any(rules.generation_matches(ref, live) for ref in others):
        return depose(state)
    left = with_isr(state, others, min_isr=min_isr, rules=rules)
    return replace(depose(left), partition_epoch=state.partition_epoch + 1)


def fence_members(state: PartitionState, *, live: Live, min_isr: int, rules: Rules = RULES) -> PartitionState:
    """Do the part of `fence` that is about ISR and ELR; the leader is named as before, even if it left.

    For `election.react` alone: a state whose leader is not in its ISR must not be stored.
    """
    intact = [ref for ref in state.isr if rules.generation_matches(ref, live)]
    absent = [ref for ref in state.isr if ref.broker_id not in live]
    members = intact or absent
    if not rules.may_shrink_to(members):
        # It stays named although its log was replaced; `generation_matches` keeps it from leading.
        members = [_last_member(state)] if state.isr else []
    lost = replaced_logs(state, live, rules)
    return with_isr(state, members, min_isr=min_isr, lost=lost, rules=rules)


def _last_member(state: PartitionState) -> ReplicaRef:
    for ref in state.isr:
        if ref.broker_id == state.leader:
            return ref
    return state.isr[0]


def shrink_isr(
    state: PartitionState, *, out_of_sync: Collection[int], min_isr: int, rules: Rules = RULES
) -> PartitionState:
    """Take the brokers `out_of_sync` out of the ISR: the leader's decision on its own followers.

    The leader itself never leaves, whoever is named. It goes on counting them for the high watermark until
    the change is confirmed (`high_watermark_replicas`).
    """
    members = [ref for ref in state.isr if ref.broker_id == state.leader or ref.broker_id not in out_of_sync]
    if not rules.may_shrink_to(members):
        return state
    return with_isr(state, members, min_isr=min_isr, rules=rules)


def spared(state: PartitionState, *, live: Live, min_isr: int) -> tuple[int, ...]:
    """Return the ISR members that are about to stop and that it can do without: the minimum stays.

    The leader takes them out while they still copy (`shrink_isr`), so that nothing waits for them when they stop. A leader
    that is about to stop itself spares nobody: its successor is one of them, and a whole cluster that stops keeps its ISRs.
    """
    leader = live.get(state.leader)
    if leader is None or leader.draining:
        return ()
    leaving = [
        broker_id
        for broker_id in state.isr_ids
        if broker_id != state.leader and broker_id in live and live[broker_id].draining
    ]
    return tuple(leaving[: max(0, len(state.isr) - effective_min_isr(min_isr, state))])


def does_without(state: PartitionState, broker_id: int, *, live: Live, min_isr: int) -> bool:
    """Whether a partition is led by a living broker, with the minimum in sync, all without this one."""
    others = sum(ref.broker_id != broker_id for ref in state.isr)
    return state.leader != broker_id and state.leader in live and others >= effective_min_isr(min_isr, state)


def may_join_isr(
    state: PartitionState,
    follower: FollowerProgress,
    *,
    live: Live,
    high_watermark: int,
    epoch_start: int,
    rules: Rules = RULES,
) -> bool:
    """Whether the leader of `state` may take the follower into the ISR.

    `epoch_start` is the first offset of the leader's own epoch. A broker that is draining is about to leave
    and is not taken in again.
    """
    broker = live.get(follower.broker_id)
    return (
        follower.broker_id in state.replicas
        and broker is not None
        and not broker.draining
        and rules.fetched_in_epoch(follower, state.leader_epoch)
        and rules.generation_is_current(follower, live)
        and rules.has_caught_up(follower, high_watermark, epoch_start)
    )


def grow_isr(
    state: PartitionState,
    follower: FollowerProgress,
    *,
    live: Live,
    high_watermark: int,
    epoch_start: int,
    min_isr: int,
    rules: Rules = RULES,
) -> PartitionState:
    """Take a follower into the ISR if it may join (`may_join_isr`): the leader's decision."""
    if not may_join_isr(
        state, follower, live=live, high_watermark=high_watermark, epoch_start=epoch_start, rules=rules
    ):
        return state
    joined = ReplicaRef(follower.broker_id, follower.generation)
    members = [ref for ref in state.isr if ref.broker_id != joined.broker_id]
    return with_isr(state, [*members, joined], min_isr=min_isr, rules=rules)
