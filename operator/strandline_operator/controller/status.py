"""What `kubectl get` answers: the status of Topics and of the Cluster, computed from what is stored. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strandline_broker.cluster.model import (
    CLUSTER,
    LABEL_CLUSTER,
    NO_LEADER,
    TOPIC,
    PartitionState,
    ReplicaRef,
    Topic,
)
from strandline_broker.cluster.transitions import Live, effective_min_isr, is_reassigning
from strandline_operator.controller.actions import Notice, Patch, Priority
from strandline_operator.controller.bucket_status import bucket_findings, bucket_troubles
from strandline_operator.controller.conditions import Reason, Trouble, conditions
from strandline_operator.controller.reassignments import progress
from strandline_operator.controller.slices import replication_factor
from strandline_operator.controller.tier_figures import tier_columns
from strandline_operator.controller.world import TopicSets, World

# Partitions named in a message before it says "and N more".
_NAMED_PARTITIONS = 5


@dataclass(frozen=True, slots=True)
class Found:
    """Partitions of which something is to be said: how many, and the names of the first."""

    number: int = 0
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: Sequence[str]) -> Found:
        """Return these partitions."""
        return cls(len(names), tuple(names[:_NAMED_PARTITIONS]))

    def __add__(self, other: Found) -> Found:
        return Found(self.number + other.number, (self.names + other.names)[:_NAMED_PARTITIONS])

    def __str__(self) -> str:
        shown = ", ".join(self.names)
        more = self.number - len(self.names)
        return f"{shown} and {more} more" if more > 0 else shown


@dataclass(frozen=True, slots=True)
class Counts:
    """How the partitions of one or more topics are.

    `replaced`: those of `offline` whose every in-sync replica lives with another log than it had.
    """

    partitions: int = 0
    under_replicated: Found = Found()
    under_min_isr: Found = Found()
    offline: Found = Found()
    replaced: Found = Found()
    reassigning: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.partitions + other.partitions,
            self.under_replicated + other.under_replicated,
            self.under_min_isr + other.under_min_isr,
            self.offline + other.offline,
            self.replaced + other.replaced,
            self.reassigning + other.reassigning,
        )


def count(sets: TopicSets, live: Live, factor: int | None = None) -> Counts:
    """Count the partitions of one topic, which is to have `factor` replicas (None: as it is).

    A partition whose leader is not alive is offline, whatever the store says.
    """
    total = reassigning = 0
    found: dict[str, list[str]] = {"under_replicated": [], "under_min_isr": [], "offline": [], "replaced": []}
    for slice_ in sets.slices:
        minimum = slice_.min_insync_replicas
        total += len(slice_.partitions)
        for number, state in enumerate(slice_.partitions, slice_.first_partition):
            reassigning += is_reassigning(state) or (factor is not None and len(state.replicas) != factor)
            in_sync = len(_in_sync(state, live))
            if in_sync >= len(state.replicas) and state.leader in live:
                continue  # nothing is wrong with nearly all of them
            name = f"{sets.topic_name}-{number}"
            if in_sync < len(state.replicas) - len(state.adding):
                found["under_replicated"].append(name)
            if in_sync < effective_min_isr(minimum, state):
                found["under_min_isr"].append(name)
            if state.leader == NO_LEADER or state.leader not in live:
                found["offline"].append(name)
                members = (*state.isr, *state.elr)
                if members and all(ref.broker_id in live for ref in members) and not in_sync:
                    found["replaced"].append(name)
    return Counts(
        total,
        reassigning=reassigning,
        **{key: Found.of(names) for key, names in found.items()},
    )


def _in_sync(state: PartitionState, live: Live) -> list[ReplicaRef]:
    return [ref for ref in state.isr if ref[0] in live and live[ref[0]].generation == ref[1]]


def partition_troubles(counts: Counts) -> list[Trouble]:
    """Return what the state of its partitions says against a topic or cluster."""
    troubles = []
    if counts.offline.number:
        message = (
            f"{counts.offline.number} of {counts.partitions} partitions have no leader: {counts.offline}; they come back "
            "when a broker with an in-sync replica does"
        )
        if counts.replaced.number:
            message += (
                f". The volumes of all in-sync replicas of {counts.replaced} were replaced: set "
                "unclean.leader.election.enable to true on the topic to go on without the records"
            )
        troubles.append(Trouble(Reason.PARTITIONS_OFFLINE, message))
    if counts.under_min_isr.number > counts.offline.number:
        message = (
            f"{counts.under_min_isr.number} of {counts.partitions} partitions refuse acks=all, because fewer replicas are "
            f"in sync than min.insync.replicas: {counts.under_min_isr}"
        )
        troubles.append(Trouble(Reason.PARTITIONS_UNDER_MIN_ISR, message))
    if counts.under_replicated.number:
        message = (
            f"{counts.under_replicated.number} of {counts.partitions} partitions have replicas that are not in sync: "
            f"{counts.under_replicated}"
        )
        troubles.append(Trouble(Reason.PARTITIONS_UNDER_REPLICATED, message, note=True))
    return troubles


def topic_status(
    world: World, topic: Topic, sets: TopicSets | None, troubles: Sequence[Trouble], factor: int | None
) -> dict[str, Any]:
    """Return the status that the Topic should show; `factor` is the number of replicas that is being brought about."""
    status: dict[str, Any] = {"observedGeneration": topic.meta.generation, "topicName": topic.topic_name}
    found = list(troubles)
    if any(trouble.reason is Reason.PARTITIONS_LOST for trouble in found):
        # What is missing must stay known, or the next decision would take the topic for a new one.
        status |= {key: topic.status[key] for key in ("topicId", "partitions") if key in topic.status}
    elif sets is not None and sets.head.slice_index == 0:
        counts = count(sets, world.live_by_id, factor)
        found += partition_troubles(counts)
        if counts.reassigning:
            found.append(progress(world, sets, factor))
        status |= {
            "topicId": str(sets.topic_id),
            "partitions": counts.partitions,
            "replicas": replication_factor(sets.head),
            "underReplicated": counts.under_replicated.number,
            "underMinIsr": counts.under_min_isr.number,
            "offline": counts.offline.number,
            "reassigning": counts.reassigning,
        }
        if _has_tiering(world):
            status |= tier_columns(world.tiers, [sets.topic_id], topic.status)
    elif not found:
        found.append(Trouble(Reason.CREATING, "partitions are being made", own_condition=False))
    status["conditions"] = conditions(
        found,
        ready_message="every partition has a leader",
        generation=topic.meta.generation,
        previous=topic.status.get("conditions") or (),
        now_ms=world.now_ms,
    )
    return status


def cluster_status(world: World, counts: Counts, topics: int, others: Sequence[Trouble]) -> dict[str, Any]:
    """Return the status that the Cluster should show."""
    assert world.cluster is not None
    cluster = world.cluster
    running = len(world.live)
    troubles = [*others, *partition_troubles(counts), *bucket_troubles(world)]
    if running < cluster.replicas:
        message = f"{running} of {cluster.replicas} brokers run"
        troubles.append(Trouble(Reason.WAITING_FOR_BROKERS, message, own_condition=False))
    if counts.reassigning:
        message = f"{counts.reassigning} of {counts.partitions} partitions are being reassigned"
        troubles.append(Trouble(Reason.REASSIGNING, message, ready=True))
    status: dict[str, Any] = {
        "observedGeneration": cluster.meta.generation,
        "replicas": world.known_brokers,
        "readyReplicas": running,
        "selector": f"{LABEL_CLUSTER}={cluster.name}",
        "topics": topics,
        "partitions": counts.partitions,
        "underReplicated": counts.under_replicated.number,
        "underMinIsr": counts.under_min_isr.number,
        "offline": counts.offline.number,
        "reassigning": counts.reassigning,
        "conditions": conditions(
            troubles,
            findings=bucket_findings(world),
            ready_message=f"{running} brokers run and every partition has a leader",
            generation=cluster.meta.generation,
            previous=cluster.status.get("conditions") or (),
            now_ms=world.now_ms,
        ),
    }
    if _has_tiering(world):
        ids = [
            sets.topic_id for sets in world.sets if not sets.deleting and sets.topic_id not in world.purged
        ]
        status |= tier_columns(world.tiers, ids, cluster.status)
    if world.state is not None and world.state.cluster_id:
        status["clusterId"] = world.state.cluster_id
    if world.bootstrap:
        status["bootstrap"] = world.bootstrap
        status["listeners"] = [dict(listener) for listener in world.listeners]
    else:  # an operator that has just started has not looked yet
        status |= {key: cluster.status[key] for key in ("bootstrap", "listeners") if key in cluster.status}
    return status


def _has_tiering(world: World) -> bool:
    return world.cluster is not None and bool(world.cluster.spec.get("tiering"))


def status_patch(
    kind: str,
    name: str,
    uid: str,
    generation: int,
    status: Mapping[str, Any],
    notices: tuple[Notice, ...] = (),
) -> Patch:
    """Return the write of a status; it fails if spec changed meanwhile, because then it describes the old one."""
    assert kind in (TOPIC, CLUSTER)
    return Patch(
        kind,
        name,
        uid,
        (("/metadata/generation", generation),),
        ({"op": "add", "path": "/status", "value": dict(status)},),
        subresource="status",
        priority=Priority.STATUS,
        notices=notices,
    )
