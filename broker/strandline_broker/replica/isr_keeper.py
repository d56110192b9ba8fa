"""A leader's changes of the ISR: who caught up joins, who lags or will stop leaves, a leader whose log failed steps down.

One task per broker. It decides from what `Leadership` knows and from the Leases in the view, and writes one patch for each
PartitionSet, which tests the partition epochs that it decided from. That a partition has recovered, or its leader needs
another epoch (ADR 0011), is told to the store in the same way. The order is what makes it safe (design section 3.4):

    decide ──▶ counted as an attempt ──▶ on this disk, if somebody joins ──▶ sent to the store
       ──stored: the view brings it, confirmed──▶ done
       ──refused: somebody was faster──▶ given up, decided again from the next view
       ──unknown──▶ counted until the view shows a later partition epoch; tried again when the store is back

Nothing here judges whether a broker lives; that is the controller's.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple

from strandline_broker.cluster.backoff import Backoff
from strandline_broker.cluster.model import PARTITION_SET, BrokerPhase
from strandline_broker.cluster.patches import patch_partitions
from strandline_broker.cluster.store import Conflict, Invalid, NotFound, StoreError, Unavailable
from strandline_broker.cluster.transitions import (
    depose,
    grow_isr,
    recovered,
    renew_epoch,
    shrink_isr,
    spared,
    step_down,
)
from strandline_broker.replica.attempts import encode_attempts

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Iterable

    from strandline_broker.cluster.model import BrokerIdentity, PartitionSet, PartitionState
    from strandline_broker.cluster.store import ClusterStore
    from strandline_broker.cluster.transitions import Live
    from strandline_broker.cluster.view import ClusterView
    from strandline_broker.replica.attempts import PartitionKey
    from strandline_broker.replica.leadership import Leadership
    from strandline_broker.replica.partition import Partition
    from strandline_broker.seams.clock import Clock

logger = logging.getLogger(__name__)

WRITE_TIMEOUT_S = 10.0
RETRY_MAX_S = 1.0
WRITE_CONCURRENCY = 4


def live_brokers(view: ClusterView) -> dict[int, BrokerIdentity]:
    """Return who holds a Lease and is past its start, as far as this broker knows."""
    return {
        lease.broker_id: lease.identity
        for lease in view.leases.values()
        if lease.held and lease.state is not BrokerPhase.STARTING
    }


class _Change(NamedTuple):
    """One partition's new state; `partition` is None where its log could not even be opened."""

    partition: Partition | None
    state: PartitionState


_Due = dict[str, tuple["PartitionSet", dict[int, _Change]]]
"""Changes by PartitionSet and partition number."""


