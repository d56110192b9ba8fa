"""What to do about one Cluster now: from a `World` to actions. Pure, level-triggered, safe to repeat.

Nothing is remembered between two calls: whatever is half done shows in the objects, and the next decision goes on from
there. Two controllers that decide from the same world decide the same, and the tests in each write let one of them win.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from strandline_broker.cluster import cluster_settings, internal_topics, topic_config
from strandline_broker.cluster.model import CLUSTER, CLUSTER_STATE, TOPIC, ClusterState, Topic
from strandline_operator.controller.actions import Action, Create, Patch, StatusWrite
from strandline_operator.controller.bucket_status import bucket_findings, bucket_notices
from strandline_operator.controller.conditions import Reason, Trouble, flipped
from strandline_operator.controller.deletion import decide_purges
from strandline_operator.controller.elections import Elections
from strandline_operator.controller.internal import STATUS_KEY, InternalOutcome, decide_internal
from strandline_operator.controller.reassignments import Reassigner
from strandline_operator.controller.slices import Placer
from strandline_operator.controller.status import Counts, cluster_status, count, status_patch, topic_status
from strandline_operator.controller.topics import Outcome, decide_topic
from strandline_operator.controller.world import World

logger = logging.getLogger(__name__)

_TRANSIENT = {Reason.CREATING, Reason.WAITING_FOR_BROKERS}


@dataclass(slots=True)
class Decision:
    """The result: `actions` to apply now, `statuses` to write when pacing allows, `later` when nothing else is left to do.

    `quiet` says that nothing is left to do or to wait for; `wake_at_ms` is the wall-clock time at which time alone
    changes the decision (the end of a grace period). `returned` says that leaderships return to preferred replicas.
    """

    actions: list[Action] = field(default_factory=list)
    statuses: list[StatusWrite] = field(default_factory=list)
    later: list[Action] = field(default_factory=list)
    quiet: bool = True
    wake_at_ms: int | None = None
    returned: bool = False


def decide(world: World) -> Decision:
    """Return what to do in this world."""
    decision = Decision()
    decision.actions += _decide_state(world)
    placer = Placer(world)
    factors: dict[UUID, int] = {}
    for topic in world.topics:
        outcome = _decide_guarded(world, topic, placer)
        decision.actions += outcome.actions
        decision.quiet &= not any(trouble.reason in _TRANSIENT for trouble in outcome.troubles)
        if topic.deleting:
            continue  # about to go; a status would only delay it
        owned = world.owners[topic.topic_name] is topic
        sets = world.live_sets(topic.topic_name) if owned else None
        if sets is not None and outcome.factor is not None and not outcome.actions:
            factors[sets.topic_id] = outcome.factor
        status = topic_status(world, topic, sets, outcome.troubles, outcome.factor)
        if status != topic.status:
            patch = status_patch(TOPIC, topic.name, topic.uid, topic.meta.generation, status)
            decision.statuses.append(StatusWrite(patch, flipped(topic.status, status)))
    internal = decide_internal(world, placer)
    decision.later += internal.actions
    factors |= internal.factors
    elections = Elections(world, Reassigner(world, placer, factors))
    decision.actions += elections.decide()
    decision.returned = elections.returned > 0
    decision.actions += decide_purges(world)
    decision.wake_at_ms = min(
        (sets.purge_at_ms for sets in world.sets if sets.deleting and sets.topic_id not in world.purged),
        default=None,
    )
    _decide_cluster_status(world, decision, internal, factors)
    decision.quiet &= not decision.actions and world.settled
    return decision


def _decide_state(world: World) -> list[Action]:
    """Make the ClusterState, which gives the cluster an id for good: whatever Cluster object comes later, it stays."""
    if world.cluster is None:
        return []
    cluster_id = str(world.cluster.status.get("clusterId") or world.cluster.uid)
    if world.state is None:
        state = ClusterState(cluster=world.cluster_name, cluster_id=cluster_id)
        return [Create(CLUSTER_STATE, state.to_object())]
    if not world.state.cluster_id:
        path, state = "/spec/clusterId", world.state
        operation = {"op": "add", "path": path, "value": cluster_id}
        return [Patch(CLUSTER_STATE, state.name, state.uid, ((path, None),), (operation,))]
    return []


def _decide_guarded(world: World, topic: Topic, placer: Placer) -> Outcome:
    """Decide about one Topic; one that cannot be decided about says so and harms no other."""
    try:
        return decide_topic(world, topic, placer)
    except Exception as error:
        logger.exception("no decision about Topic %s", topic.name)
        outcome = Outcome()
        message = f"this version cannot handle the object: {error!r}; check its spec, and report it if that is in order"
        outcome.troubles.append(Trouble(Reason.INTERNAL_ERROR, message, stalled=True))
        return outcome


def _decide_cluster_status(
    world: World, decision: Decision, internal: InternalOutcome, factors: Mapping[UUID, int]
) -> None:
    if world.cluster is None:
        return
    served = [sets for sets in world.sets if not sets.deleting and sets.topic_id not in world.purged]
    counts = sum((count(sets, world.live_by_id, factors.get(sets.topic_id)) for sets in served), Counts())
    troubles = [*_cluster_troubles(world), *world.outside, *internal.troubles]
    status = cluster_status(world, counts, len(served), troubles)
    for sets in served:  # what needs no user's attention is not counted; what is wrong with it is
        if sets.topic_name in internal_topics.INTERNAL_TOPICS:
            status["topics"] -= 1
            status["partitions"] -= sets.partition_count
    if internal.made:
        status[STATUS_KEY] = dict(internal.made)
    if status != world.cluster.status:
        cluster = world.cluster
        notices = bucket_notices(cluster.name, cluster.status.get("conditions") or (), bucket_findings(world))
        patch = status_patch(CLUSTER, cluster.name, cluster.uid, cluster.meta.generation, status, notices)
        decision.statuses.append(StatusWrite(patch, flipped(cluster.status, status)))


def _cluster_troubles(world: World) -> list[Trouble]:
    assert world.cluster is not None
    troubles = []
    try:
        cluster_settings.check_settings(world.cluster.config)
        defaults = cluster_settings.topic_defaults(world.cluster.config)
        topic_config.validate(defaults, tiering=bool(world.cluster.spec.get("tiering")))
    except (topic_config.InvalidTopicConfig, cluster_settings.InvalidClusterConfig) as error:
        troubles.append(Trouble(Reason.INVALID_CONFIG, f"spec.config: {error}", stalled=True))
    return troubles
