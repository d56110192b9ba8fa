"""Moving a partition to other brokers, as Kafka does: add, wait until in sync, hand over, drop.

    at rest ──request_reassignment: brokers to add──▶ waiting (`target`) ──begin_reassignment──▶ moving
    at rest ──request_reassignment: none to add──▶ moving
    moving (`adding`, `removing`) ──advance_reassignment: in sync, handed over, dropped──▶ at rest
    waiting or moving ──request_reassignment──▶ the same with another target
    waiting ──cancel_reassignment──▶ at rest
    moving ──cancel_reassignment──▶ moving back, or at rest

All progress is in the partition's own state (`replicas`, `adding`, `removing`, `target`), so that any controller can go
on where another one stopped. Pure; the controller decides how many partitions move at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from strandline_broker.cluster.model import NO_LEADER, PartitionState

from .election import elect, has_valid_leader
from .isr import with_isr
from .rules import RULES, Live, Rules


def target_of(state: PartitionState) -> tuple[int, ...]:
    """Return the replicas that the partition is to have in the end."""
    return state.target or _moving_to(state)


def _moving_to(state: PartitionState) -> tuple[int, ...]:
    return tuple(broker_id for broker_id in state.replicas if broker_id not in state.removing)


def is_moving(state: PartitionState) -> bool:
    """Whether a reassignment has begun and is not done."""
    return bool(state.adding or state.removing)


def is_reassigning(state: PartitionState) -> bool:
    """Whether a reassignment is in progress, or waits for its turn."""
    return bool(state.adding or state.removing or state.target)


def request_reassignment(state: PartitionState, target: Sequence[int]) -> PartitionState:
    """Ask for another target; the controller begins when it is this partition's turn.

    What needs no copying, and what is moving already, takes the new target at once (`start_reassignment`). Raises
    ValueError as that.
    """
    if is_moving(state) or set(target).issubset(state.replicas) or len(set(target)) != len(target):
        return start_reassignment(state, target)
    if state.target == tuple(target):
        return state
    return replace(state, target=tuple(target), partition_epoch=state.partition_epoch + 1)


def begin_reassignment(state: PartitionState) -> PartitionState:
    """Begin what was requested. The very same state where nothing was."""
    return start_reassignment(state, state.target) if state.target else state


def start_reassignment(state: PartitionState, target: Sequence[int]) -> PartitionState:
    """Set another target, also in the middle of a reassignment.

    Old replicas stay until the new ones are in sync. A replica that an earlier reassignment was adding, and
    that the new target does not want, goes at once unless it has come into ISR or ELR already. Raises
    ValueError for a target that is empty or names a broker twice.
    """
    if not target or len(set(target)) != len(target):
        raise ValueError(f"a partition needs replicas on different brokers, not {list(target)}")
    matters = {ref.broker_id for ref in (*state.isr, *state.elr)} | {state.leader}
    old = [broker_id for broker_id in state.replicas if broker_id not in state.adding or broker_id in matters]
    adding = tuple(
        broker_id for broker_id in target if broker_id not in state.replicas or broker_id in state.adding
    )
    removing = tuple(broker_id for broker_id in old if broker_id not in target)
    replicas = (*target, *removing)
    if (replicas, adding, removing, ()) == (state.replicas, state.adding, state.removing, state.target):
        return state
    return replace(
        state,
        replicas=replicas,
        # In the order of the replicas, as everywhere: equal sets are equal states.
        isr=tuple(sorted(state.isr, key=lambda ref: replicas.index(ref.broker_id))),
        elr=tuple(sorted(state.elr, key=lambda ref: replicas.index(ref.broker_id))),
        adding=adding,
        removing=removing,
        target=(),
        partition_epoch=state.partition_epoch + 1,
    )


def cancel_reassignment(state: PartitionState) -> PartitionState:
    """Go back to the replicas from before.

    What was added and is in sync already leaves through the same steps.
    """
    if state.target:
        return replace(state, target=(), partition_epoch=state.partition_epoch + 1)
    return start_reassignment(state, [b for b in state.replicas if b not in state.adding])


def may_drop_old_replicas(state: PartitionState, *, live: Live, min_isr: int, rules: Rules = RULES) -> bool:
    """Whether the target can stand alone: all that was added is in sync, and enough of the target is.

    Enough is the minimum as far as the target can reach it, so that dropping the old replicas never makes a
    partition unwritable that was writable.
    """
    target = _moving_to(state)
    in_sync = {ref.broker_id for ref in state.isr if rules.generation_matches(ref, live)}
    enough = max(1, min(min_isr, len(target)))
    return in_sync.issuperset(state.adding) and len(in_sync.intersection(target)) >= enough


def advance_reassignment(
    state: PartitionState, *, live: Live, min_isr: int, rules: Rules = RULES
) -> PartitionState:
    """Take the next step of a reassignment, if it can be taken now; call again after every change.

    Steps: wait until `may_drop_old_replicas`; move leadership into the target; drop the old replicas.
    """
    if not is_moving(state) or state.leader == NO_LEADER:
        return state
    if not may_drop_old_replicas(state, live=live, min_isr=min_isr, rules=rules):
        return state
    target = _moving_to(state)
    if state.leader in target:
        if not has_valid_leader(state, live, rules):
            return state
        remaining = [ref for ref in state.isr if ref.broker_id in target]
        dropped = replace(state, replicas=target, adding=(), removing=())
        settled = with_isr(dropped, remaining, min_isr=min_isr, rules=rules)
        return replace(settled, partition_epoch=state.partition_epoch + 1)
    # As if the old replicas were on their way out, which they are: their leader hands over to the target.
    leaving = {
        broker_id: broker._replace(draining=True) if broker_id in state.removing else broker
        for broker_id, broker in live.items()
    }
    return elect(state, live=leaving, min_isr=min_isr, rules=rules).state
