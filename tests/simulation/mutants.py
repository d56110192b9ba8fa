"""The product with one rule broken: the simulator has to notice each of them.

A mutant replaces one function for as long as a schedule runs. `steps` are the few faults that show it, found by search
(`run.py --mutants` with random schedules) or by thinking; the test suite runs these, which takes about a second each.
"""

from __future__ import annotations

from typing import Any

from tests.simulation.mutant import Mutant, Patch, step
from tests.simulation.schedule import Step
from tests.simulation.tiering_mutants import TIERING_MUTANTS

from strandline_broker.cluster.transitions import election
from strandline_broker.cluster.transitions.rules import RULES
from strandline_broker.coordinator.runtime import CoordinatorRuntime
from strandline_broker.log.producer_state import ProducerState
from strandline_broker.log.sync_work import SyncWork
from strandline_broker.replica import leadership
from strandline_broker.replica.fetcher import LeaderFetcher
from strandline_broker.replica.leadership import Leadership
from strandline_broker.replica.manager import ReplicaManager
from strandline_broker.replica.partition import Partition


def _sync_nothing() -> list[Patch]:
    return [(SyncWork, "run", lambda self: None)]


def _leader_counts_unsynced() -> list[Patch]:
    advance, commit = Partition.advance_high_watermark, Partition.commit

    def mutated_advance(self: Partition) -> None:
        fsync, self._fsync = self._fsync, False
        try:
            advance(self)
        finally:
            self._fsync = fsync

    def mutated_commit(self: Partition) -> bool:
        wanted = commit(self)
        mutated_advance(self)
        return wanted

    return [(Partition, "advance_high_watermark", mutated_advance), (Partition, "commit", mutated_commit)]


def _follower_vouches_unsynced() -> list[Patch]:
    async def until_durable(self: LeaderFetcher) -> None:
        for key in list(self._unsynced):
            one = self._followed[key]
            del self._unsynced[key]
            self._learn(one)

    return [
        (LeaderFetcher, "_until_durable", until_durable),
        (Partition, "replicated_end", property(lambda self: self.log.end_offset)),
    ]


def _attempts_do_not_count() -> list[Patch]:
    return [(leadership, "high_watermark_replicas", lambda confirmed, attempted: frozenset(confirmed))]


def _attempts_count_as_confirmed() -> list[Patch]:
    def replicas(confirmed: Any, attempted: Any) -> frozenset[Any]:
        attempts = list(attempted)
        return frozenset(attempts[-1] if attempts else confirmed)

    return [(leadership, "high_watermark_replicas", replicas)]


def _silent_followers_count() -> list[Patch]:
    def committed_end(self: Leadership, own_end: int) -> int:
        ends = [follower.log_end for follower in self.followers.values() if self.counts(follower.broker_id)]
        return min([own_end, *ends])

    return [(Leadership, "committed_end", committed_end)]


def _no_divergence() -> list[Patch]:
    return [(Partition, "diverging_epoch", lambda self, last_fetched_epoch, fetch_offset: None)]


def _crashed_leader_resumes() -> list[Patch]:
    def may_lead(self: ReplicaManager, state: Any) -> bool:
        return bool(state.leader == self._broker_id and self._own_ref in state.isr)

    return [(ReplicaManager, "_may_lead", may_lead)]


def _elect_anybody() -> list[Patch]:
    outside = election._elect_outside_isr

    def unclean(*args: Any, **named: Any) -> Any:
        return outside(*args, **{**named, "unclean_allowed": True})

    def last_first(state: Any, live: Any, *rest: Any) -> list[Any]:
        return [live[broker_id] for broker_id in state.replicas[::-1] if broker_id in live]

    return [
        (election, "_candidates", lambda state, refs, live, rules: []),
        (election, "_elect_outside_isr", unclean),
        (election, "_unclean_candidates", last_first),
    ]


def _no_minimum() -> list[Patch]:
    lead = Partition.lead

    def mutated(self: Partition, own: Any, state: Any, min_isr: int, *rest: Any, **named: Any) -> None:
        lead(self, own, state, 1, *rest, **named)

    return [(Partition, "lead", mutated)]


def _no_sequences() -> list[Patch]:
    return [(ProducerState, "judge", lambda self, *args: None)]


def _coordinator_is_hasty() -> list[Patch]:
    append = CoordinatorRuntime._append

    def mutated(self: Any, slot: Any, effects: Any) -> Any:
        failed = append(self, slot, effects)
        if failed is None and slot.appends:
            last = slot.appends[-1]
            for ticket, body in last.committed:
                ticket.answer(body)
        return failed

    return [(CoordinatorRuntime, "_append", mutated)]


def _generations_do_not_matter() -> list[Patch]:
    return [
        (RULES, "generation_matches", lambda ref, live: live.get(ref.broker_id) is not None),
        (
            ReplicaManager,
            "_may_lead",
            lambda self, state: (
                state.leader == self._broker_id
                and state.leader_incarnation in self._incarnations
                and self._broker_id in state.isr_ids
            ),
        ),
    ]


