"""The rules that keep acknowledged records alive, each as a predicate of its own.

Every rule is here because without it a short trace loses an acknowledged record (design sections 3.2 to 3.4).
The transitions ask a `Rules` value instead of calling the predicates directly: a model checker drives the
very same functions with one rule replaced by a constant and must find that rule's trace again. Everybody else
uses `RULES`.

Words used below: *live* maps the ids of brokers that are alive to what their Leases say; the *effective*
minimum is `min.insync.replicas`, but never more than the partition has replicas.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from strandline_broker.cluster.model import BrokerIdentity, PartitionState, ReplicaRef

Live = Mapping[int, BrokerIdentity]


class FollowerProgress(NamedTuple):
    """What a leader knows of a follower.

    `fetched_epoch`: the leader epoch in which it fetched last, -1 for never. `log_end`: the end of its log at
    that fetch; its synced end where the cluster has `flush: Fsync`.
    """

    broker_id: int
    generation: int
    fetched_epoch: int
    log_end: int


def effective_min_isr(min_isr: int, state: PartitionState) -> int:
    """Return the minimum of in-sync replicas that applies to a partition (as Kafka's `effectiveMinIsr`).

    Replicas that are only being added do not raise it. Leader and controller must agree on it: where the
    leader lets the high watermark advance, the controller must not keep an ELR.
    """
    return max(1, min(min_isr, len(state.replicas) - len(state.adding)))


def generation_matches(ref: ReplicaRef, live: Live) -> bool:
    """Whether the broker lives with the very log that `ref` speaks of.

    Another generation means that the log may have lost acknowledged bytes: to lead with it loses them for
    everybody, and to count it as in sync lets the high watermark stand on bytes that are gone.
    """
    broker = live.get(ref.broker_id)
    return broker is not None and broker.generation == ref.generation


def needs_new_epoch(state: PartitionState, leader: int, incarnation: str) -> bool:
    """Whether the present epoch was given to another broker, or to another start of the same one.

    A leader that crashed and came back with the same epoch could have lost what it had handed to followers
    unsynced; in a new epoch they compare and truncate, in the same one they would not notice.
    """
    return leader != state.leader or incarnation != state.leader_incarnation


def may_shrink_to(members: Collection[ReplicaRef]) -> bool:
    """Whether the ISR may consist of `members`: never of nobody.

    The last member is the only one known to have every acknowledged record. Without its name, nobody could
    tell later whom to wait for.
    """
    return len(members) > 0


def keeps_former_members(isr_size: int, min_isr: int) -> bool:
    """Whether members that leave the ISR stay eligible (KIP-966): while it is below the effective minimum.

    Only then does the high watermark stand still, so that who was in sync stays in sync with everything
    acknowledged. Once the ISR is back at the minimum, the high watermark moves on without them: they must be
    forgotten.
    """
    return isr_size < min_isr


def may_lose_bytes_and_lead(state: PartitionState, min_isr: int, *, flush_replicated: bool) -> bool:
    """Whether a sole member whose log may have lost bytes may lead all the same.

    With a minimum of one and acknowledgement from memory, one broker's crash was accepted as a risk; waiting
    for bytes that nobody has would only add an outage to it. The election says that records may be lost.
    """
    return flush_replicated and min_isr == 1 and len(state.isr) == 1


def fetched_in_epoch(follower: FollowerProgress, leader_epoch: int) -> bool:
    """Whether the follower fetched from this leader in this epoch.

    Only such a fetch has compared the logs; progress made under another leader may be on a branch to be
    truncated.
    """
    return follower.fetched_epoch == leader_epoch


def generation_is_current(follower: FollowerProgress, live: Live) -> bool:
    """Whether the follower fetched with the generation in its Lease.

    Otherwise a late fetch from before a crash would vouch for a log that has lost bytes since.
    """
    return generation_matches(ReplicaRef(follower.broker_id, follower.generation), live)


def has_caught_up(follower: FollowerProgress, high_watermark: int, epoch_start: int) -> bool:
    """Whether the follower has everything that may be acknowledged already.

    That is everything up to the high watermark, and up to the start of the leader's epoch: a new leader does
    not know how far its predecessor's high watermark had come, only that all of it lies before its own first
    offset.
    """
    return follower.log_end >= max(high_watermark, epoch_start)


def high_watermark_replicas(
    confirmed: Iterable[ReplicaRef], attempted: Iterable[Iterable[ReplicaRef]]
) -> frozenset[ReplicaRef]:
    """Return who must have a record before the high watermark may pass it: the union of all possible ISRs.

    An ISR change whose outcome is unknown may hold already, or may never; only who is in neither can be left
    out.
    """
    return frozenset(confirmed).union(*attempted)


def may_advance_high_watermark(confirmed: Collection[ReplicaRef], min_isr: int) -> bool:
    """Whether the high watermark may move: the *confirmed* ISR has the effective minimum.

    It is the other half of `keeps_former_members`. An attempted ISR does not count, it may never come to
    hold.
    """
    return len(confirmed) >= min_isr


@dataclass(frozen=True, slots=True)
class Rules:
    """The predicates that the transitions ask."""

    generation_matches: Callable[[ReplicaRef, Live], bool] = generation_matches
    needs_new_epoch: Callable[[PartitionState, int, str], bool] = needs_new_epoch
    may_shrink_to: Callable[[Collection[ReplicaRef]], bool] = may_shrink_to
    keeps_former_members: Callable[[int, int], bool] = keeps_former_members
    fetched_in_epoch: Callable[[FollowerProgress, int], bool] = fetched_in_epoch
    generation_is_current: Callable[[FollowerProgress, Live], bool] = generation_is_current
    has_caught_up: Callable[[FollowerProgress, int, int], bool] = has_caught_up


RULES = Rules()
