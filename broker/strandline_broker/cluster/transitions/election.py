"""Elections: who leads a partition, and in which epoch.

State of a partition:

    led ──leader dead, or started anew; somebody eligible lives──▶ led, in a new epoch
    led ──nobody eligible lives──▶ offline (leader -1), in a new epoch
    offline ──somebody eligible is back──▶ led, in a new epoch
    any ──an election that may lose records which the bucket has──▶ led, in a new epoch, recovering
    restored: recovering, and nobody is in sync or eligible ──a replica lives──▶ led, in a new epoch, recovering
    led, recovering ──its leader's log agrees with the bucket (`recovered`)──▶ led
    led ──nothing more may be written to the bucket in this epoch (`renew_epoch`)──▶ led by the same, in a new epoch

The controller calls `elect` after `isr.fence`, or both at once with `react`, whenever Leases changed. Pure;
two controllers that decide at once are told apart by the store, which tests the partition epoch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from strandline_broker.cluster.model import NO_LEADER, BrokerIdentity, PartitionState, ReplicaRef

from .isr import depose, fence_members, replaced_logs, shrink_isr, spared, with_isr
from .rules import RULES, Live, Rules, effective_min_isr, may_lose_bytes_and_lead


class Outcome(StrEnum):
    """How an election ended; everything from ELIGIBLE on deserves an Event."""

    UNCHANGED = "Unchanged"
    IN_SYNC = "InSync"
    ELIGIBLE = "Eligible"
    POSSIBLE_LOSS = "PossibleLoss"
    UNCLEAN = "Unclean"
    RESTORED = "Restored"
    OFFLINE = "Offline"


@dataclass(frozen=True, slots=True)
class Election:
    """The state after an election, and how it came about."""

    state: PartitionState
    outcome: Outcome

    @property
    def may_lose_records(self) -> bool:
        """Whether acknowledged records may be lost by it."""
        return self.outcome in (Outcome.POSSIBLE_LOSS, Outcome.UNCLEAN)


def has_valid_leader(state: PartitionState, live: Live, rules: Rules = RULES) -> bool:
    """Whether the leader lives, in the start its epoch was given to, with the log it was elected for."""
    broker = live.get(state.leader)
    return (
        broker is not None
        and not rules.needs_new_epoch(state, state.leader, broker.incarnation)
        and any(ref.broker_id == state.leader and rules.generation_matches(ref, live) for ref in state.isr)
    )


def elect(
    state: PartitionState,
    *,
    live: Live,
    min_isr: int,
    unclean_allowed: bool = False,
    flush_replicated: bool = False,
    prefer_first: bool = False,
    replaced: Collection[int] = (),
    tierable: bool = False,
    rules: Rules = RULES,
) -> Election:
    """Give the partition a leader if it needs one.

    `live` holds who may lead now. Candidates, each group in replica order: ISR members; then former members
    that are still eligible (ELR); then a sole member that may have lost bytes, where that risk was accepted;
    then anyone, where the topic allows `unclean.leader.election.enable`, or where all that counts is in the bucket: a
    partition that is recovering and never had anybody in sync. Only brokers with the generation
    that ISR or ELR names count in the first two. A leader that is draining hands over to a member that is
    not, and leads on if there is none. `prefer_first` moves leadership to the first replica if that is in
    sync (Kafka's preferred election). `replaced` are brokers whose logs are known to have been replaced, beyond what
    ISR and ELR show: an unclean election takes them last. `tierable`: whether the bucket may have records of the topic
    (`PartitionSet.tierable`): where an election may lose some that are there, the partition is `recovering` from then on.
    """
    valid = has_valid_leader(state, live, rules)
    if valid and not live[state.leader].draining and not prefer_first:
        return Election(state, Outcome.UNCHANGED)
    in_sync = _candidates(state, state.isr, live, rules)
    staying = [broker for broker in in_sync if not broker.draining]
    if valid:
        wanted = [broker for broker in staying if not prefer_first or broker.broker_id == state.replicas[0]]
        if not wanted and live[state.leader].draining:
            wanted = staying
        if not wanted or wanted[0].broker_id == state.leader:
            return Election(state, Outcome.UNCHANGED)
        return Election(_led_by(state, wanted[0], rules), Outcome.IN_SYNC)
    if in_sync:
        return Election(_led_by(state, (staying or in_sync)[0], rules), Outcome.IN_SYNC)
    election = _elect_outside_isr(
        state,
        live,
        min_isr,
        unclean_allowed=unclean_allowed,
        flush_replicated=flush_replicated,
        replaced=replaced,
        rules=rules,
    )
    if tierable and election.may_lose_records:
        return replace(election, state=replace(election.state, recovering=True))
    return election


def _elect_outside_isr(
    state: PartitionState,
    live: Live,
    min_isr: int,
    *,
    unclean_allowed: bool,
    flush_replicated: bool,
    replaced: Collection[int],
    rules: Rules,
) -> Election:
    eligible = _candidates(state, state.elr, live, rules)
    if eligible:
        leader = next((broker for broker in eligible if not broker.draining), eligible[0])
        # Who was in sync last stays eligible beside the new leader: the high watermark has not moved.
        lost = replaced_logs(state, live, rules)
        alone = with_isr(state, [_ref(leader)], min_isr=min_isr, lost=lost, rules=rules)
        return Election(_led_by(alone, leader, rules, like=state), Outcome.ELIGIBLE)
    if may_lose_bytes_and_lead(state, effective_min_isr(min_isr, state), flush_replicated=flush_replicated):
        sole = live.get(state.isr[0].broker_id)
        if sole is not None:
            return Election(_alone(state, sole, rules), Outcome.POSSIBLE_LOSS)
    is_restored = state.recovering and not (state.isr or state.elr)
    if unclean_allowed or is_restored:
        anyone = _unclean_candidates(state, live, replaced, rules)
        if anyone:
            outcome = Outcome.RESTORED if is_restored else Outcome.UNCLEAN
            return Election(_alone(state, anyone[0], rules), outcome)
    if state.leader == NO_LEADER:
        return Election(state, Outcome.UNCHANGED)
    return Election(depose(state), Outcome.OFFLINE)


def react(
    state: PartitionState,
    *,
    live: Live,
    min_isr: int,
    unclean_allowed: bool = False,
    flush_replicated: bool = False,
    tierable: bool = False,
    rules: Rules = RULES,
) -> Election:
    """Do what a change of the living brokers asks for: `fence`, then `elect`, as one change.

    A leader that is elected while its ISR members are about to stop starts without those that it can do without
    (`spared`, ADR 0007): it would take them out at once itself, and until that is stored nothing that it is sent can be
    committed without them.
    """
    fenced = fence_members(state, live=live, min_isr=min_isr, rules=rules)
    election = elect(
        fenced,
        live=live,
        min_isr=min_isr,
        unclean_allowed=unclean_allowed,
        flush_replicated=flush_replicated,
        replaced=[ref.broker_id for ref in replaced_logs(state, live, rules)],
        tierable=tierable,
        rules=rules,
    )
    if election.state is state:
        return election
    new = election.state
    if new.leader_epoch > state.leader_epoch:
        leaving = spared(new, live=live, min_isr=min_isr)
        if leaving:
            new = shrink_isr(new, out_of_sync=leaving, min_isr=min_isr, rules=rules)
    return replace(election, state=replace(new, partition_epoch=state.partition_epoch + 1))


def recovered(state: PartitionState, *, broker_id: int, leader_epoch: int) -> PartitionState:
    """Return the partition as one that agrees with the bucket: the decision of the leader of that very epoch.

    It has to be behind a confirmed manifest of its own in it, or to know that the bucket holds nothing of the partition
    (design section 7.3). The very same state for anybody else, and where nothing was to be recovered.
    """
    if not state.recovering or (state.leader, state.leader_epoch) != (broker_id, leader_epoch):
        return state
    return replace(state, recovering=False, partition_epoch=state.partition_epoch + 1)


def renew_epoch(
    state: PartitionState, *, broker_id: int, leader_epoch: int, above: int, recovering: bool
) -> PartitionState:
    """Return the partition led by the same start of the same broker in a higher epoch, also above `above`.

    It is the decision of the leader of `leader_epoch`; the very same state for anybody else. `above`: an epoch that was
    used in the bucket. `recovering`: the bucket may have records of it that this leader lacks.
    """
    if (state.leader, state.leader_epoch) != (broker_id, leader_epoch):
        return state
    return replace(
        state,
        leader_epoch=max(leader_epoch, above) + 1,
        partition_epoch=state.partition_epoch + 1,
        recovering=state.recovering or recovering,
    )


def _ref(broker: BrokerIdentity) -> ReplicaRef:
    return ReplicaRef(broker.broker_id, broker.generation)


def _candidates(
    state: PartitionState, refs: Iterable[ReplicaRef], live: Live, rules: Rules
) -> list[BrokerIdentity]:
    fit = {ref.broker_id for ref in refs if rules.generation_matches(ref, live)}
    return [live[broker_id] for broker_id in state.replicas if broker_id in fit]


def _unclean_candidates(
    state: PartitionState, live: Live, replaced: Collection[int], rules: Rules
) -> list[BrokerIdentity]:
    """Return living replicas, the most promising first.

    A log known to have been replaced may be empty, and so may that of a replica that is only being added: any
    other replica's log, however old, is worth more.
    """
    poor = {ref.broker_id for ref in replaced_logs(state, live, rules)}.union(replaced)
    return sorted(
        (live[broker_id] for broker_id in state.replicas if broker_id in live),
        key=lambda broker: (broker.broker_id in state.adding, broker.broker_id in poor, broker.draining),
    )


def _alone(state: PartitionState, broker: BrokerIdentity, rules: Rules) -> PartitionState:
    # Nobody else stays eligible: their logs need not agree with the one that counts from now on.
    return _led_by(replace(state, isr=(_ref(broker),), elr=()), broker, rules)


def _led_by(
    state: PartitionState, broker: BrokerIdentity, rules: Rules, *, like: PartitionState | None = None
) -> PartitionState:
    """Return `state` led by `broker`, as one change of `like` (default: of `state`)."""
    old = like if like is not None else state
    new_epoch = rules.needs_new_epoch(old, broker.broker_id, broker.incarnation)
    return replace(
        state,
        leader=broker.broker_id,
        leader_incarnation=broker.incarnation,
        leader_epoch=old.leader_epoch + (1 if new_epoch else 0),
        partition_epoch=old.partition_epoch + 1,
    )