def _all_means_one() -> list[Patch]:
    commit = Partition.commit

    def mutated(self: Partition) -> bool:
        for waiter, _, _ in self._staged:
            if waiter.acks == -1 and not waiter.patient:
                waiter.acks = 1
        return commit(self)

    return [(Partition, "commit", mutated)]


def _slow(at: float, *nodes: int, stall: float = 2.0, lasts: float = 5.0) -> tuple[Step, ...]:
    return tuple(step(at, "slow-disk", node=node, stall=stall, lasts=lasts) for node in nodes)


def _power_cut(at: float, *down: float) -> Step:
    return step(at, "power-cut", down=list(down), torn=False, stall=0.0)


def _kill(at: float, node: int, down: float) -> Step:
    return step(at, "kill", node=node, down=down)


def _isolate(at: float, node: int, store: str, lasts: float) -> Step:
    return step(at, "isolate", node=node, store=store, lasts=lasts)


MUTANTS: dict[str, Mutant] = {
    "sync-nothing": Mutant(
        "a sync is reported done without being done", _sync_nothing, (_power_cut(8, 0.5, 1.0, 1.5),)
    ),
    "leader-counts-unsynced": Mutant(
        "the leader counts its own unsynced bytes for the high watermark",
        _leader_counts_unsynced,
        (*_slow(6, 0, stall=4.0, lasts=1.9), _power_cut(8, 0.3, 3.0, 3.5)),
    ),
    "follower-vouches-unsynced": Mutant(
        "a follower fetches from beyond its synced end",
        _follower_vouches_unsynced,
        (*_slow(6, 1, 2), _power_cut(8, 6.0, 0.3, 0.5)),
    ),
    "attempts-do-not-count": Mutant(
        "the high watermark waits for the confirmed ISR only, not for attempted ones",
        _attempts_do_not_count,
        (
            _isolate(5, 2, "no", 4.0),
            step(8.0, "store", what="lost_answer", chance=1.0, lasts=8.0),
            step(8.0, "watch-lag", host="broker-0", lag=9.0, lasts=9.0),
            step(8.0, "watch-lag", host="broker-1", lag=9.0, lasts=9.0),
            _isolate(9.6, 2, "no", 4.0),
            _kill(12, 0, 9.0),
            _kill(12, 1, 9.0),
        ),
    ),
    "shrink-before-confirmed": Mutant(
        "an ISR change counts as soon as it is attempted",
        _attempts_count_as_confirmed,
        (_isolate(5, 0, "too", 8.0),),
    ),
    "silent-followers-count": Mutant(
        "members that did not fetch in this epoch do not hold the high watermark back",
        _silent_followers_count,
        (
            step(5.9, "cut-brokers", hosts=["broker-1", "broker-2"], both=True, reset=True, lasts=1.9),
            _kill(6, 0, 8.0),
            _kill(7.8, 1, 8.0),
        ),
    ),
    "no-divergence": Mutant(
        "the leader does not compare logs with its followers'", _no_divergence, (_isolate(5, 0, "too", 8.0),)
    ),
    "crashed-leader-resumes": Mutant(
        "a leader that crashed goes on in its old epoch",
        _crashed_leader_resumes,
        (step(6, "blackout", nodes=[0], how="kill", lasts=3.0),),
    ),
    "elect-anybody": Mutant(
        "anybody alive is elected, in sync or not",
        _elect_anybody,
        (_isolate(5, 2, "no", 6.0), _kill(9, 0, 6.0)),
    ),
    "no-minimum": Mutant(
        "leaders ignore min.insync.replicas", _no_minimum, (_isolate(5, 0, "no", 6.0), _kill(9, 0, 9.0))
    ),
    "no-sequences": Mutant(
        "sequence numbers of producers are not checked",
        _no_sequences,
        (
            *_slow(6, 0, 1, 2, stall=1.0, lasts=4.0),
            *(step(7 + number / 2, "reset", node=number % 3, clients=True) for number in range(6)),
        ),
    ),
    "hasty-coordinator": Mutant(
        "the coordinator answers before its records are committed",
        _coordinator_is_hasty,
        tuple(
            step
            for at in (7.0, 13.0, 19.0, 25.0)
            for step in (*_slow(at - 2, 1, 2, stall=1.0, lasts=1.9), _power_cut(at, 3.0, 0.3, 0.3))
        ),
    ),
    "no-generations": Mutant(
        "a broker with another log generation may lead",
        _generations_do_not_matter,
        (step(6, "controller", how="pause", lasts=3.0), step(6.5, "wipe", node=0, down=0.3)),
    ),
    "all-means-one": Mutant(
        "acks=all is answered as acks=1", _all_means_one, (_isolate(6, 0, "no", 1.5), _kill(7.4, 0, 8.0))
    ),
    **TIERING_MUTANTS,
}
