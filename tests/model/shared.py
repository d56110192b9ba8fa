"""What happens outside the brokers: the cluster store, controllers, writes on their way, and what was promised.

A controller that decided from an old read needs no state of its own. The store takes its write only while the partition
epoch is the one that it read, so what lands was decided from the stored partition state, though maybe from old Leases:
`decisions` takes any mixture of them, and any broker for dead or draining. Two controllers at once are the same twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import NamedTuple

from tests.model.broker import identity
from tests.model.settings import Bounds, Switches
from tests.model.state import Fetch, Log, Shared, Table

from strandline_broker.cluster.model import NO_LEADER, BrokerIdentity, PartitionState
from strandline_broker.cluster.transitions import Outcome, elect, react

Leases = tuple[tuple[int, ...], ...]


class Decision(NamedTuple):
    """A controller's write. `loss_of`: the broker whose loss an Event announces (design section 3.2), or None."""

    label: str
    partition: int
    loss_of: int | None


class SharedMoves:
    """Every step outside the brokers. Methods that return None cannot be taken in that state."""

    def __init__(self, bounds: Bounds, switches: Switches, partitions: Table[PartitionState]) -> None:
        self.bounds = bounds
        self.switches = switches
        self.partitions = partitions
        self._decisions: dict[tuple[int, Leases], list[Decision]] = {}

    def intern(self, state: PartitionState) -> int:
        """Return the number of a partition state. The partition epoch is left out, see `Shared`."""
        return self.partitions.intern(replace(state, partition_epoch=0))

    # -- writes --

    def land(self, shared: Shared) -> Iterator[tuple[str, Shared]]:
        """Yield what the store holds after each write in flight."""
        for target in shared.in_flight:
            if self.partitions[target].leader_epoch < self.bounds.epochs:
                yield f"the store takes: {describe(self.partitions[target])}", self._stored(shared, target)

    def _stored(self, shared: Shared, target: int) -> Shared:
        """Return the store after a write. Views are old from now on, and so is whatever is in flight."""
        before, after = self.partitions[shared.partition], self.partitions[target]
        broken = ""
        same_epoch = before.leader_epoch == after.leader_epoch
        if same_epoch and before.leader != after.leader:
            broken = f"epoch {after.leader_epoch} belongs to brokers {before.leader} and {after.leader}"
        former = shared.former
        if not same_epoch and (self.bounds.late_views or not self.switches.remembers_newest_state):
            former = (*former, shared.partition)
        in_flight: tuple[int, ...] = ()
        if not self.switches.compares_and_swaps:
            in_flight = tuple(other for other in shared.in_flight if other != target)
        return shared._replace(partition=target, current=0, in_flight=in_flight, former=former, broken=broken)

    def attempt(self, shared: Shared, number: int, target: int) -> Shared | None:
        """Put a leader's write into flight; one decided from an old view could not land."""
        if self.switches.compares_and_swaps and not shared.current & (1 << number):
            return None
        if target in shared.in_flight or len(shared.in_flight) >= self.bounds.writes_in_flight:
            return None
        return shared._replace(in_flight=tuple(sorted((*shared.in_flight, target))))

    def give_up(self, shared: Shared, number: int) -> Shared:
        """Return what is shared after a broker learned that its writes were refused."""
        return shared._replace(refused=shared.refused & ~(1 << number))

    # -- controllers --

    def decide(self, shared: Shared, decision: Decision, survivor: Log) -> Shared:
        """Return the store after a controller's write. `survivor`: the log of the broker in `loss_of`."""
        stored = self._stored(shared, decision.partition)
        if shared.in_flight:
            stored = stored._replace(refused=shared.refused | shared.current)
        if decision.loss_of is None:
            return stored
        kept = 0
        while (
            kept < min(len(survivor), len(shared.acknowledged))
            and survivor[kept] == shared.acknowledged[kept]
        ):
            kept += 1
        epoch = self.partitions[decision.partition].leader_epoch
        return stored._replace(acknowledged=shared.acknowledged[:kept], void_below=epoch)

    def decisions(self, partition: int, leases: Leases) -> list[Decision]:
        """Return the different writes that controllers may decide, with the simplest reason for each."""
        key = (partition, leases)
        if key not in self._decisions:
            self._decisions[key] = list(self._find_decisions(partition, leases))
        return self._decisions[key]

    def _find_decisions(self, partition: int, leases: Leases) -> Iterator[Decision]:
        state = self.partitions[partition]
        found = {state}
        for live in self._live_views(leases):
            for preferred, decide in ((False, self._react), (True, self._prefer_first)):
                target, outcome = decide(state, live)
                assert target is state or target.partition_epoch > state.partition_epoch
                target = replace(target, partition_epoch=0)
                if target in found or target.leader_epoch >= self.bounds.epochs:
                    continue
                found.add(target)
                loss_of = target.leader if outcome is Outcome.POSSIBLE_LOSS else None
                reason = "prefers the first replica" if preferred else _reason(live, len(leases))
                yield Decision(
                    f"a controller {reason} and stores: {describe(target)}", self.intern(target), loss_of
                )

    def _live_views(self, leases: Leases) -> Iterator[dict[int, BrokerIdentity]]:
        """Yield what a controller may take for alive, from the newest Leases of all to mixtures of old ones."""
        choices: list[list[BrokerIdentity | None]] = []
        for number, generations in enumerate(leases):
            identities = [
                identity(number, incarnation, generation, draining=draining)
                for draining in (False, True)
                for incarnation, generation in reversed(list(enumerate(generations, 1)))
                if self.bounds.stale_leases or incarnation == len(generations)
            ]
            choices.append([identities[0], None, *identities[1:]])
        views = sorted(
            product(*choices),
            key=lambda view: sum(choice.index(broker) for choice, broker in zip(choices, view, strict=True)),
        )
        for view in views:
            yield {broker.broker_id: broker for broker in view if broker is not None}

    def _react(
        self, state: PartitionState, live: dict[int, BrokerIdentity]
    ) -> tuple[PartitionState, Outcome]:
        election = react(
            state,
            live=live,
            min_isr=self.bounds.min_isr,
            unclean_allowed=not self.switches.elects_only_eligible,
            flush_replicated=self.bounds.flush_replicated,
            rules=self.switches.rules,
        )
        return election.state, election.outcome

    def _prefer_first(
        self, state: PartitionState, live: dict[int, BrokerIdentity]
    ) -> tuple[PartitionState, Outcome]:
        election = elect(
            state,
            live=live,
            min_isr=self.bounds.min_isr,
            flush_replicated=self.bounds.flush_replicated,
            prefer_first=True,
            rules=self.switches.rules,
        )
        return election.state, election.outcome

    # -- brokers' starts and views, as far as others see them --

    def started(
        self, shared: Shared, number: int, generation: int, leads: bool, clean: bool, fetch: Fetch | None
    ) -> Shared | None:
        """Return what is shared after a broker's start; None where the bounds allow no more of them."""
        if (shared.clean_restarts if clean else shared.crashes) == 0:
            return None
        leases = tuple(
            (*generations, generation) if broker == number else generations
            for broker, generations in enumerate(shared.leases)
        )
        kept = shared.late_fetch
        if kept is not None and kept.leader == number:
            kept = None  # the connection went with the process
        return shared._replace(
            crashes=shared.crashes - (not clean),
            clean_restarts=shared.clean_restarts - clean,
            leases=leases,
            current=shared.current if leads else shared.current & ~(1 << number),
            refused=shared.refused & ~(1 << number),
            late_fetch=fetch if fetch is not None else kept,
        )

    def log_failed(self, shared: Shared) -> Shared | None:
        """Return what is shared after a log failed; None where the bounds allow no more of that."""
        return shared._replace(crashes=shared.crashes - 1) if shared.crashes else None

    def viewed(self, shared: Shared, number: int, epoch: int, writes: bool, newest: bool) -> Shared:
        """Return what is shared after a broker took over a view of this epoch, maybe the newest.

        `writes`: whether it may write to the partition now.
        """
        bit = 1 << number
        current = shared.current | bit if writes and newest else shared.current & ~bit
        fetch = shared.late_fetch
        if fetch is not None and fetch.leader == number and fetch.epoch < epoch:
            fetch = None  # nobody would accept it any more
        return shared._replace(current=current, refused=shared.refused & ~bit, late_fetch=fetch)

    # -- promises --

    def acknowledge(self, shared: Shared, passed: Log, epoch: int) -> Shared:
        """Return what is promised after the high watermark of a leader in `epoch` passed these records."""
        if epoch < shared.void_below:
            return shared
        for offset, (old, new) in enumerate(zip(shared.acknowledged, passed, strict=False)):
            if old != new:
                broken = f"{old} and then {new} were acknowledged, and seen, at offset {offset}"
                return shared._replace(broken=broken)
        if len(passed) <= len(shared.acknowledged):
            return shared
        return shared._replace(acknowledged=passed)


def _reason(live: dict[int, BrokerIdentity], brokers: int) -> str:
    """Return what a controller believes, as far as it matters to a reader."""
    absent = [str(number) for number in range(brokers) if number not in live]
    draining = [str(number) for number, broker in live.items() if broker.draining]
    starts = ", ".join(broker.incarnation for broker in live.values())
    parts = []
    if absent:
        parts.append(f"takes {' and '.join(absent)} for dead")
    if draining:
        parts.append(f"sees {' and '.join(draining)} drain")
    parts.append(f"sees Leases of {starts or 'nobody'}")
    return ", ".join(parts)


def describe(state: PartitionState) -> str:
    """Return a partition state in a few words."""
    leader = "no leader" if state.leader == NO_LEADER else f"leader {state.leader_incarnation}"
    text = f"epoch {state.leader_epoch}, {leader}, ISR {_refs(state.isr)}"
    return f"{text}, ELR {_refs(state.elr)}" if state.elr else text


def _refs(refs: tuple[tuple[int, int], ...]) -> str:
    return "{" + ", ".join(f"{broker}/{generation}" for broker, generation in refs) + "}"
