"""Replication and acknowledgements, as far as tiering needs them; the rest is the other model's (`world`).

Followers copy all that their leader has at once. Whoever is in sync when a record is acknowledged has it: that this is so
is shown elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.model.tiering_broker import After, Tiering
from tests.model.tiering_state import NO_MACHINE, Broker, Bucket, Control, Records

from strandline_tiered.keys import ClaimName, ManifestName, Name, SegmentName
from strandline_tiered.protocol import may_append
from strandline_tiered.protocol_messages import LogChanged


class Promise(NamedTuple):
    """What acknowledgements read and change of what is shared."""

    control: Control
    committed: Records
    broken: str


class Replication:
    """The steps of followers with their leader, and of leaders that acknowledge."""

    def __init__(self, tiering: Tiering) -> None:
        self._tiering = tiering
        self._rules = tiering.switches.rules
        self._obey = tiering.switches.followers_obey_their_leader
        self._fenced = tiering.switches.releases_are_fenced
        self._start_at_released = tiering.switches.replicas_start_at_tiered_through
        self.reads_bucket = not (self._obey and self._start_at_released)

    def steps(self, follower: Broker, leader: Broker, bucket: Bucket) -> Iterator[tuple[str, After]]:
        """Return what a follower does with a leader; the bucket is read only where a rule is off."""
        if follower.machine != NO_MACHINE:
            return
        if not self._obey:
            truth = self._tiering.truth(bucket)
            if truth is not None and truth.end_offset > follower.may_delete:
                after = follower._replace(may_delete=truth.end_offset)
                yield f"broker {follower.number} reads {name_of(truth.name)} and obeys it", (after, ())
        same_epoch = follower.epoch == leader.epoch
        if leader.machine == NO_MACHINE or not (same_epoch or not self._fenced):
            return
        state = self._tiering.machines[leader.machine]
        names = f"broker {follower.number} fetches from leader {leader.number}"
        through, log_start = state.tiered_through, state.confirmed_log_start
        # An answer that finds other records in the follower's log tells it to truncate, and nothing else.
        agrees = common_prefix(follower.log, leader.log) == len(follower.log)
        if through is not None and log_start is not None and agrees:
            after = follower._replace(
                may_delete=max(follower.may_delete, through), log_start=max(follower.log_start, log_start)
            )
            if after != follower:
                label = f"{names} and hears that {through} is released, with log start {log_start}"
                yield label, (after, ())
        if same_epoch and may_append(state, self._rules):
            for label, after in self._copies(follower, leader, bucket):
                yield f"{names} and {label}", (after, ())

    def _copies(self, follower: Broker, leader: Broker, bucket: Bucket) -> Iterator[tuple[str, Broker]]:
        watermark = min(leader.high_watermark, len(leader.log))
        copied = follower._replace(log=leader.log, high_watermark=watermark)
        common = common_prefix(follower.log, leader.log)
        if copied != follower and common >= max(leader.start, follower.start):
            yield "copies what it lacks", copied
        if follower.log and common >= max(leader.start, follower.start):
            return
        state = self._tiering.machines[leader.machine]
        through = state.tiered_through
        if not self._start_at_released:
            truth = self._tiering.truth(bucket)
            through = None if truth is None else truth.end_offset
        if through is not None and leader.start <= through <= len(leader.log):
            log_start = max(state.confirmed_log_start or 0, follower.log_start)
            yield f"starts at {through}", copied._replace(start=through, log_start=log_start)

    def commits(self, brokers: list[Broker], promise: Promise) -> Iterator[tuple[str, int, After, Promise]]:
        """Return how leaders acknowledge all that they have, and how recoveries end: number of the broker, and both."""
        for broker in brokers:
            if broker.machine == NO_MACHINE:
                continue
            state = self._tiering.machines[broker.machine]
            if may_append(state, self._rules):
                after = self._acknowledged(broker, brokers, promise)
                moved = broker._replace(high_watermark=len(broker.log))
                if after is not None and (after, moved) != (promise, broker):
                    label = f"leader {broker.number} acknowledges all that it has, up to {len(broker.log)}"
                    yield label, broker.number, self._tiering.hear(moved, LogChanged()), after
            control = promise.control
            recovered = state.recovering and state.confirmed is not None
            if recovered and control.recovering and broker.epoch == control.epoch:
                after = promise._replace(control=control._replace(recovering=False))
                yield (
                    f"leader {broker.number} tells that it has recovered",
                    broker.number,
                    (broker, ()),
                    after,
                )

    def _acknowledged(self, broker: Broker, brokers: list[Broker], promise: Promise) -> Promise | None:
        log, control = broker.log, promise.control
        same = frozenset(one.number for one in brokers if one.epoch == broker.epoch and one.log == log)
        is_current = broker.epoch == control.epoch
        if not is_current and not (broker.epoch == control.epoch - 1 and control.former <= same):
            return None
        if broker.epoch < control.unclean_epoch:
            # It may not know, and be alone in its ISR: what it acknowledges is lost with the unclean election.
            return promise
        if log[: len(promise.committed)] != promise.committed:
            return promise._replace(
                broken=f"leader {broker.number} acknowledges {log} over {promise.committed}"
            )
        if is_current:
            control = control._replace(in_sync=same)
        return promise._replace(control=control, committed=log)


def common_prefix(one: Records, other: Records) -> int:
    """Return the offset from which two logs differ."""
    for offset, (mine, yours) in enumerate(zip(one, other, strict=False)):
        if mine != yours:
            return offset
    return min(len(one), len(other))


def name_of(name: Name) -> str:
    """Return a name in a few characters."""
    match name:
        case ManifestName(epoch, sequence):
            return f"manifest {epoch}-{sequence}"
        case ClaimName(epoch):
            return f"claim {epoch}"
        case SegmentName(base, epoch, object_id):
            return f"segment {base} of epoch {epoch} (#{object_id.int})"
        case _:
            return str(name)
