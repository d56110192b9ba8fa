"""Which broker to restart next so that all run what the Cluster asks for. Pure.

A StatefulSet replaces pods without looking at what they hold, so it is told not to (`OnDelete`). One broker at a time, and
only while every other one is ready, which means in sync in all its partitions: then each partition keeps as many in-sync
replicas as it can do without this broker, `min.insync.replicas` wherever it has a replica to spare. A broker that starts or
recovers its logs is waited for, however long it takes; a pod in which nothing runs may be replaced at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from strandline_broker.cluster.model import BrokerIdentity, Object, PartitionSet, PartitionState
from strandline_broker.cluster.transitions import effective_min_isr
from strandline_operator.kubernetes.stateful_set import ANNOTATION_CONFIG, CONTAINER

REVISION_LABEL: Final = "controller-revision-hash"
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Restart:
    """Replace this pod now. `reason` is for people; `gentle`: by an eviction, which the disruption budget may refuse."""

    broker_id: int
    pod: Object
    reason: str
    gentle: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Brokers are to be restarted, and now is not the time."""

    reason: str


@dataclass(frozen=True, slots=True)
class BrokerPod:
    """One pod and what is known of it. `idle`: no process runs in it, nor is about to."""

    broker_id: int
    pod: Object
    ready: bool
    idle: bool

    @property
    def leaving(self) -> bool:
        """Whether it is being deleted."""
        return bool(self.pod["metadata"].get("deletionTimestamp"))


def next_restart(
    stateful_set: Object,
    pods: Sequence[BrokerPod],
    sets: Iterable[PartitionSet],
    live: Mapping[int, BrokerIdentity],
) -> Restart | Wait | None:
    """Return what to do; None if every pod is as it should be, or that cannot be told yet."""
    if not is_settled(stateful_set):
        return None
    revision = stateful_set["status"]["updateRevision"]
    outdated = [one for one in sorted(pods, key=lambda one: one.broker_id) if _revision(one.pod) != revision]
    if not outdated:
        return None
    for one in outdated:
        if one.idle and not one.leaving:
            return Restart(one.broker_id, one.pod, why(one.pod, stateful_set), gentle=False)
    replicas = stateful_set["spec"]["replicas"]
    unready = sorted({*range(replicas)} - {one.broker_id for one in pods if one.ready and not one.leaving})
    if unready:
        return Wait(f"waiting for broker {', '.join(map(str, unready[:_NAMED]))} to be ready")
    states = list(_states(sets))
    needing: list[str] = []
    for one in outdated:
        blocking = [
            name for name, state, least in states if not _can_spare(state, least, one.broker_id, live)
        ]
        if not blocking:
            return Restart(one.broker_id, one.pod, why(one.pod, stateful_set), gentle=True)
        needing = needing or blocking
    named = ", ".join(needing[:_NAMED])
    return Wait(
        f"no broker can be spared: {named} would have fewer replicas in sync than min.insync.replicas"
    )


def is_settled(stateful_set: Object) -> bool:
    """Say whether the StatefulSet's status speaks of its newest template."""
    status = stateful_set.get("status") or {}
    generation = stateful_set["metadata"].get("generation") or 0
    return bool(status.get("updateRevision")) and (status.get("observedGeneration") or 0) >= generation


def _revision(pod: Object) -> str | None:
    revision: str | None = (pod["metadata"].get("labels") or {}).get(REVISION_LABEL)
    return revision


def _states(sets: Iterable[PartitionSet]) -> Iterable[tuple[str, PartitionState, int]]:
    for slice_ in sets:
        if slice_.deleting:
            continue
        for number, state in enumerate(slice_.partitions, slice_.first_partition):
            yield f"{slice_.topic_name}-{number}", state, slice_.min_insync_replicas


def _can_spare(
    state: PartitionState, minimum: int, broker_id: int, live: Mapping[int, BrokerIdentity]
) -> bool:
    """Say whether the partition keeps its minimum without the broker, or as near to it as it ever can."""
    if broker_id not in state.replicas:
        return True
    others = [
        ref
        for ref in state.isr
        if ref.broker_id != broker_id
        and ref.broker_id in live
        and live[ref.broker_id].generation == ref.generation
    ]
    # With as many replicas as must be in sync no broker could ever be restarted.
    return len(others) >= min(effective_min_isr(minimum, state), len(state.replicas) - 1)


def why(pod: Object, stateful_set: Object) -> str:
    """Return what differs between a pod and what it should be made from."""
    template = stateful_set["spec"]["template"]
    before, after = _container(pod["spec"]), _container(template["spec"])
    reasons = []
    if before.get("image") != after.get("image"):
        reasons.append(f"image {before.get('image')} becomes {after.get('image')}")
    old, new = (part["metadata"].get("annotations") or {} for part in (pod, template))
    if old.get(ANNOTATION_CONFIG) != new.get(ANNOTATION_CONFIG):
        reasons.append("its configuration changed")
    restarted = "kubectl.kubernetes.io/restartedAt"
    if old.get(restarted) != new.get(restarted):
        reasons.append("a restart was asked for")
    return "; ".join(reasons) or "its pod template changed"


def _container(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((one for one in spec.get("containers") or () if one.get("name") == CONTAINER), {})
