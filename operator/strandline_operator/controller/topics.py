"""From a Topic to its PartitionSets: created, configured, grown, deleted, brought back. Pure.

    (no Topic) ──apply──▶ finalizer set ──▶ slices created ──▶ served ◀──────────────┐
                                                                 │                   │ re-applied: adopted
                        Topic deleted, policy Retain: finalizer released, slices stay┘
                        Topic deleted, policy Delete: slices `deleting`, finalizer released
                              │                       ▲
              grace period over, id recorded          └─ re-applied with strandline.io/undelete: `deleting` taken back
              in ClusterState.purgedTopicIds, slices removed

A Topic gets no PartitionSet before it has the finalizer: otherwise a deletion could pass unobserved, and with it the
policy that says what to do with the records.
"""

from __future__ import annotations

from collections.abc import Iterator

from strandline_broker.cluster import (
    broker_config,
    cluster_settings,
    internal_topics,
    topic_config,
    transitions,
)
from strandline_broker.cluster.model import TOPIC, Topic, derive_topic_id
from strandline_broker.cluster.replica_assignment import ANNOTATION_REPLICA_ASSIGNMENT, parse_assignment
from strandline_operator.controller.actions import Action, Notice
from strandline_operator.controller.conditions import Reason, Trouble
from strandline_operator.controller.deletion import add_finalizer, decide_deletion, release_only
from strandline_operator.controller.slices import Placer, patch_slice, place, replication_factor
from strandline_operator.controller.world import ANNOTATION_UNDELETE, FINALIZER, TopicSets, World


class Outcome:
    """What was decided about one Topic: actions, and what keeps it from being ready.

    `factor` is the number of replicas that its partitions are to have; None leaves them as they are.
    """

    __slots__ = ("actions", "factor", "troubles")

    def __init__(self) -> None:
        self.actions: list[Action] = []
        self.troubles: list[Trouble] = []
        self.factor: int | None = None


def decide_topic(world: World, topic: Topic, placer: Placer) -> Outcome:
    """Decide about a Topic that exists, whether it is being deleted or not."""
    outcome = Outcome()
    if topic.topic_name in internal_topics.INTERNAL_TOPICS:
        _refuse_internal(topic, outcome)
        return outcome
    owner = world.owners[topic.topic_name]
    if topic.deleting:
        outcome.actions += decide_deletion(world, topic, is_owner=owner is topic)
        outcome.troubles.append(Trouble(Reason.DELETING, "being deleted", own_condition=False))
        return outcome
    if owner is not topic:
        outcome.troubles.append(
            Trouble(
                Reason.RESOURCE_CONFLICT,
                f"the topic {topic.topic_name} belongs to the older Topic {owner.name}; delete one of the two "
                "(deleting this one changes nothing)",
                stalled=True,
            )
        )
        return outcome
    if world.cluster is None:
        message = f"there is no Cluster {topic.cluster} in this namespace; make it, or delete this Topic"
        outcome.troubles.append(Trouble(Reason.CLUSTER_NOT_FOUND, message, stalled=True))
        return outcome
    if FINALIZER not in topic.meta.finalizers:
        outcome.actions.append(add_finalizer(topic))
        outcome.troubles.append(_creating())
        return outcome
    sets = world.live_sets(topic.topic_name)
    config = _effective_config(world, topic, outcome.troubles)
    if sets is None:
        _make_or_bring_back(world, topic, config, outcome, placer)
    else:
        _bring_in_line(world, topic, sets, config, outcome, placer)
    return outcome


def _refuse_internal(topic: Topic, outcome: Outcome) -> None:
    """Let an object that only a store without a schema could take come and go, without a finger on the real topic."""
    if topic.deleting:
        outcome.actions += release_only(topic)
        outcome.troubles.append(Trouble(Reason.DELETING, "being deleted", own_condition=False))
        return
    message = (
        f"{topic.topic_name} is internal and made with the Cluster; delete this Topic, which changes nothing"
    )
    outcome.troubles.append(Trouble(Reason.RESOURCE_CONFLICT, message, stalled=True))


