"""What `kubectl get` answers: the status of Topics and of the Cluster, computed from what is stored. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strandline_broker.cluster.model import CLUSTER, LABEL_CLUSTER, NO_LEADER, TOPIC, Topic
from strandline_broker.cluster.transitions import effective_min_isr
from strandline_operator.controller.actions import Patch, Priority
from strandline_operator.controller.conditions import Reason, Trouble, conditions
from strandline_operator.controller.world import TopicSets, World

# Partitions named in a message before it says "and N more".
_NAMED_PARTITIONS = 5


@dataclass(frozen=True, slots=True)
class Counts:
    """How the partitions of one or more topics are."""

    partitions: int = 0
    under_replicated: int = 0
    under_min_isr: int = 0
    offline: tuple[str, ...] = ()

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.partitions + other.partitions,
            self.under_replicated + other.under_replicated,
            self.under_min_isr + other.under_min_isr,
            self.offline + other.offline,
        )


def count(sets: TopicSets, live: Iterable[int]) -> Counts:
    """Count the partitions of one topic. A partition whose leader is not alive is offline, whatever the store says."""
    alive = frozenset(live)
    total = under_replicated = under_min_isr = 0
    offline: list[str] = []
    for slice_ in sets.slices:
        minimum = slice_.min_insync_replicas
        for position, partition in enumerate(slice_.partitions):
            total += 1
            in_sync = sum(ref.broker_id in alive for ref in partition.isr)
            under_replicated += in_sync < len(partition.replicas) - len(partition.adding)
            under_min_isr += in_sync < effective_min_isr(minimum, partition)
            if partition.leader == NO_LEADER or partition.leader not in alive:
                offline.append(f"{sets.topic_name}-{slice_.first_partition + position}")
    return Counts(total, under_replicated, under_min_isr, tuple(offline))


def partition_troubles(counts: Counts) -> list[Trouble]:
    """Return what the state of its partitions says against a topic or cluster."""
    troubles = []
    if counts.offline:
        troubles.append(
            Trouble(
                Reason.PARTITIONS_OFFLINE,
                f"{len(counts.offline)} of {counts.partitions} partitions have no leader: {_listed(counts.offline)}; they "
                "come back when a broker with an in-sync replica does",
            )
        )
    if counts.under_min_isr > len(counts.offline):
        message = f"{counts.under_min_isr} partitions refuse acks=all: fewer replicas in sync than min.insync.replicas"
        troubles.append(Trouble(Reason.UNDER_MIN_ISR, message))
    return troubles


def topic_status(
    world: World, topic: Topic, sets: TopicSets | None, troubles: Sequence[Trouble], replicas: int
) -> dict[str, Any]:
    """Return the status that the Topic should show."""
    status: dict[str, Any] = {"observedGeneration": topic.meta.generation, "topicName": topic.topic_name}
    found = list(troubles)
    if any(trouble.reason is Reason.PARTITIONS_LOST for trouble in found):
        # What is missing must stay known, or the next decision would take the topic for a new one.
        status |= {key: topic.status[key] for key in ("topicId", "partitions") if key in topic.status}
    elif sets is not None and sets.head.slice_index == 0:
        counts = count(sets, (broker.broker_id for broker in world.live))
        found += partition_troubles(counts)
        status |= {
            "topicId": str(sets.topic_id),
            "partitions": counts.partitions,
            "replicas": replicas,
            "underReplicated": counts.under_replicated,
            "underMinIsr": counts.under_min_isr,
            "offline": len(counts.offline),
        }
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


def cluster_status(world: World, counts: Counts, topics: int, stalled: Sequence[Trouble]) -> dict[str, Any]:
    """Return the status that the Cluster should show."""
    assert world.cluster is not None
    cluster = world.cluster
    running = len(world.live)
    troubles = [*stalled, *partition_troubles(counts)]
    if running < cluster.replicas:
        message = f"{running} of {cluster.replicas} brokers run"
        troubles.append(Trouble(Reason.WAITING_FOR_BROKERS, message, own_condition=False))
    status: dict[str, Any] = {
        "observedGeneration": cluster.meta.generation,
        "replicas": world.known_brokers,
        "readyReplicas": running,
        "selector": f"{LABEL_CLUSTER}={cluster.name}",
        "topics": topics,
        "partitions": counts.partitions,
        "underReplicated": counts.under_replicated,
        "offline": len(counts.offline),
        "conditions": conditions(
            troubles,
            ready_message=f"{running} brokers run and every partition has a leader",
            generation=cluster.meta.generation,
            previous=cluster.status.get("conditions") or (),
            now_ms=world.now_ms,
        ),
    }
    if world.bootstrap:
        status["bootstrap"] = world.bootstrap
    return status


def status_patch(kind: str, name: str, uid: str, generation: int, status: Mapping[str, Any]) -> Patch:
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
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED_PARTITIONS])
    more = len(names) - _NAMED_PARTITIONS
    return f"{shown} and {more} more" if more > 0 else shown
