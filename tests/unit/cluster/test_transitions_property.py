"""Whatever happens in whatever order, the invariants of a partition hold (design sections 3.2 to 3.4).

Hypothesis drives a partition through random sequences of broker deaths, restarts, wipes, ISR changes,
elections, reassignments and changes of `min.insync.replicas`, checking every single step.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.cluster.support import broker, partition_set

from strandline_broker.cluster.model import NO_LEADER, BrokerIdentity, PartitionState
from strandline_broker.cluster.transitions import (
    Election,
    FollowerProgress,
    Load,
    Outcome,
    advance_reassignment,
    assign,
    assign_replicas,
    begin_reassignment,
    cancel_reassignment,
    change_config,
    effective_min_isr,
    elect,
    fence,
    grow_isr,
    is_moving,
    is_reassigning,
    react,
    recovered,
    renew_epoch,
    request_reassignment,
    shrink_isr,
    start_reassignment,
    target_of,
    with_factor,
)

BROKERS = range(5)


class World:
    """A partition, the brokers, and what the test knows besides: which start of a broker is which."""

    def __init__(self, replicas: int, min_isr: int, *, unclean: bool, flush_replicated: bool) -> None:
        self.min_isr = min_isr
        self.unclean = unclean
        self.flush_replicated = flush_replicated
        self.starts: Counter[int] = Counter()
        self.generations: Counter[int] = Counter(dict.fromkeys(BROKERS, 1))
        self.live: dict[int, BrokerIdentity] = {}
        for broker_id in BROKERS:
            self.start(broker_id)
        self.state = assign(1, replicas, list(self.live.values()), first_leader_epoch=5)[0]
        self.check(None, self.state)

    def start(self, broker_id: int, *, wiped: bool = False, draining: bool = False) -> None:
        self.starts[broker_id] += 1
        self.generations[broker_id] += wiped
        incarnation = f"{broker_id}.{self.starts[broker_id]}"
        self.live[broker_id] = broker(broker_id, self.generations[broker_id], incarnation, draining=draining)

    def become(self, new: PartitionState, *, renewed: bool = False) -> None:
        self.check(self.state, new, renewed=renewed)
        self.state = new

    def check(self, old: PartitionState | None, new: PartitionState, *, renewed: bool = False) -> None:
        isr, elr = set(new.isr_ids), {ref.broker_id for ref in new.elr}
        assert isr, "the ISR never loses its last member"
        assert len(isr) == len(new.isr)
        assert isr | elr <= set(new.replicas)
        assert not isr & elr
        assert set(new.adding) | set(new.removing) <= set(new.replicas)
        assert not set(new.adding) & set(new.removing)
        assert not new.target or not is_moving(new), "what waits for its turn has not begun"
        assert is_reassigning(new) == (set(target_of(new)) != set(new.replicas) or bool(new.adding))
        assert len(set(new.replicas)) == len(new.replicas)
        assert not elr or len(isr) < effective_min_isr(self.min_isr, new), "an ELR only below the minimum"
        assert new.leader == NO_LEADER or new.leader in isr
        assert (new.leader == NO_LEADER) == (new.leader_incarnation == "")
        if old is None:
            return
        assert new.leader_epoch >= old.leader_epoch
        assert (new == old) == (new.partition_epoch == old.partition_epoch)
        assert new.partition_epoch >= old.partition_epoch
        led_by_another = (new.leader, new.leader_incarnation) != (old.leader, old.leader_incarnation)
        assert (led_by_another or renewed) == (new.leader_epoch > old.leader_epoch)
        assert PartitionState.from_object(new.to_object()) == new

    def check_election(self, old: PartitionState, election: Election) -> None:
        new = election.state
        assert old.partition_epoch <= new.partition_epoch <= old.partition_epoch + 1
        if election.outcome in (Outcome.UNCHANGED, Outcome.OFFLINE):
            return
        leader = self.live[new.leader]
        ref = next(ref for ref in new.isr if ref.broker_id == new.leader)
        assert ref.generation == leader.generation, "who leads has the log it was named with"
        assert new.leader_incarnation == leader.incarnation
        if election.outcome is Outcome.IN_SYNC:
            assert ref in old.isr
        elif election.outcome is Outcome.ELIGIBLE:
            assert ref in old.elr
            assert new.isr == (ref,)
        elif election.outcome is Outcome.POSSIBLE_LOSS:
            assert self.flush_replicated
            assert effective_min_isr(self.min_isr, old) == 1
            assert {named.broker_id for named in fence(old, live=self.live, min_isr=self.min_isr).isr} == {
                leader.broker_id
            }
        else:
            assert election.outcome is Outcome.UNCLEAN
            assert self.unclean
        assert election.may_lose_records == (election.outcome in (Outcome.POSSIBLE_LOSS, Outcome.UNCLEAN))
        if election.outcome is not Outcome.IN_SYNC:
            assert not [
                named
                for named in old.isr
                if named.broker_id in self.live and self.live[named.broker_id].generation == named.generation
            ], "nobody outside the ISR leads while a member with its log lives"


def take_step(world: World, draw: Any) -> None:
    broker_id = draw(st.sampled_from(BROKERS))
    state, live, min_isr = world.state, world.live, world.min_isr
    action = draw(st.sampled_from(sorted(ACTIONS)))
    if action == "die":
        world.live.pop(broker_id, None)
    elif action in ("start", "start wiped", "start draining"):
        world.start(broker_id, wiped=action == "start wiped", draining=action == "start draining")
    elif action == "fence":
        world.become(fence(state, live=live, min_isr=min_isr))
    elif action in ("elect", "elect preferred", "react"):
        decide: Any = react if action == "react" else elect
        options = {"prefer_first": True} if action == "elect preferred" else {}
        election = decide(
            state,
            live=live,
            min_isr=min_isr,
            unclean_allowed=world.unclean,
            flush_replicated=world.flush_replicated,
            tierable=True,
            **options,
        )
        world.check_election(state, election)
        assert election.state.recovering == (state.recovering or election.may_lose_records)
        world.become(election.state)
    elif action == "shrink":
        gone = draw(st.sets(st.sampled_from(BROKERS)))
        new = shrink_isr(state, out_of_sync=gone, min_isr=min_isr)
        assert state.leader not in state.isr_ids or state.leader in new.isr_ids
        world.become(new)
    elif action == "grow":
        follower = FollowerProgress(
            broker_id,
            draw(st.integers(1, world.generations[broker_id])),
            draw(st.integers(state.leader_epoch - 1, state.leader_epoch)),
            draw(st.integers(0, 20)),
        )
        new = grow_isr(state, follower, live=live, high_watermark=10, epoch_start=12, min_isr=min_isr)
        if set(new.isr) - set(state.isr):
            assert follower.fetched_epoch == state.leader_epoch
            assert live[broker_id].generation == follower.generation
            assert follower.log_end >= 12
            assert broker_id in state.replicas
        world.become(new)
    elif action in ("reassign", "request"):
        target = draw(st.lists(st.sampled_from(BROKERS), min_size=1, max_size=4, unique=True))
        new = (start_reassignment if action == "reassign" else request_reassignment)(state, target)
        assert set(new.isr) == set(state.isr)
        assert target_of(new) == tuple(target)
        assert not new.target or new.replicas == state.replicas
        world.become(new)
    elif action == "begin":
        new = begin_reassignment(state)
        assert (new is state) == (not state.target)
        assert target_of(new) == target_of(state)
        world.become(new)
    elif action == "cancel":
        if any(b not in state.adding for b in state.replicas):
            world.become(cancel_reassignment(state))
    elif action == "advance":
        new = advance_reassignment(state, live=live, min_isr=min_isr)
        if new.replicas != state.replicas:
            assert set(state.adding) <= set(new.isr_ids)
            assert len(new.isr) >= effective_min_isr(min_isr, new)
        world.become(new)
    elif action == "recover":
        epoch = draw(st.integers(state.leader_epoch - 1, state.leader_epoch))
        new = recovered(state, broker_id=broker_id, leader_epoch=epoch)
        if new is not state:
            assert (state.leader, state.leader_epoch, state.recovering) == (broker_id, epoch, True)
            assert new == replace(state, recovering=False, partition_epoch=state.partition_epoch + 1)
        world.become(new)
    elif action == "renew":
        epoch = draw(st.integers(state.leader_epoch - 1, state.leader_epoch))
        above, recovering = draw(st.integers(0, state.leader_epoch + 3)), draw(st.booleans())
        new = renew_epoch(state, broker_id=broker_id, leader_epoch=epoch, above=above, recovering=recovering)
        if new is not state:
            assert (state.leader, state.leader_epoch) == (broker_id, epoch)
            assert new.leader_epoch > max(epoch, above)
            assert (new.isr, new.elr, new.leader_incarnation) == (
                state.isr,
                state.elr,
                state.leader_incarnation,
            )
        world.become(new, renewed=new is not state)
    else:
        assert action == "configure"
        world.min_isr = draw(st.integers(1, 4))
        part = partition_set(state, config={"min.insync.replicas": str(min_isr)})
        changed = change_config(part, {"min.insync.replicas": str(world.min_isr)})
        assert changed.topic_epoch == part.topic_epoch + (world.min_isr != min_isr)
        new = changed.partitions[0]
        assert set(new.elr) <= set(state.elr), "a setting makes nobody eligible"
        world.become(new)
    if action not in ("elect", "elect preferred", "react", "recover", "renew"):
        assert world.state.recovering == state.recovering


ACTIONS = (
    "die", "start", "start wiped", "start draining", "fence", "elect", "elect preferred", "react", "shrink",
    "grow", "reassign", "request", "begin", "cancel", "advance", "configure", "recover",
    "renew",
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.booleans())
def test_invariants_hold_at_every_step(
    data: st.DataObject, replicas: int, min_isr: int, unclean: bool, flush_replicated: bool
) -> None:
    world = World(replicas, min_isr, unclean=unclean, flush_replicated=flush_replicated)
    for _ in range(data.draw(st.integers(1, 30))):
        take_step(world, data.draw)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(1, 4))
def test_transitions_are_idempotent(data: st.DataObject, replicas: int, min_isr: int) -> None:
    world = World(replicas, min_isr, unclean=False, flush_replicated=False)
    for _ in range(data.draw(st.integers(1, 10))):
        take_step(world, data.draw)
    once = react(world.state, live=world.live, min_isr=world.min_isr).state
    again = react(once, live=world.live, min_isr=world.min_isr)
    assert again == Election(once, Outcome.UNCHANGED)


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[tuple[int, str | None]], int]:
    count = draw(st.integers(1, 12))
    racks = draw(st.sampled_from([1, 2, 3, count, None]))
    brokers = [(broker_id, None if racks is None else f"r{broker_id % racks}") for broker_id in range(count)]
    return brokers, draw(st.integers(1, min(count, 5)))


@settings(max_examples=200, deadline=None)
@given(clusters(), st.integers(1, 40))
def test_assignment_spreads_over_racks_brokers_and_leaders(
    cluster: tuple[list[tuple[int, str | None]], int], partitions: int
) -> None:
    brokers, factor = cluster
    placed = assign_replicas(partitions, factor, brokers)
    assert len(placed) == partitions
    rack_of = {broker_id: rack or str(broker_id) for broker_id, rack in brokers}
    for replicas in placed:
        assert len(set(replicas)) == factor
        assert len({rack_of[b] for b in replicas}) == min(factor, len(set(rack_of.values())))
    counts = Counter(dict.fromkeys(rack_of, 0))
    leaders = counts.copy()
    counts.update(b for replicas in placed for b in replicas)
    leaders.update(replicas[0] for replicas in placed)
    if len(set(rack_of.values())) in (1, len(brokers)):
        assert max(counts.values()) - min(counts.values()) <= 1
        assert max(leaders.values()) - min(leaders.values()) <= 1
    shuffled = list(reversed(brokers))
    assert assign_replicas(partitions, factor, shuffled) == placed, "the order of the input does not matter"


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 8), st.integers(1, 3), st.lists(st.integers(1, 6), min_size=1, max_size=12))
def test_many_small_topics_spread_as_one_large_one_would(count: int, factor: int, topics: list[int]) -> None:
    brokers: list[tuple[int, str | None]] = [(broker_id, None) for broker_id in range(count)]
    load = Load()
    for partitions in topics:
        placed = assign_replicas(partitions, min(factor, count), brokers, load=load)
        states = assign(partitions, min(factor, count), [broker(b) for b, _ in brokers], load=load)
        assert [state.replicas for state in states] == placed
        more = Load.of([partition_set(*states)])
        load.replicas.update(more.replicas)
        load.leaders.update(more.leaders)
    for counter, slack in ((load.replicas, 1), (load.leaders, 2)):
        values = [counter[broker_id] for broker_id in range(count)]
        assert max(values) - min(values) <= slack


@settings(max_examples=200, deadline=None)
@given(clusters(), st.integers(1, 20), st.integers(1, 5), st.sets(st.integers(0, 11)))
def test_another_factor_keeps_racks_and_brokers_even(
    cluster: tuple[list[tuple[int, str | None]], int], partitions: int, wanted: int, in_sync: set[int]
) -> None:
    named, factor = cluster
    brokers = [broker(broker_id, rack=rack) for broker_id, rack in named]
    wanted = min(wanted, len(brokers))
    placed = assign_replicas(partitions, factor, named)
    load = Load(Counter(b for replicas in placed for b in replicas), Counter(r[0] for r in placed))
    rack_of = {broker_id: rack or str(broker_id) for broker_id, rack in named}
    for before in placed:
        after = with_factor(before, wanted, brokers, in_sync=in_sync, load=load)
        assert len(set(after)) == wanted
        assert set(after) <= set(before) or set(before) <= set(after)
        if wanted >= factor:
            assert len({rack_of[b] for b in after}) == min(wanted, len(set(rack_of.values())))
        else:
            assert len(in_sync.intersection(after)) == min(wanted, len(in_sync.intersection(before)))
            assert before[0] not in in_sync or after[0] == before[0]
        if wanted == factor:
            assert after == before
        load.replicas.subtract(before)
        load.replicas.update(after)
        load.leaders.subtract(before[:1])
        load.leaders.update(after[:1])
        assert with_factor(after, wanted, brokers[::-1], in_sync=in_sync, load=load) == after
    counts = [load.replicas[broker_id] for broker_id in rack_of]
    if len(set(rack_of.values())) in (1, len(brokers)) and wanted >= factor:
        assert max(counts) - min(counts) <= 2


@given(st.integers(0, 3))
def test_a_changed_partition_epoch_is_the_only_trace_of_nothing(extra: int) -> None:
    # The checks above rely on equality; a field that equality ignored would blind them.
    world = World(3, 1, unclean=False, flush_replicated=False)
    assert (replace(world.state, partition_epoch=world.state.partition_epoch + extra) == world.state) == (
        extra == 0
    )