# -- existing topics ------------------------------------------------------------------------------------------------


def _bring_in_line(
    world: World,
    topic: Topic,
    sets: TopicSets,
    config: dict[str, str] | None,
    outcome: Outcome,
    placer: Placer,
) -> None:
    """Config, partitions and factor of a topic that is served."""
    wanted = topic.partitions
    lost = _lost_partitions(topic, sets)
    if lost:
        outcome.troubles.append(lost)
        return
    if wanted < sets.partition_count:
        outcome.troubles.append(
            Trouble(
                Reason.NOT_SUPPORTED,
                f"the topic has {sets.partition_count} partitions, which cannot become {wanted} without losing records; "
                f"set spec.partitions to {sets.partition_count}",
                stalled=True,
            )
        )
    complete = [slice_.slice_index for slice_ in sets.slices] == list(range(len(sets.slices)))
    grow = wanted > sets.partition_count or not complete
    if grow and not world.settled:
        outcome.troubles.append(_waiting_for_brokers(world))
        grow = False
    if _needs_brokers(sets, topic.replicas):
        if not world.settled:
            outcome.troubles.append(_waiting_for_brokers(world))
        elif _enough_brokers(world, topic.replicas, outcome.troubles):
            outcome.factor = topic.replicas
    else:
        outcome.factor = topic.replicas
    factor = outcome.factor if outcome.factor is not None else replication_factor(sets.head)
    if grow and _enough_brokers(world, factor, outcome.troubles):
        present = {slice_.slice_index: slice_ for slice_ in sets.slices}
        chosen = config if config is not None else dict(sets.head.config)
        where = _chosen_replicas(topic, outcome.troubles)
        if where is not None:
            outcome.actions += place(world, topic, sets.topic_id, present, chosen, factor, placer, where)
            outcome.troubles.append(_creating())
    elif config is not None:
        outcome.actions += _reconfigure(sets, config)


def _needs_brokers(sets: TopicSets, factor: int) -> bool:
    """Say whether some partition has fewer replicas than `factor`, and none on the way."""
    return any(
        len(state.replicas) - len(state.removing) < factor and len(transitions.target_of(state)) < factor
        for slice_ in sets.slices
        for state in slice_.partitions
    )


def _lost_partitions(topic: Topic, sets: TopicSets | None) -> Trouble | None:
    """Say if partitions that once were complete are no longer in the store.

    They must not be made again: new ones would start empty, under ids and epochs that brokers have records for.
    """
    recorded = int(topic.status.get("partitions") or 0)
    present = sets.partition_count if sets is not None else 0
    if present >= recorded:
        return None
    return Trouble(
        Reason.PARTITIONS_LOST,
        f"{recorded - present} of {recorded} partitions are no longer in the store, though nobody deleted the topic; "
        "brokers keep their records. Restore the PartitionSet objects from a backup; or, to give the records up, set "
        "deletionPolicy Delete, delete this Topic and apply it again, which makes an empty topic",
        stalled=True,
    )


def _reconfigure(sets: TopicSets, config: dict[str, str]) -> Iterator[Action]:
    for slice_ in sets.slices:
        if slice_.config != config:
            yield patch_slice(slice_, transitions.change_config(slice_, config))


# -- new topics -----------------------------------------------------------------------------------------------------


