"""What a broker does: the rules of design sections 3.2 to 3.4 on the broker's side, as functions of `Broker` values.

Where production has a pure function, that function is called: the transitions of the cluster contract and their rules,
`Leadership` for what counts toward the high watermark, `LeaderEpochs`, and where a follower cuts its log. A broker is never
seen down: it ends and starts in one step, because a broker that is down differs in nothing from one that happens to do
nothing, and controllers may take either for dead at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple, cast

from tests.model.settings import Bounds, Switches
from tests.model.state import NO_EPOCH, NO_VIEW, Broker, Fetch, Log, Progress, Record, Table

from strandline_broker.cluster.model import NO_LEADER, BrokerIdentity, PartitionState, ReplicaRef
from strandline_broker.cluster.transitions import (
    RULES,
    FollowerProgress,
    depose,
    effective_min_isr,
    grow_isr,
    high_watermark_replicas,
    may_advance_high_watermark,
    shrink_isr,
)
from strandline_broker.cluster.transitions.rules import fetched_in_epoch
from strandline_broker.log.epochs import LeaderEpochs
from strandline_broker.log.log import Log as ProductionLog
from strandline_broker.replica.fetcher import truncation_offset
from strandline_broker.replica.leadership import Leadership

NOW = 0.0


class Start(NamedTuple):
    """A way to end and start again. `fetch` is a replica fetch that the ended life left in the network."""

    label: str
    broker: Broker
    clean: bool
    fetch: Fetch | None = None


class Attempt(NamedTuple):
    """A change of its partition that a leader sends: the leader that noted it down, and what the store shall hold."""

    label: str
    broker: Broker
    target: PartitionState


class LogView(NamedTuple):
    """As much of a production log as finding the offset to cut at needs."""

    epochs: LeaderEpochs
    end_offset: int

    def epoch_end_offset(self, epoch: int) -> tuple[int, int]:
        """Return (largest epoch not above `epoch`, its end offset), or (-1, -1)."""
        return self.epochs.end_offset(epoch, self.end_offset)


def incarnation_name(number: int, incarnation: int) -> str:
    """Return how the store names a start of a broker."""
    return f"{number}.{incarnation}"


def identity(number: int, incarnation: int, generation: int, *, draining: bool = False) -> BrokerIdentity:
    """Return what a Lease says."""
    return BrokerIdentity(number, generation, incarnation_name(number, incarnation), draining=draining)


class BrokerMoves:
    """Every step of a broker but its ends and starts. `partitions` turns the number of a view into a partition state."""

    def __init__(self, bounds: Bounds, switches: Switches, partitions: Table[PartitionState]) -> None:
        self.bounds = bounds
        self.switches = switches
        self.rules = switches.rules
        self.partitions = partitions
        # Progress made in another epoch counts for nothing: to forget it makes equal what behaves equally. Only where
        # that rule is off, progress outlives a leadership.
        self._keeps_old_progress = (
            self.rules.fetched_in_epoch is not RULES.fetched_in_epoch
            or not switches.counts_only_fetched_in_epoch
        )
        self._nobody: tuple[Progress | None, ...] = (None,) * bounds.brokers
        # Whether everything that `Leadership` decides is to be decided as it does.
        self._as_production = switches == replace(
            Switches(rules=switches.rules),
            leader_counts_synced=switches.leader_counts_synced,
            follower_reports_synced=switches.follower_reports_synced,
            persists_attempts=switches.persists_attempts,
        )

    # -- roles --

    def leader_followed(self, broker: Broker) -> int:
        """Return whom the broker fetches from, `NO_LEADER` for nobody."""
        if broker.view == NO_VIEW:
            return NO_LEADER
        view = self.partitions[broker.view]
        if view.leader == broker.number or self._is_below_log(broker, view):
            return NO_LEADER
        return view.leader

    def _is_below_log(self, broker: Broker, view: PartitionState) -> bool:
        return self.switches.obeys_last_epoch_of_log and view.leader_epoch < broker.last_epoch

    def _may_lead(self, broker: Broker, view: PartitionState) -> bool:
        if view.leader != broker.number or self._is_below_log(broker, view):
            return False
        if view.leader_epoch <= broker.unfit_epoch:
            return False
        own = {broker.number: identity(broker.number, broker.incarnation, broker.generation)}
        if self.switches.leads_only_as_named and not any(
            ref.broker_id == broker.number and self.rules.generation_matches(ref, own) for ref in view.isr
        ):
            return False
        return any(
            not self.rules.needs_new_epoch(view, broker.number, incarnation_name(broker.number, name))
            for name in (broker.incarnation, broker.claim)
        )

    def take_view(self, broker: Broker, view_number: int, attempted: tuple[ReplicaRef, ...] = ()) -> Broker:
        """Act by a partition state that is newer than the one before: lead, go on leading, or stop.

        A newer state settles every attempt: what was sent from an older one holds by now, or never will. A start passes the
        attempts that it found on disk for the state that it found there.
        """
        view = self.partitions[view_number]
        if broker.unfit_epoch < view.leader_epoch:
            broker = broker._replace(unfit_epoch=NO_EPOCH)
        if not self._may_lead(broker, view):
            if view.leader != broker.number:
                view_number = self._as_followed(view)
            return self.resigned(broker)._replace(view=view_number)
        if broker.leads and view.leader_epoch == self.partitions[broker.view].leader_epoch:
            return broker._replace(view=view_number, attempted=())
        return self.resigned(broker)._replace(
            view=view_number,
            leads=True,
            epoch_start=len(broker.log),
            high_watermark=broker.high_watermark if self.bounds.follower_watermarks else 0,
            attempted=attempted,
            progress=broker.progress or self._nobody,
        )

    def _as_followed(self, view: PartitionState) -> int:
        """Return the number of a view without what only leaders look at, so that equal situations are equal states."""
        return self.partitions.intern(replace(view, isr=(), elr=(), leader_incarnation=""))

    def resigned(self, broker: Broker) -> Broker:
        """Return a broker that does not lead.

        Where followers' high watermarks play no part, a leader begins with 0: that lets more followers grow into the ISR,
        and acknowledges every record again, so that it is compared again.
        """
        return broker._replace(
            leads=False,
            epoch_start=0,
            high_watermark=broker.high_watermark if self.bounds.follower_watermarks else 0,
            attempted=(),
            progress=broker.progress if self._keeps_old_progress else (),
        )

    # -- the log --

    def sync(self, broker: Broker) -> Broker | None:
        """Return the broker after an fdatasync; None where nothing waits for one, or where syncing plays no part."""
        if self.bounds.flush_replicated or broker.synced == len(broker.log):
            return None
        return broker._replace(synced=len(broker.log))

    def fail_log(self, broker: Broker) -> Broker | None:
        """Return the broker after a failed sync: its log is reopened at the synced end (ADR 0005).

        With Replicated a broker whose log failed ends and starts with a new generation, as after a crash of its machine.
        """
        if not self.bounds.failed_logs or self.sync(broker) is None:
            return None
        cut = broker._replace(log=broker.log[: broker.synced])
        if not broker.leads:
            return cut
        if not self.switches.steps_down_after_failed_log:
            return cut._replace(epoch_start=len(cut.log), progress=self._nobody, cuts=cut.cuts + 1)
        return self.resigned(cut)._replace(unfit_epoch=self.partitions[broker.view].leader_epoch)

    def append(self, broker: Broker) -> Broker | None:
        """Return the leader after a producer's record."""
        if not broker.leads or len(broker.log) >= self.bounds.log_length:
            return None
        epoch = self.partitions[broker.view].leader_epoch
        return broker._replace(
            log=(*broker.log, Record(epoch, broker.number, broker.incarnation, broker.cuts))
        )

    # -- the high watermark --

    def advance(self, broker: Broker) -> Broker | None:
        """Return the leader after its high watermark moved; None where it cannot."""
        if not broker.leads:
            return None
        view, min_isr = self._view_and_min_isr(broker)
        end = self._committed_end(broker, view, min_isr)
        if self._as_production:
            assert end == self._committed_end_in_production(broker, view, min_isr), (
                "production counts otherwise"
            )
        return broker._replace(high_watermark=end) if end > broker.high_watermark else None

    def _view_and_min_isr(self, broker: Broker) -> tuple[PartitionState, int]:
        view = self.partitions[broker.view]
        return view, effective_min_isr(self.bounds.min_isr, view)

    def _leadership(self, broker: Broker, view: PartitionState, min_isr: int) -> Leadership:
        """Return what production would have in memory."""
        own = ReplicaRef(broker.number, broker.generation)
        leadership = Leadership(own, view, min_isr, broker.epoch_start, NOW)
        if broker.attempted:
            possible = replace(
                view, isr=(*view.isr, *broker.attempted), partition_epoch=view.partition_epoch + 1
            )
            leadership.attempt(possible)
        for number, progress in enumerate(broker.progress):
            if progress is not None and progress.epoch == view.leader_epoch:
                leadership.fetched(number, progress.generation, progress.log_end, 0, len(broker.log), NOW)
        return leadership

    def _committed_end_in_production(self, broker: Broker, view: PartitionState, min_isr: int) -> int:
        leadership = self._leadership(broker, view, min_isr)
        if leadership.frozen:
            return 0
        own_end = self._own_end(broker)
        return own_end if leadership.alone else max(0, leadership.committed_end(own_end))

    def _committed_end(self, broker: Broker, view: PartitionState, min_isr: int) -> int:
        """Return what `Leadership` does, with rules that can be switched off."""
        switches = self.switches
        attempted = [broker.attempted] if switches.counts_attempted else []
        members = high_watermark_replicas(view.isr, attempted)
        counted = view.isr if switches.tests_min_isr_on_confirmed else tuple(members)
        if switches.freezes_below_min_isr and not may_advance_high_watermark(counted, min_isr):
            return 0
        return min(self._counted_end(broker, ref, view.leader_epoch) for ref in members)

    def _own_end(self, broker: Broker) -> int:
        counts_synced = self.switches.leader_counts_synced and not self.bounds.flush_replicated
        return broker.synced if counts_synced else len(broker.log)

    def _counted_end(self, broker: Broker, ref: ReplicaRef, epoch: int) -> int:
        """Return up to where a member has the log, as far as the leader may believe; 0 if it may believe nothing."""
        if ref.broker_id == broker.number:
            return self._own_end(broker) if ref.generation == broker.generation else 0
        progress = broker.progress[ref.broker_id]
        if progress is None:
            return 0
        if self.switches.counts_only_named_generation and progress.generation != ref.generation:
            return 0
        follower = FollowerProgress(ref.broker_id, *progress)
        if self.switches.counts_only_fetched_in_epoch and not fetched_in_epoch(follower, epoch):
            return 0
        return progress.log_end

    def learn_high_watermark(self, follower: Broker, leader: Broker) -> Broker | None:
        """Return the follower with what the leader tells of its high watermark, as far as it has it itself."""
        if not self.bounds.follower_watermarks:
            return None
        end = min(leader.high_watermark, self.fetch(follower).reported_end)
        return follower._replace(high_watermark=end) if end > follower.high_watermark else None

    # -- replica fetches --

    def fetch(self, broker: Broker) -> Fetch:
        """Return the fetch that a follower sends now."""
        log_end = len(broker.log)
        reports_synced = self.switches.follower_reports_synced and not self.bounds.flush_replicated
        view = self.partitions[broker.view]
        return Fetch(
            broker.number,
            broker.generation,
            view.leader,
            view.leader_epoch,
            log_end,
            broker.last_epoch,
            broker.synced if reports_synced else log_end,
        )

    def hears(self, leader: Broker, fetch: Fetch) -> bool:
        """Whether the leader accepts a fetch: sent to it, in its epoch."""
        if leader.number != fetch.leader or not leader.leads:
            return False
        epoch = self.partitions[leader.view].leader_epoch
        return epoch == fetch.epoch or not self.switches.checks_epoch_of_fetch

    def knows_epoch(self, leader: Broker, fetch: Fetch) -> bool:
        """Whether the leader can compare at all; otherwise it answers with an error, and nothing happens."""
        return fetch.last_epoch <= self.partitions[leader.view].leader_epoch

    def diverging(self, leader: Broker, fetch: Fetch) -> tuple[int, int] | None:
        """Return (epoch, end offset) where the follower's log parts from the leader's, None where it does not."""
        if not self.switches.compares_epochs_on_fetch or fetch.last_epoch == NO_EPOCH:
            return None
        epochs = _epochs_of(leader.log)
        epochs.assign(self.partitions[leader.view].leader_epoch, len(leader.log))
        epoch, end_offset = epochs.end_offset(fetch.last_epoch, len(leader.log))
        return (epoch, end_offset) if epoch < fetch.last_epoch or end_offset < fetch.log_end else None

    def note_fetch(self, leader: Broker, fetch: Fetch) -> Broker:
        """Return the leader with the progress that a fetch reports."""
        progress = list(leader.progress)
        epoch = self.partitions[leader.view].leader_epoch
        progress[fetch.broker] = Progress(fetch.generation, epoch, fetch.reported_end)
        return leader._replace(progress=tuple(progress))

    def truncate(self, follower: Broker, epoch: int, end_offset: int) -> Broker:
        """Cut the follower's log where the leader's answer says that it parts (KIP-595)."""
        view = LogView(_epochs_of(follower.log), len(follower.log))
        cut = max(0, truncation_offset(cast("ProductionLog", view), epoch, end_offset))
        return shortened(follower, cut)

    def replicate(self, follower: Broker, leader: Broker) -> Broker | None:
        """Append the leader's next record to the follower's log, None if it has none."""
        log_end = len(follower.log)
        if log_end >= len(leader.log):
            return None
        return follower._replace(log=(*follower.log, leader.log[log_end]))

    # -- changes of the partition --

    def may_send(self, broker: Broker) -> bool:
        """Whether the broker writes to its partition: it leads, or has to step down."""
        return broker.leads or broker.unfit_epoch != NO_EPOCH

    def attempts(self, broker: Broker, leases: tuple[tuple[int, ...], ...]) -> Iterator[Attempt]:
        """Yield every change that the leader may decide, whatever made it doubt a follower."""
        view, number = self.partitions[broker.view], broker.number
        if broker.unfit_epoch == view.leader_epoch:
            yield Attempt(f"broker {number}, whose log failed, sends: no leader", broker, depose(view))
        if not broker.leads:
            return
        others = [ref.broker_id for ref in view.isr if ref.broker_id != number]
        subsets = [[other] for other in others] + ([others] if len(others) > 1 else [])
        for out_of_sync in subsets:
            target = shrink_isr(view, out_of_sync=out_of_sync, min_isr=self.bounds.min_isr, rules=self.rules)
            names = " and ".join(map(str, out_of_sync))
            yield self._attempt(broker, target, f"leader {number} sends: broker {names} out of the ISR")
        all_joined = view
        for other, progress in enumerate(broker.progress):
            if progress is None:
                continue
            generations = leases[other] if self.bounds.stale_leases else leases[other][-1:]
            for generation in sorted(set(generations)):
                target = self._grown(broker, view, other, progress, generation)
                if target != view:
                    label = f"leader {number} sends: broker {other} into the ISR"
                    yield self._attempt(broker, target, label)
            all_joined = self._grown(broker, all_joined, other, progress, generations[-1])
        if len(all_joined.isr) > len(view.isr) + 1:
            label = f"leader {number} sends: everybody who may join into the ISR"
            yield self._attempt(broker, all_joined, label)

    def _grown(
        self, broker: Broker, view: PartitionState, number: int, progress: Progress, lease_generation: int
    ) -> PartitionState:
        live = {number: identity(number, 1, lease_generation)}
        target = grow_isr(
            view,
            FollowerProgress(number, *progress),
            live=live,
            high_watermark=broker.high_watermark,
            epoch_start=broker.epoch_start,
            min_isr=self.bounds.min_isr,
            rules=self.rules,
        )
        if self._as_production and self.rules == RULES:
            joiners = self._leadership(broker, view, self.bounds.min_isr).joiners(
                live, broker.high_watermark, NOW
            )
            assert bool(joiners) == (target is not view), "production lets others join"
        if self.switches.grows_by_fetched_generation or target is view:
            return target
        named = (
            ReplicaRef(number, lease_generation) if ref.broker_id == number else ref for ref in target.isr
        )
        return replace(target, isr=tuple(named))

    def _attempt(self, broker: Broker, target: PartitionState, label: str) -> Attempt:
        # Who is in the confirmed ISR counts anyway and is left out.
        confirmed = self.partitions[broker.view].isr
        attempted = tuple(sorted({*broker.attempted, *target.isr}.difference(confirmed)))
        return Attempt(label, broker._replace(attempted=attempted), target)


def shortened(broker: Broker, log_end: int) -> Broker:
    """Return a broker with less in its log."""
    return broker._replace(
        log=broker.log[:log_end],
        synced=min(broker.synced, log_end),
        high_watermark=min(broker.high_watermark, log_end),
    )


def _epochs_of(log: Log) -> LeaderEpochs:
    epochs = LeaderEpochs()
    for offset, record in enumerate(log):
        epochs.assign(record.epoch, offset)
    return epochs
