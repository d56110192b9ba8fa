"""The controller of one Cluster: observe, decide, apply, again and again, over any ClusterStore.

`strandline dev` runs it beside its supervisor, the Kopf daemon runs it in Kubernetes. All knowledge is in the store and
in the informer's caches; a controller may be killed at any moment and another go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from strandline_broker.cluster.backoff import Backoff
from strandline_broker.cluster.cluster_settings import (
    AUTO_LEADER_REBALANCE,
    LEADER_IMBALANCE_CHECK_INTERVAL,
    setting_or_default,
)
from strandline_broker.cluster.model import (
    LEASE,
    MALFORMED,
    PARTITION_SET,
    BrokerIdentity,
    Object,
    PartitionSet,
)
from strandline_broker.cluster.store import (
    AlreadyExists,
    ClusterStore,
    Conflict,
    Invalid,
    NotFound,
    StoreError,
    Unavailable,
)
from strandline_broker.cluster.view import CONTROLLER_KINDS, Change, ClusterView
from strandline_operator.controller.actions import Action, Create, Delete, Notice, Patch, Priority
from strandline_operator.controller.balance import RETURNING, LeaderBalance
from strandline_operator.controller.conditions import Reason, Trouble
from strandline_operator.controller.decisions import Decision, decide
from strandline_operator.controller.liveness import LivenessTracker
from strandline_operator.controller.pacing import StatusPacer
from strandline_operator.controller.tier_figures import Figures
from strandline_operator.controller.world import World, group_sets, read_grace_period_ms

logger = logging.getLogger(__name__)

_APPLYING = Trouble(
    Reason.APPLYING, "brokers are brought in line with the spec", ready=True, own_condition=False
)

# (kind, name, version) of an object as a write left it; the version is empty when the object is gone.
Written = tuple[str, str, str]

# Measured on a real API server: 16 concurrent writes use it up, 64 bring little more.
WRITE_CONCURRENCY = 16
# After its start the controller waits so long for brokers that have not come yet: before it places new partitions
# without them, and before it judges those dead that it never saw alive.
PLACEMENT_PATIENCE_S = 10.0
# While every pass has something to do, statuses wait: most would describe a moment. They wait no longer than this.
STATUS_DELAY_MAX_S = 1.0
# The controller looks at the clock so often. In a longer gap its process was held up (SIGSTOP, a starved or sleeping
# machine): no renewal could have been seen, so the gap counts against nobody.
CLOCK_INTERVAL_S = 0.5
# From here on a gap is worth somebody's attention: deciding about very many partitions takes a second, too.
HELD_UP_LONG_S = 5.0
# How long a pass waits to see its own writes in the cache. What it missed by then shows up as a conflict.
OWN_WRITES_TIMEOUT_S = 2.0


class Controller:
    """Runs one Cluster until cancelled.

    `monotonic` (seconds) judges Leases and paces status writes, `now_ms` (wall clock) writes timestamps and ends grace
    periods. `notify` gets what a person should learn; it must not block.
    """

    def __init__(
        self,
        store: ClusterStore,
        cluster_name: str,
        *,
        monotonic: Callable[[], float],
        now_ms: Callable[[], int],
        notify: Callable[[Notice], None],
        liveness: LivenessTracker | None = None,
        rng: random.Random | None = None,
        placement_patience_s: float = PLACEMENT_PATIENCE_S,
    ) -> None:
        self.view = ClusterView(store, cluster_name, kinds=CONTROLLER_KINDS, rng=rng)
        self.liveness = liveness if liveness is not None else LivenessTracker()
        # Set while nothing is left to do or to wait for.
        self.quiet = asyncio.Event()
        self._store = store
        self._cluster_name = cluster_name
        self._monotonic = monotonic
        self._now_ms = now_ms
        self._notify = notify
        self._patience_s = placement_patience_s
        self._rng = rng if rng is not None else random.SystemRandom()
        self._bootstrap = ""
        self._outside: tuple[Trouble, ...] = ()
        self._listeners: tuple[Mapping[str, Any], ...] = ()
        self._tiers: Figures = {}
        self._pacer = StatusPacer()
        self._balance = LeaderBalance()
        self._wake = asyncio.Event()
        self._look = asyncio.Event()
        # Of the view when Leases were last begun to be watched; another one means that the store was away.
        self._fresh_since: float | None = None
        self._versions: dict[tuple[str, str], str] = {}
        self._seen_in_pass: set[tuple[str, str, str]] = set()
        self._grace_periods_ms: dict[UUID, int] = {}
        self._place_after: float | None = None
        self._ever_live: set[int] = set()
        self._statuses_written_at = monotonic()
        self._looked_at: float | None = None

    def process_ended(self, broker_id: int, incarnation: str | None = None) -> None:
        """Note that a broker's process is gone: its leaderships move at once instead of after a lease duration.

        With `incarnation`, where it is known, a successor that has come up meanwhile is not taken for it.
        """
        self.liveness.process_ended(broker_id, incarnation)
        self._poke()

    def surroundings(
        self, bootstrap: str, troubles: tuple[Trouble, ...], listeners: tuple[Mapping[str, Any], ...] = ()
    ) -> None:
        """Take what the Cluster's status should say beyond its partitions: where clients connect, what hinders brokers."""
        if (bootstrap, troubles, listeners) != (self._bootstrap, self._outside, self._listeners):
            self._bootstrap, self._outside, self._listeners = bootstrap, troubles, listeners
            self._poke()

    def tier_figures(self, figures: Figures) -> None:
        """Take what is in the bucket of each topic, for the status of Topics and Cluster."""
        if figures != self._tiers:
            self._tiers = figures
            self._poke()

    def surroundings_outdated(self) -> None:
        """Note that the last `surroundings` speak of a former spec: until the next, work is going on."""
        if _APPLYING not in self._outside:
            self._outside = (*self._outside, _APPLYING)
            self._poke()

    def holds(self, broker_id: int) -> bool:
        """Say whether a broker's process counts as alive, in whatever phase."""
        return self.liveness.holds(broker_id)

    def live(self) -> Mapping[int, BrokerIdentity]:
        """Return the brokers that may lead and follow, by id."""
        return {broker.broker_id: broker for broker in self.liveness.live()}

    def expect_anew(self, incarnations: Mapping[int, str]) -> None:
        """Note, before `run`, brokers whose processes have ended and are being started anew, by what their Leases say.

        They are not alive until another incarnation shows, and nothing is taken from them while they may still come.
        """
        self.liveness.forget_incarnations(incarnations)

    async def run(self) -> None:
        """Follow and control until cancelled. Never raises because of the store or of one bad object."""
        stop_listening = self.view.on_change(self._on_change)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.view.run(), name="controller-view")
                group.create_task(self._control(), name="controller-loop")
                group.create_task(self._watch_leases(), name="controller-leases")
                group.create_task(self._watch_clock(), name="controller-clock")
        finally:
            stop_listening()

    async def _watch_clock(self) -> None:
        while True:
            self._look_at_clock()
            await asyncio.sleep(CLOCK_INTERVAL_S)

    def _look_at_clock(self) -> None:
        now = asyncio.get_running_loop().time()
        gap_s = now - (self._looked_at if self._looked_at is not None else now)
        self._looked_at = now
        if gap_s > 2 * CLOCK_INTERVAL_S:
            level = logging.WARNING if gap_s > HELD_UP_LONG_S else logging.INFO
            logger.log(level, "the controller was held up for %.1f s", gap_s)
            self.liveness.did_not_look(gap_s, self._monotonic())

    async def _watch_leases(self) -> None:
        """List the Leases anew whenever time alone would judge a broker, or when nothing is heard of any of them."""
        while True:
            await self._begin_watching()
            self._look_at_clock()
            self._look.clear()
            due_s = self.liveness.list_due_s(self._monotonic())
            if due_s == 0.0:
                await self._list_leases()
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due_s):
                    await self._look.wait()

    async def _list_leases(self) -> None:
        before = self.liveness.live()
        self.liveness.asks(self._monotonic())
        if not await self.view.refresh(LEASE):
            self.liveness.unanswered()
            return
        now = self._monotonic()
        self.liveness.observe(self.view.leases.values(), now)
        self.liveness.answered(now)
        if self.liveness.live() != before:
            self._poke()

    def _poke(self) -> None:
        self.quiet.clear()
        self._wake.set()
        self._look.set()

    def _on_change(self, change: Change) -> None:
        if change.kind == LEASE:
            now = self._monotonic()
            before = self.liveness.live()
            self.liveness.observe(self.view.leases.values(), now)
            self._look.set()
            if self.liveness.live() != before:
                # A renewal changes nothing else, but one that comes late brings back who was held for dead.
                self._poke()
        else:
            version = _version(change)
            if version:
                self._versions[change.kind, change.name] = version
            else:
                self._versions.pop((change.kind, change.name), None)
            self._seen_in_pass.add((change.kind, change.name, version))
        if change.substantial:
            self._poke()

    # -- the loop ------------------------------------------------------------------------------------------------------

    async def _control(self) -> None:
        backoff = Backoff(self._rng, first_s=0.02)
        while True:
            await self._begin_watching()
            self._wake.clear()
            self._seen_in_pass.clear()
            clean, delay_s = await self._try_pass()
            if clean:
                backoff.reset()
            else:
                # Also a floor: changes that arrive all the time must not turn a failure into a busy loop.
                retry_s = backoff.next_s()
                await asyncio.sleep(min(retry_s, 0.02))
                delay_s = retry_s if delay_s is None else min(delay_s, retry_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._wake.wait()

    async def _begin_watching(self) -> None:
        """Wait until the store is there. If it was away, nobody would have seen a renewal meanwhile."""
        await self.view.wait_fresh()
        if self.view.fresh_since == self._fresh_since:
            return
        self._fresh_since = self.view.fresh_since
        now = self._monotonic()
        self.liveness.observe(self.view.leases.values(), now)
        self.liveness.was_blind(now)
        if self._place_after is None:
            self._place_after = now + self._patience_s

    async def _try_pass(self) -> tuple[bool, float | None]:
        try:
            return await self._pass()
        except StoreError as error:
            logger.warning("the cluster store refused a read; trying again: %s", error)
        except Exception:
            logger.exception("a pass of the controller failed; trying again")
        return False, None

    async def _pass(self) -> tuple[bool, float | None]:
        """Decide and apply once. Returns whether every write succeeded, and the longest wait until the next pass."""
        await self._read_grace_periods()
        world = self._observe()
        decision = decide(world)
        if decision.returned:
            self._balance.returned(self._monotonic())
        written: set[Written] = set()
        clean = await self._apply(decision.actions, written)
        clean &= await self._write_statuses(decision, written, passing=bool(written) and clean)
        if written:
            await self._see(written)
            self._wake.set()  # what was written may allow the next step
        elif clean:
            if decision.quiet:
                self.quiet.set()
            clean = await self._apply(decision.later, written)
            if written:
                await self._see(written)
                self._wake.set()
        return clean, self._longest_wait_s(world, decision)

    async def _write_statuses(self, decision: Decision, written: set[Written], *, passing: bool) -> bool:
        """Write the statuses that are due. `passing`: the next pass follows at once and will know better."""
        now = self._monotonic()
        if passing and now < self._statuses_written_at + STATUS_DELAY_MAX_S:
            return True
        self._statuses_written_at = now
        due = [s for s in decision.statuses if self._pacer.wait_s(s.key, now, flips=s.flips) == 0.0]
        for status in due:
            self._pacer.written(status.key, now)
        return await self._apply([status.patch for status in due], written)

    def _observe(self) -> World:
        self._look_at_clock()
        now = self._monotonic()
        leases = self.view.leases
        self.liveness.observe(leases.values(), now)
        live = self.liveness.live()
        cluster = self.view.cluster
        expected = cluster.replicas if cluster is not None else 0
        running = {broker.broker_id for broker in live}
        self._ever_live |= running
        assert self._place_after is not None
        patient = now < self._place_after
        self._balance.observe(live, expected, now)
        return World(
            cluster_name=self._cluster_name,
            now_ms=self._now_ms(),
            cluster=cluster,
            topics=tuple(self.view.topic_objects()),
            sets=group_sets(self.view.partition_sets(), self._grace_periods_ms),
            state=self.view.state,
            live=live,
            known_brokers=sum(lease.held for lease in leases.values()),
            bootstrap=self._bootstrap,
            listeners=self._listeners,
            outside=self._outside,
            settled=not patient or running.issuperset(range(expected)),
            awaited=frozenset(leases.keys() - self._ever_live) if patient else frozenset(),
            returning=RETURNING if self._until_return_s() == 0.0 else 0,
            tiers=self._tiers,
            storage={broker_id: leases[broker_id].storage for broker_id in running if broker_id in leases},
        )

    def _until_return_s(self) -> float | None:
        """Return the seconds until leaderships may return to preferred replicas; None while they may not."""
        cluster = self.view.cluster
        config = cluster.config if cluster is not None else {}
        if not setting_or_default(config, AUTO_LEADER_REBALANCE):
            return None
        calm_s = setting_or_default(config, LEADER_IMBALANCE_CHECK_INTERVAL)
        return self._balance.wait_s(self._monotonic(), calm_s)

    def _longest_wait_s(self, world: World, decision: Decision) -> float | None:
        now = self._monotonic()
        waits = [self._pacer.wait_s(status.key, now, flips=False) for status in decision.statuses]
        until_return_s = self._until_return_s()
        if until_return_s is not None and (world.returning == 0 or decision.returned):
            waits.append(until_return_s)
        if decision.wake_at_ms is not None:
            waits.append(max(0.0, (decision.wake_at_ms - self._now_ms()) / 1000))
        if self._place_after is not None and self._place_after > now:
            waits.append(self._place_after - now)
        return min(waits, default=None)

    # -- what the caches do not hold -----------------------------------------------------------------------------------

    async def _read_grace_periods(self) -> None:
        """Read the grace period of each topic that is being deleted, once: it is an annotation of its PartitionSet."""
        deleting = {s.topic_id: s for s in self.view.partition_sets() if s.deleting and s.slice_index == 0}
        for topic_id in self._grace_periods_ms.keys() - deleting.keys():
            del self._grace_periods_ms[topic_id]
        for topic_id in deleting.keys() - self._grace_periods_ms.keys():
            try:
                obj = await self._store.get(PARTITION_SET, deleting[topic_id].name)
            except NotFound:
                continue
            self._grace_periods_ms[topic_id] = read_grace_period_ms(obj)

    async def _names_taken(self) -> dict[str, set[UUID]]:
        """Return the ids behind each topic name in the store now, deleted topics left out."""
        objects, _ = await self._store.list(PARTITION_SET)
        taken: dict[str, set[UUID]] = {}
        for obj in objects:
            try:
                slice_ = PartitionSet.from_object(obj)
            except MALFORMED:
                continue  # the informer has logged it
            if slice_.cluster == self._cluster_name and not slice_.deleting:
                taken.setdefault(slice_.topic_name, set()).add(slice_.topic_id)
        return taken

    # -- writes --------------------------------------------------------------------------------------------------------

    async def _apply(self, actions: Sequence[Action], written: set[Written]) -> bool:
        """Apply actions in the order of their priorities; returns whether all succeeded."""
        clean = True
        limit = asyncio.Semaphore(WRITE_CONCURRENCY)
        for priority in Priority:
            group = [action for action in actions if action.priority is priority]
            wanted = len(group)
            if any(isinstance(action, Create) and action.needs_fresh_list for action in group):
                taken = await self._names_taken()
                group = [action for action in group if not _stands_in_the_way(action, taken)]
            if not group:
                clean &= wanted == 0
                continue
            async with asyncio.TaskGroup() as tasks:
                results = [tasks.create_task(self._write(action, limit, written)) for action in group]
            clean &= wanted == len(group) and all(task.result() for task in results)
            if priority is Priority.RECORD_PURGE and not clean:
                break  # nothing is removed before its id is recorded
        return clean

    async def _write(self, action: Action, limit: asyncio.Semaphore, written: set[Written]) -> bool:
        async with limit:
            try:
                version = await self._write_once(action)
            except (Conflict, NotFound, AlreadyExists) as error:
                logger.debug(
                    "somebody was faster, deciding again: %s %s: %s", action.kind, action.name, error
                )
                return False
            except Unavailable as error:
                logger.warning("the cluster store is away, trying again: %s", error)
                return False
            except Invalid as error:
                logger.error("%s %s was refused by the store: %s", action.kind, action.name, error)
                return False
        written.add((action.kind, action.name, version))
        for notice in action.notices:
            self._notify(notice)
        return True

    async def _write_once(self, action: Action) -> str:
        """Return the version that the write made; empty for a deletion."""
        obj: Object
        match action:
            case Create():
                obj = await self._store.create(action.kind, action.object)
            case Patch():
                obj = await self._store.patch_if(
                    action.kind,
                    action.name,
                    uid=action.uid,
                    tests=action.tests,
                    operations=action.operations,
                    subresource=action.subresource,
                )
                # Giving up the last finalizer of an object that is being deleted removes it.
                if obj["metadata"].get("deletionTimestamp") and not obj["metadata"].get("finalizers"):
                    return ""
            case Delete():
                await self._store.delete_if(action.kind, action.name, uid=action.uid, tests=action.tests)
                return ""
        version: str = obj["metadata"]["resourceVersion"]
        return version

    async def _see(self, written: set[Written]) -> None:
        """Wait until the informer shows what this pass wrote, so that the next one does not decide it again."""

        def seen(_: object) -> bool:
            missing = written - self._seen_in_pass
            return all(self._versions.get((kind, name), "") == version for kind, name, version in missing)

        with contextlib.suppress(TimeoutError):
            await self.view.wait_until(seen, OWN_WRITES_TIMEOUT_S)


def _stands_in_the_way(action: Action, taken: dict[str, set[UUID]]) -> bool:
    """Say whether a topic's first slice must not be created: the name is taken by a topic that the cache lacks."""
    if not isinstance(action, Create) or not action.needs_fresh_list:
        return False
    spec = action.object["spec"]
    return bool(taken.get(spec["topicName"], set()) - {UUID(spec["topicId"])})


def _version(change: Change) -> str:
    return change.new.resource_version if change.new is not None else ""