def _make_or_bring_back(
    world: World, topic: Topic, config: dict[str, str] | None, outcome: Outcome, placer: Placer
) -> None:
    waiting = world.waiting_sets(topic.topic_name)
    if waiting is not None and ANNOTATION_UNDELETE in topic.meta.annotations:
        notice = Notice(
            TOPIC, topic.name, "Undeleted", f"topic {topic.topic_name} is back with its id and records"
        )
        for slice_ in waiting.slices:
            if not slice_.deleting:
                continue
            notices = (notice,) if slice_ is waiting.head else ()
            outcome.actions.append(patch_slice(slice_, transitions.unmark_deleting(slice_), notices=notices))
        outcome.troubles.append(_creating())
        return
    if config is None:
        return
    if not world.settled:
        outcome.troubles.append(_waiting_for_brokers(world))
        return
    if not _enough_brokers(world, topic.replicas, outcome.troubles):
        return
    topic_id = derive_topic_id(topic.uid, topic.topic_name)
    lost = _lost_partitions(topic, None)
    if lost:
        outcome.troubles.append(lost)
        return
    where = _chosen_replicas(topic, outcome.troubles)
    if where is None:
        return
    outcome.actions += place(world, topic, topic_id, {}, config, topic.replicas, placer, where)
    outcome.troubles.append(_creating())


# -- checks ---------------------------------------------------------------------------------------------------------


def _effective_config(world: World, topic: Topic, troubles: list[Trouble]) -> dict[str, str] | None:
    """Return the defaults under the Topic's own config, or None with the reason added to `troubles`.

    Defaults are the Cluster's, and above them those that Kafka clients set for all brokers.
    """
    assert world.cluster is not None
    tiering = bool(world.cluster.spec.get("tiering"))
    try:
        defaults = topic_config.validate(
            cluster_settings.topic_defaults(world.cluster.config), tiering=tiering
        )
    except topic_config.InvalidTopicConfig as error:
        troubles.append(
            Trouble(
                Reason.INVALID_CONFIG, f"spec.config of Cluster {world.cluster_name}: {error}", stalled=True
            )
        )
        return None
    defaults |= broker_config.topic_defaults(world.state)
    try:
        own = topic_config.validate(topic.config, defaults=topic_config.effective(defaults), tiering=tiering)
    except topic_config.InvalidTopicConfig as error:
        troubles.append(Trouble(Reason.INVALID_CONFIG, f"spec.config: {error}", stalled=True))
        return None
    # A Cluster-wide default above the factor is fine: what applies never exceeds the number of replicas. Nor does it while
    # the replicas become more.
    needed = int(own.get("min.insync.replicas", "1"))
    if needed > topic.replicas:
        troubles.append(
            Trouble(
                Reason.INVALID_CONFIG,
                f"spec.config: min.insync.replicas is {needed}, and spec.replicas {topic.replicas}; lower it to that",
                stalled=True,
            )
        )
        return None
    return {**defaults, **own}


def _chosen_replicas(topic: Topic, troubles: list[Trouble]) -> dict[int, tuple[int, ...]] | None:
    """Return where the user wants new partitions, or None with the reason added to `troubles`."""
    try:
        return parse_assignment(topic.meta.annotations.get(ANNOTATION_REPLICA_ASSIGNMENT, "{}"))
    except ValueError as error:
        troubles.append(Trouble(Reason.INVALID_CONFIG, str(error), stalled=True))
        return None


def _enough_brokers(world: World, factor: int, troubles: list[Trouble]) -> bool:
    usable = world.usable
    if len(usable) >= factor:
        return True
    configured = world.cluster.replicas if world.cluster else 0
    if factor > configured:
        message = (
            f"{factor} replicas are asked for, and the Cluster has {configured} brokers; lower spec.replicas or add "
            "brokers"
        )
        troubles.append(Trouble(Reason.NOT_ENOUGH_BROKERS, message, stalled=True))
    else:
        message = f"{factor} brokers are needed for new partitions, and {len(usable)} of {configured} run"
        troubles.append(Trouble(Reason.NOT_ENOUGH_BROKERS, message))
    return False


def _creating() -> Trouble:
    return Trouble(Reason.CREATING, "partitions are being made", own_condition=False)


def _waiting_for_brokers(world: World) -> Trouble:
    expected = world.cluster.replicas if world.cluster else 0
    return Trouble(
        Reason.WAITING_FOR_BROKERS,
        f"{len(world.live)} of {expected} brokers run; new partitions are placed when all do, or shortly after",
        own_condition=False,
    )