class IsrKeeper:
    """See the module. `led` yields (topic id, partition) of everything that this broker leads or has to step down from.

    `unusable` yields what the store wants it to lead although its log could not be opened.
    """

    def __init__(
        self,
        *,
        store: ClusterStore,
        view: ClusterView,
        clock: Clock,
        rng: random.Random,
        lag_max_s: Callable[[], float],
        led: Callable[[], Iterable[tuple[PartitionKey, Partition]]],
        persist: Callable[[bytes], None],
        run_blocking: Callable[[Callable[[], object]], Awaitable[object]],
        unusable: Callable[[], Iterable[PartitionKey]] = tuple,
    ) -> None:
        self._unusable = unusable
        self._store = store
        self._view = view
        self._clock = clock
        self._rng = rng
        self._lag_max_s = lag_max_s
        self._led = led
        self._persist = persist
        self._run_blocking = run_blocking
        self._wake = asyncio.Event()
        self._on_disk: bytes = encode_attempts(())
        # Partitions of which a write is under way.
        self._writing: set[PartitionKey] = set()
        # What was stored, until the view brings it; and all that may have been: a later refusal of the same change then
        # says nothing about the first one, whatever else was tried in between.
        self._stored: dict[PartitionKey, PartitionState] = {}
        self._doubtful: dict[PartitionKey, list[PartitionState]] = {}
        self.shrinks = 0
        self.expansions = 0
        """ISR members removed and added so far, for metrics."""

    def wake(self) -> None:
        """Look at all followers soon: one may have caught up, or roles changed."""
        self._wake.set()

    async def run(self) -> None:
        """Keep the ISRs until cancelled. Never raises because of the store or the disk."""
        backoff = Backoff(self._rng, cap_s=RETRY_MAX_S)
        while True:
            try:
                succeeded = await self._round()
            except OSError as error:
                logger.error("ISR changes wait, they cannot be recorded on this disk: %s", error)
                succeeded = False
            if not succeeded:
                # Nothing cuts this short: every fetch may wake the keeper, and asking does not heal a store or a disk.
                await asyncio.sleep(backoff.next_s())
                continue
            backoff.reset()
            try:
                async with asyncio.timeout(self._lag_max_s() / 2):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def _round(self) -> bool:
        """Write every change that is due; return whether the store took or refused all of them."""
        live = live_brokers(self._view)
        # These need no record on this disk, which may be why they are due.
        stepped_down = await self._write_all(self._step_downs(live))
        due: _Due = {}
        for key, partition in self._led():
            if key in self._writing or partition.leadership is None:
                continue
            found = self._decide(key, partition, partition.leadership, live)
            if found is not None:
                slice_, state = found
                due.setdefault(slice_.name, (slice_, {}))[1][key[1]] = _Change(partition, state)
        if not due:
            return stepped_down
        await self._record()
        return await self._write_all(due) and stepped_down

    def _step_downs(self, live: Live) -> _Due:
        """Return what this broker gives up leading because a log of its cannot be used."""
        due: _Due = {}
        unfit = [
            (key, p, p.unfit_epoch) for key, p in self._led() if p.leadership is None and p.unfit_epoch >= 0
        ]
        for key, partition, epoch in [*unfit, *((key, None, -1) for key in self._unusable())]:
            topic = self._view.topic_by_id(key[0])
            slice_ = topic.partition_set(key[1]) if topic is not None else None
            if slice_ is None or key in self._writing:
                continue
            state = slice_.partition(key[1])
            if partition is not None and state.leader_epoch != epoch:
                continue
            if partition is not None and not partition.log.failed:
                new = depose(state)  # it was cut, and is as good as any other
            else:
                new = step_down(state, live=live, min_isr=slice_.min_insync_replicas)
            if partition is None and state.leader in new.isr_ids:
                continue  # it would be elected again, for ever
            due.setdefault(slice_.name, (slice_, {}))[1][key[1]] = _Change(partition, new)
        return due

    async def _write_all(self, due: _Due) -> bool:
        """Write every change; return whether the store took or refused all of them."""
        limit = asyncio.Semaphore(WRITE_CONCURRENCY)
        async with asyncio.TaskGroup() as group:
            writes = [
                group.create_task(self._write(limit, slice_, changes)) for slice_, changes in due.values()
            ]
        return all(write.result() for write in writes)

    def _decide(
        self, key: PartitionKey, partition: Partition, leadership: Leadership, live: Live
    ) -> tuple[PartitionSet, PartitionState] | None:
        """Return the change that one partition needs now, counted as an attempt, and the slice it was decided from."""
        topic = self._view.topic_by_id(key[0])
        slice_ = topic.partition_set(key[1]) if topic is not None else None
        if slice_ is None:
            return None
        state = leadership.state
        if slice_.partition(key[1]) != state or self._stored.get(key) in leadership.attempts:
            return None  # the view is ahead of what this broker acts on, or behind; it will be asked again
        self._stored.pop(key, None)
        if key in self._doubtful:
            doubtful = [doubt for doubt in self._doubtful.pop(key) if doubt in leadership.attempts]
            if doubtful:
                self._doubtful[key] = doubtful
        end, now = partition.log.end_offset, self._clock.monotonic()
        min_isr = slice_.min_insync_replicas
        leaving = leadership.lagging(end, now, self._lag_max_s()) or spared(state, live=live, min_isr=min_isr)
        if leaving:
            new = shrink_isr(state, out_of_sync=leaving, min_isr=min_isr)
        else:
            new = state
            for follower in leadership.joiners(live, partition.high_watermark, now):
                grown = grow_isr(
                    new,
                    follower,
                    live=live,
                    high_watermark=partition.high_watermark,
                    epoch_start=leadership.epoch_start,
                    min_isr=min_isr,
                )
                new = grown
        if new is state and partition.has_recovered:
            new = recovered(state, broker_id=partition.leader_id, leader_epoch=leadership.epoch)
        if new is state and partition.tier is not None and (renewal := partition.tier.renewal) is not None:
            new = renew_epoch(
                state,
                broker_id=partition.leader_id,
                leader_epoch=leadership.epoch,
                above=renewal.above,
                recovering=renewal.recovering,
            )
        if new is state or not leadership.attempt(new):
            return None
        return slice_, new

    async def _record(self) -> None:
        """Have every attempt that names a new member on this disk before it is sent. Raises OSError."""
        image = encode_attempts(
            (key, attempt)
            for key, partition in self._led()
            if partition.leadership is not None
            for attempt in partition.leadership.unconfirmed_growth()
        )
        if image != self._on_disk:
            await self._run_blocking(lambda: self._persist(image))
            self._on_disk = image

    async def _write(
        self, limit: asyncio.Semaphore, slice_: PartitionSet, changes: dict[int, _Change]
    ) -> bool:
        """Send one patch; return False while its outcome is unknown."""
        keys = {(slice_.topic_id, index) for index in changes}
        self._writing |= keys
        try:
            async with limit:
                patch = patch_partitions(slice_, {index: change.state for index, change in changes.items()})
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await self._store.patch_if(
                        PARTITION_SET,
                        slice_.name,
                        uid=slice_.uid,
                        tests=patch.tests,
                        operations=patch.operations,
                    )
        except (Conflict, NotFound, Invalid) as error:
            logger.info("ISR change of %s refused, deciding again: %s", slice_.name, error)
            for index, (partition, state) in changes.items():
                doubtful = self._doubtful.get((slice_.topic_id, index), ())
                if partition is not None and partition.leadership is not None and state not in doubtful:
                    partition.leadership.give_up(state)
                    partition.advance_high_watermark()
            return not isinstance(error, Invalid)
        except (Unavailable, TimeoutError) as error:
            logger.warning("ISR change of %s: the outcome is unknown: %s", slice_.name, error)
            self._doubt(slice_, changes)
            return False
        except StoreError as error:
            logger.error("ISR change of %s: %s", slice_.name, error)
            self._doubt(slice_, changes)
            return False
        finally:
            self._writing -= keys
        self._stored |= {(slice_.topic_id, index): change.state for index, change in changes.items()}
        for index, (_, state) in changes.items():
            before, after = len(slice_.partition(index).isr), len(state.isr)
            self.shrinks += max(0, before - after)
            self.expansions += max(0, after - before)
            settled = slice_.partition(index).recovering and not state.recovering
            renewed = state.leader != -1 and state.leader_epoch > slice_.partition(index).leader_epoch
            logger.info(
                "%s-%d: %s%sISR %s in partition epoch %d",
                slice_.topic_name,
                index,
                "recovered, " if settled else "",
                f"led on in epoch {state.leader_epoch}, " if renewed else "",
                list(state.isr_ids),
                state.partition_epoch,
            )
        return True

    def _doubt(self, slice_: PartitionSet, changes: dict[int, _Change]) -> None:
        """Remember that these changes may have been stored; each is an attempt that counts, so they are as few."""
        for index, (_, state) in changes.items():
            doubtful = self._doubtful.setdefault((slice_.topic_id, index), [])
            if state not in doubtful:
                doubtful.append(state)
