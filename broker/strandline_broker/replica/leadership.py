"""One epoch of leading one partition: the ISR as confirmed and as attempted, followers' progress, how far it is committed.

Pure: times are arguments, in seconds of one monotonic clock. `Partition` owns one while it leads, and asks it after every
sync, fetch and change of the ISR; `IsrKeeper` makes the attempts.

A follower exists here from its first fetch in this epoch, after its log was compared with ours. What it reported to another
leader, in an earlier epoch or from an earlier log generation never counts (design section 3.4):

    nobody ──fetched in this epoch, logs agree──▶ known ──log end at max(high watermark, epoch start)──▶ may join the ISR

and one that left the ISR, by whosever decision, fetches once more before it may join again. A follower that others take
out as often as this leader takes it in (the controller hears nothing of a broker that is cut off from the store alone, but
it goes on fetching) waits longer each time: every round is two writes to the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strandline_broker.cluster.transitions import (
    FollowerProgress,
    high_watermark_replicas,
    may_advance_high_watermark,
    may_join_isr,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from strandline_broker.cluster.model import PartitionState, ReplicaRef
    from strandline_broker.cluster.transitions import Live

MAX_ATTEMPTS = 8
"""Different ISR changes of one partition whose outcomes may be unknown at once."""
JOIN_WITHIN_S = 2.0
"""A follower is taken into the ISR only so soon after its last fetch: later it may be dead, and would be fenced again."""
REJOIN_FIRST_S = 1.0
REJOIN_MAX_S = 8.0
"""Between being taken into the ISR and being taken in again: doubled each time, until it stays in for the longest."""

_UNKNOWN = -1


class Follower:
    """What one follower reported in this epoch. Offsets; -1 where nothing is known."""

    __slots__ = (
        "_leader_end_then",
        "broker_id",
        "caught_up_at",
        "fetched_at",
        "generation",
        "left",
        "log_end",
        "log_start",
        "offered_at",
        "rejoin_after",
        "rejoin_wait_s",
    )

    def __init__(self, broker_id: int, generation: int) -> None:
        self.broker_id = broker_id
        self.generation = generation
        self.log_end = _UNKNOWN
        self.log_start = _UNKNOWN
        # Whether it was taken out of the ISR and has not fetched since.
        self.left = False
        # When it last had everything that the leader had at its previous fetch (Kafka's lastCaughtUpTimeMs).
        self.caught_up_at = float("-inf")
        self.fetched_at = float("-inf")
        self._leader_end_then = 0
        # When it was last named as one that may join, and when it may join again should it have to.
        self.offered_at = float("-inf")
        self.rejoin_after = float("-inf")
        self.rejoin_wait_s = REJOIN_FIRST_S

    def fetched(self, log_end: int, log_start: int, leader_end: int, now: float) -> None:
        """Take note of a fetch at `log_end`: the follower has, durably where that counts, everything below."""
        if log_end >= leader_end:
            self.caught_up_at = now
        elif log_end >= self._leader_end_then:
            self.caught_up_at = max(self.caught_up_at, self.fetched_at)
        self.left = False
        self.fetched_at = now
        self._leader_end_then = leader_end
        self.log_end = log_end
        self.log_start = log_start

    def taken_in(self) -> None:
        """Take note that it is in the ISR now, and was not before."""
        self.rejoin_after = self.offered_at + self.rejoin_wait_s
        self.rejoin_wait_s = min(2 * self.rejoin_wait_s, REJOIN_MAX_S)

    def stays(self, now: float) -> None:
        """Take note that it is in the ISR still."""
        if now > self.rejoin_after + REJOIN_MAX_S:
            self.rejoin_wait_s = REJOIN_FIRST_S


class Leadership:
    """See the module. `state` is the confirmed state: the newest that is on this broker's disk."""

    __slots__ = (
        "_counted",
        "_counted_ids",
        "_own",
        "attempts",
        "began_at",
        "epoch",
        "epoch_start",
        "followers",
        "frozen",
        "min_isr",
        "recovered_end",
        "state",
    )

    def __init__(
        self, own: ReplicaRef, state: PartitionState, min_isr: int, epoch_start: int, now: float
    ) -> None:
        """`min_isr` is the effective minimum (`transitions.effective_min_isr`); `epoch_start` this log's end."""
        self._own = own
        self.epoch = state.leader_epoch
        self.epoch_start = epoch_start
        self.recovered_end = epoch_start
        """Log end that all in sync have to reach before the partition has recovered; -1 once they did."""
        self.began_at = now
        self.state = state
        self.min_isr = min_isr
        self.attempts: list[PartitionState] = []
        self.followers: dict[int, Follower] = {}
        # Those but ourselves who must have a record before it is committed; worked out only when somebody changed.
        self._counted: tuple[ReplicaRef, ...] = ()
        self._counted_ids: frozenset[int] = frozenset()
        self.frozen = False
        self._recount()

    def begin_at(self, offset: int) -> None:
        """Let the epoch begin at `offset`, before anybody copied from it: the log was started over."""
        self.epoch_start = offset
        self.followers.clear()

    def confirm(self, state: PartitionState, min_isr: int) -> None:
        """Take over the state that the store has now, within the same epoch.

        Whom it no longer names has to fetch before it may join again. One that died with everything we have would else be
        taken back as often as the controller takes it out.
        """
        assert state.leader_epoch == self.epoch, "another epoch is another leadership"
        for ref in self.state.isr:
            if ref not in state.isr and ref.broker_id in self.followers:
                self.followers[ref.broker_id].left = True
        for ref in state.isr:
            if ref not in self.state.isr and ref.broker_id in self.followers:
                self.followers[ref.broker_id].taken_in()
        self.state = state
        self.min_isr = min_isr
        # A write that tested an older partition epoch can no longer come to hold.
        self.attempts = [a for a in self.attempts if a.partition_epoch > state.partition_epoch]
        self._recount()

    def attempt(self, state: PartitionState) -> bool:
        """Count a change from now on whose outcome is unknown; False: too many are open, it must not be made."""
        if state not in self.attempts:
            if len(self.attempts) >= MAX_ATTEMPTS:
                return False
            self.attempts.append(state)
            self._recount()
        return True

    def give_up(self, state: PartitionState) -> None:
        """Note that an attempted change certainly does not hold and never will: the store refused it."""
        if state in self.attempts:
            self.attempts.remove(state)
            self._recount()

    def _recount(self) -> None:
        members = high_watermark_replicas(self.state.isr, [attempt.isr for attempt in self.attempts])
        self._counted = tuple(sorted(ref for ref in members if ref != self._own))
        self._counted_ids = frozenset(ref.broker_id for ref in self._counted)
        self.frozen = not may_advance_high_watermark(self.state.isr, self.min_isr)

    @property
    def alone(self) -> bool:
        """Whether the leader's own log end is all that counts."""
        return not self._counted

    def committed_end(self, own_end: int) -> int:
        """Return the offset below which everybody who counts has everything, -1 while somebody's log end is unknown."""
        end = own_end
        followers = self.followers
        for broker_id, generation in self._counted:
            follower = followers.get(broker_id)
            if follower is None or follower.generation != generation:
                return _UNKNOWN
            end = min(end, follower.log_end)
        return end

    def counts(self, broker_id: int) -> bool:
        """Whether commitment waits for this broker."""
        return broker_id in self._counted_ids

    def fetched(
        self, broker_id: int, generation: int, log_end: int, log_start: int, leader_end: int, now: float
    ) -> Follower:
        """Take note of a fetch in this epoch whose log agreed with ours up to `log_end`; return the follower."""
        follower = self.followers.get(broker_id)
        if follower is None or follower.generation != generation:
            follower = self.followers[broker_id] = Follower(broker_id, generation)
        follower.fetched(log_end, log_start, leader_end, now)
        return follower

    def joiners(self, live: Live, high_watermark: int, now: float) -> list[FollowerProgress]:
        """Return the followers that may be taken into the ISR now."""
        in_sync = set(self.state.isr)
        found = []
        for follower in self.followers.values():
            if (follower.broker_id, follower.generation) in in_sync:
                follower.stays(now)
                continue
            if follower.left or now < follower.rejoin_after or now - follower.fetched_at > JOIN_WITHIN_S:
                continue
            progress = FollowerProgress(follower.broker_id, follower.generation, self.epoch, follower.log_end)
            if may_join_isr(
                self.state, progress, live=live, high_watermark=high_watermark, epoch_start=self.epoch_start
            ):
                follower.offered_at = now
                found.append(progress)
        return found

    def may_want_to_join(self, follower: Follower, high_watermark: int) -> bool:
        """Say cheaply whether it is worth asking `joiners`."""
        return (
            follower.log_end >= high_watermark
            and follower.log_end >= self.epoch_start
            and ((follower.broker_id, follower.generation) not in self.state.isr)
        )

    def lagging(self, leader_end: int, now: float, lag_max_s: float) -> list[int]:
        """Return the ISR members, by broker id, that have not caught up for longer than `lag_max_s`.

        As in Kafka (`replica.lag.time.max.ms`): one whose log end equals ours is never lagging, however long it is silent;
        that it died is for the controller to find.
        """
        return [
            ref.broker_id
            for ref in self.state.isr
            if ref != self._own and self._lags(ref, leader_end, now, lag_max_s)
        ]

    def _lags(self, ref: ReplicaRef, leader_end: int, now: float, lag_max_s: float) -> bool:
        follower = self.followers.get(ref.broker_id)
        if follower is None or follower.generation != ref.generation:
            # Not heard of in this epoch: it has as long as one that has just been caught up.
            return now - self.began_at > lag_max_s
        if follower.log_end == leader_end:
            return False
        return now - max(follower.caught_up_at, self.began_at) > lag_max_s

    def low_watermark(self, own_start: int, live: Collection[int]) -> int:
        """Return the lowest log start of the replicas that live; -1 while one has not said."""
        low = own_start
        for broker_id in self.state.replicas:
            if broker_id == self._own.broker_id or broker_id not in live:
                continue
            follower = self.followers.get(broker_id)
            if follower is None:
                return _UNKNOWN
            low = min(low, follower.log_start)
        return low

    @property
    def may_end_recovering(self) -> bool:
        """Whether the store has the partition as recovering, and all in sync hold what was recovered.

        They have to be enough for nobody else to be eligible: one who lacks it could else be elected, and would not know
        that it has to look into the bucket. Later joiners hold it, too.
        """
        return self.state.recovering and self.recovered_end < 0

    def unconfirmed_growth(self) -> Iterator[PartitionState]:
        """Yield the attempts that name somebody whom the confirmed ISR does not: what must survive a restart."""
        confirmed = set(self.state.isr)
        return (attempt for attempt in self.attempts if not confirmed.issuperset(attempt.isr))
