"""What a broker does: the rules of design sections 3.2 to 3.4 on the broker's side, as functions of `Broker` values.

Where production has a pure function, that function is called: the transitions of the cluster contract and their rules,
and the log's `LeaderEpochs`. A broker is never seen down: it crashes and starts in one step, because a broker that is
down differs in nothing from one that happens to do nothing, and controllers may take either for dead at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from tests.model.settings import Bounds, Switches
from tests.model.state import NO_EPOCH, NO_VIEW, Broker, Fetch, Log, Progress, Record, Table

from strandline_broker.cluster.model import NO_LEADER, BrokerIdentity, PartitionState, ReplicaRef
from strandline_broker.cluster.transitions import (
    RULES,
    FollowerProgress,
    effective_min_isr,
    grow_isr,
    high_watermark_replicas,
    may_advance_high_watermark,
    shrink_isr,
)
from strandline_broker.cluster.transitions.rules import fetched_in_epoch
from strandline_broker.log.epochs import LeaderEpochs


class Start(NamedTuple):
    """A way to end and start again. `fetch` is a replica fetch that the ended life left in the network."""

    label: str
    broker: Broker
    clean: bool
    fetch: Fetch | None = None


class Attempt(NamedTuple):
    """An ISR change that a leader sends: the leader that noted it down, and what it asks the store to hold."""

    label: str
    broker: Broker
    target: PartitionState


def incarnation_name(number: int, incarnation: int) -> str:
    """Return how the store names a start of a broker."""
    return f"{number}.{incarnation}"


def identity(number: int, incarnation: int, generation: int, *, draining: bool = False) -> BrokerIdentity:
    """Return what a Lease says."""
    return BrokerIdentity(number, generation, incarnation_name(number, incarnation), draining=draining)


class BrokerMoves:
    """Every step of a broker. `partitions` turns the number of a view into the partition state."""

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
        own = {broker.number: identity(broker.number, broker.incarnation, broker.generation)}
        if self.switches.leads_only_as_named and not any(
            ref.broker_id == broker.number and self.rules.generation_matches(ref, own) for ref in view.isr
        ):
            return False
        names = [broker.incarnation]
        if broker.leads and view.leader_epoch == self.partitions[broker.view].leader_epoch:
            names.append(broker.claim)
        return any(
            not self.rules.needs_new_epoch(view, broker.number, incarnation_name(broker.number, name))
            for name in names
        )

    def take_view(self, broker: Broker, view_number: int) -> Broker:
        """Act by a partition state that is newer than the one before: lead, go on leading, or stop.

        A newer state settles every attempt: what was sent from an older one holds by now, or never will.
        """
        view = self.partitions[view_number]
        if not self._may_lead(broker, view):
            if view.leader != broker.number:
                view_number = self._as_followed(view)
            return self._resigned(broker)._replace(view=view_number)
        if broker.leads and view.leader_epoch == self.partitions[broker.view].leader_epoch:
            return broker._replace(view=view_number, attempted=())
        return self._start_leading(broker)._replace(view=view_number, claim=broker.incarnation)

    def _as_followed(self, view: PartitionState) -> int:
        """Return the number of a view without what only leaders look at, so that equal situations are equal states."""
        return self.partitions.intern(replace(view, isr=(), elr=(), leader_incarnation=""))

    def _start_leading(self, broker: Broker) -> Broker:
        """Begin with a high watermark of 0.

        Production begins with a high watermark that was true once; 0 lets more followers grow into the ISR and
        acknowledges every record again, so that it is compared again.
        """
        return broker._replace(
            leads=True,
            epoch_start=len(broker.log),
            high_watermark=0,
            attempted=(),
            progress=broker.progress or self._nobody,
        )

    def _resigned(self, broker: Broker) -> Broker:
        return broker._replace(
            leads=False,
            claim=broker.incarnation,
            epoch_start=0,
            high_watermark=0,
            attempted=(),
            progress=broker.progress if self._keeps_old_progress else (),
        )

    # -- the log --

    def sync(self, broker: Broker) -> Broker | None:
        """Return the broker after an fdatasync; None where nothing waits for one, or where syncing plays no part."""
        if self.bounds.flush_replicated or broker.synced == len(broker.log):
            return None
        return broker._replace(synced=len(broker.log))

    def append(self, broker: Broker) -> Broker | None:
        """Return the leader after a producer's record."""
        if not broker.leads or len(broker.log) >= self.bounds.log_length:
            return None
        epoch = self.partitions[broker.view].leader_epoch
        return broker._replace(log=(*broker.log, Record(epoch, broker.number, broker.incarnation)))

    def advance(self, broker: Broker) -> Broker | None:
        """Return the leader after its high watermark moved; None where it cannot."""
        if not broker.leads:
            return None
        view, switches = self.partitions[broker.view], self.switches
        attempted = [broker.attempted] if switches.counts_attempted else []
        members = high_watermark_replicas(view.isr, attempted)
        counted = view.isr if switches.tests_min_isr_on_confirmed else tuple(members)
        if switches.freezes_below_min_isr and not may_advance_high_watermark(
            counted, effective_min_isr(self.bounds.min_isr, view)
        ):
            return None
        high_watermark = min(self._counted_end(broker, ref, view.leader_epoch) for ref in members)
        if high_watermark <= broker.high_watermark:
            return None
        return broker._replace(high_watermark=high_watermark)

    def _counted_end(self, broker: Broker, ref: ReplicaRef, epoch: int) -> int:
        """Return up to where a member has the log, as far as the leader may believe; 0 if it may believe nothing."""
        switches = self.switches
        if ref.broker_id == broker.number:
            counts_synced = switches.leader_counts_synced and not self.bounds.flush_replicated
            return broker.synced if counts_synced else len(broker.log)
        progress = broker.progress[ref.broker_id]
        if progress is None:
            return 0
        if switches.counts_only_named_generation and progress.generation != ref.generation:
            return 0
        follower = FollowerProgress(ref.broker_id, *progress)
        if switches.counts_only_fetched_in_epoch and not fetched_in_epoch(follower, epoch):
            return 0
        return progress.log_end

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
        return (
            leader.number == fetch.leader
            and leader.leads
            and self.partitions[leader.view].leader_epoch == fetch.epoch
        )

    def diverging(self, leader: Broker, fetch: Fetch) -> tuple[int, int] | None:
        """Return (epoch, end offset) where the follower's log parts from the leader's, None where it does not."""
        if not self.switches.compares_epochs_on_fetch:
            return None
        if fetch.last_epoch == NO_EPOCH:
            return None
        epochs = _epochs_of(leader.log)
        epochs.assign(self.partitions[leader.view].leader_epoch, len(leader.log))
        epoch, end_offset = epochs.end_offset(fetch.last_epoch, len(leader.log))
        return (epoch, end_offset) if epoch < fetch.last_epoch or end_offset < fetch.log_end else None

    def note_fetch(self, leader: Broker, fetch: Fetch) -> Broker:
        """Return the leader with the progress that a fetch reports."""
        progress = list(leader.progress)
        progress[fetch.broker] = Progress(fetch.generation, fetch.epoch, fetch.reported_end)
        return leader._replace(progress=tuple(progress))

    def truncate(self, follower: Broker, epoch: int, end_offset: int) -> Broker:
        """Cut the follower's log where the leader's answer says that it parts (KIP-595)."""
        own_epoch, own_end = _epochs_of(follower.log).end_offset(epoch, len(follower.log))
        cut = max(0, min(end_offset, own_end if own_epoch >= 0 else end_offset, len(follower.log)))
        return follower._replace(log=follower.log[:cut], synced=min(follower.synced, cut))

    def replicate(self, follower: Broker, leader: Broker) -> Broker | None:
        """Append the leader's next record to the follower's log, None if it has none."""
        log_end = len(follower.log)
        if log_end >= len(leader.log):
            return None
        return follower._replace(log=(*follower.log, leader.log[log_end]))

    # -- ISR changes --

    def attempts(self, broker: Broker, leases: tuple[tuple[int, ...], ...]) -> Iterator[Attempt]:
        """Yield every ISR change that the leader may decide, whatever made it doubt a follower."""
        view = self.partitions[broker.view]
        others = [ref.broker_id for ref in view.isr if ref.broker_id != broker.number]
        subsets = [[other] for other in others] + ([others] if len(others) > 1 else [])
        for out_of_sync in subsets:
            target = shrink_isr(view, out_of_sync=out_of_sync, min_isr=self.bounds.min_isr, rules=self.rules)
            names = " and ".join(map(str, out_of_sync))
            yield self._attempt(
                broker, target, f"leader {broker.number} sends: broker {names} out of the ISR"
            )
        for number, progress in enumerate(broker.progress):
            if progress is None:
                continue
            generations = leases[number] if self.bounds.stale_leases else leases[number][-1:]
            for generation in sorted(set(generations)):
                target = self._grown(broker, view, number, progress, generation)
                if target != view:
                    label = f"leader {broker.number} sends: broker {number} into the ISR"
                    yield self._attempt(broker, target, label)

    def _grown(
        self, broker: Broker, view: PartitionState, number: int, progress: Progress, lease_generation: int
    ) -> PartitionState:
        target = grow_isr(
            view,
            FollowerProgress(number, *progress),
            live={number: identity(number, 1, lease_generation)},
            high_watermark=broker.high_watermark,
            epoch_start=broker.epoch_start,
            min_isr=self.bounds.min_isr,
            rules=self.rules,
        )
        if self.switches.grows_by_fetched_generation or target is view:
            return target
        named = [
            ReplicaRef(number, lease_generation) if ref.broker_id == number else ref for ref in target.isr
        ]
        return PartitionState(
            **{name: getattr(target, name) for name in target.__slots__} | {"isr": tuple(named)}
        )

    def _attempt(self, broker: Broker, target: PartitionState, label: str) -> Attempt:
        # Who is in the confirmed ISR counts anyway and is left out.
        confirmed = self.partitions[broker.view].isr
        attempted = tuple(sorted({*broker.attempted, *target.isr}.difference(confirmed)))
        return Attempt(label, broker._replace(attempted=attempted), target)

    # -- ends and starts --

    def starts(self, broker: Broker) -> Iterator[Start]:
        """Yield every way in which the broker may end and start again."""
        for start in self._starts(broker):
            yield start
            # What an ended life had under way matters only where it fetched.
            if self.bounds.late_fetches and self.leader_followed(broker) != NO_LEADER:
                yield start._replace(
                    label=f"{start.label}, a fetch of its stays under way", fetch=self.fetch(broker)
                )

    def _starts(self, broker: Broker) -> Iterator[Start]:
        number = broker.number
        crashed = self._next_life(broker)
        lengths = range(0 if self.bounds.flush_replicated else broker.synced, len(broker.log) + 1)
        if self.bounds.flush_replicated:
            yield from self._started(broker, crashed, f"broker {number}'s process crashes and starts")
            lost = self._with_new_generation(crashed)
            for length in lengths:
                label = f"broker {number}'s machine crashes, {length} records are left, it starts"
                yield from self._started(broker, lost._replace(log=broker.log[:length]), label)
        else:
            for length in lengths:
                label = f"broker {number} crashes, {length} records are left, it starts"
                yield from self._started(broker, crashed._replace(log=broker.log[:length]), label)
        wiped = self._with_new_generation(crashed)._replace(log=(), synced=0, view=NO_VIEW)
        yield Start(f"broker {number} loses its volume and starts with an empty one", wiped, clean=False)
        yield from self._damaged(broker, crashed)
        # A clean stop differs from a sync and a crash only where a leader resumes its epoch.
        if broker.leads:
            stopped = crashed._replace(synced=0 if self.bounds.flush_replicated else len(broker.log))
            label = f"broker {number} stops cleanly, starts, and resumes its epoch"
            yield Start(label, self._resumed(broker, stopped), clean=True)

    def _started(self, broker: Broker, started: Broker, label: str) -> Iterator[Start]:
        """Yield the starts after one crash."""
        yield Start(label, self._reconsider(started), clean=False)
        named = started.generation == broker.generation or not self.switches.leads_only_as_named
        if not self.switches.resumes_only_after_clean_stop and broker.leads and named:
            yield Start(f"{label} and resumes its epoch", self._resumed(broker, started), clean=False)
        if not self.switches.remembers_newest_state:
            forgetful = f"{label}; what it knew of the store is gone"
            yield Start(forgetful, started._replace(view=NO_VIEW), clean=False)

    def _next_life(self, broker: Broker) -> Broker:
        """Return what is left of a broker's memory."""
        incarnation = broker.incarnation + 1
        return self._resigned(broker)._replace(incarnation=incarnation, claim=incarnation, progress=())

    def _damaged(self, broker: Broker, crashed: Broker) -> Iterator[Start]:
        """Yield the starts that find less in the log than was synced, after a clean stop and all.

        After a crash, damage differs from a lost volume only by what is left of the log and of the cached state.
        """
        for length in range(len(broker.log)):
            label = f"broker {broker.number} stops cleanly, its log is damaged, {length} records are left, it starts"
            synced = 0 if self.bounds.flush_replicated else length
            damaged = crashed._replace(log=broker.log[:length], synced=synced)
            damaged = self._with_new_generation(damaged)
            yield Start(label, self._reconsider(damaged), clean=False)
            if broker.leads and not self.switches.leads_only_as_named:
                yield Start(f"{label} and resumes its epoch", self._resumed(broker, damaged), clean=False)

    def _with_new_generation(self, broker: Broker) -> Broker:
        return broker._replace(generation=broker.generation + (1 if self.switches.changes_generation else 0))

    def _reconsider(self, started: Broker) -> Broker:
        """Take the cached view after a start; it names another incarnation, so nothing comes of leading."""
        if started.view == NO_VIEW:
            return started
        return self.take_view(started, started.view)

    def _resumed(self, before: Broker, started: Broker) -> Broker:
        """Lead on in the cached epoch, in the name of the life that ended.

        Only after a clean stop, which is what the caller sees to.
        """
        attempted = before.attempted if self.switches.persists_attempts else ()
        return self._start_leading(started)._replace(claim=before.claim, attempted=attempted)


def _epochs_of(log: Log) -> LeaderEpochs:
    epochs = LeaderEpochs()
    for offset, record in enumerate(log):
        epochs.assign(record.epoch, offset)
    return epochs
