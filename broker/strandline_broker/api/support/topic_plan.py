"""From what a client asks for to what a Topic will be: every check of CreateTopics that needs no write. Pure.

Source: Apache Kafka 4.2, `ReplicationControlManager.createTopics`, `validateManualPartitionAssignment`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from strandline_broker.api.context import BrokerSettings
from strandline_broker.api.support import admin_policy, topic_names
from strandline_broker.api.support.brokers import is_live
from strandline_broker.api.support.config_defaults import config_defaults, has_tiering
from strandline_broker.cluster import topic_config
from strandline_broker.cluster.cache import ClusterCache
from strandline_broker.cluster.replica_assignment import MAX_TEXT, format_assignment
from strandline_broker.cluster.topic_config import InvalidTopicConfig
from strandline_broker.errors import ErrorCode, KafkaError

MAX_PARTITIONS = 10_000
"""As the Topic's schema has it."""

_DEFAULT = -1


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """A topic that may be created. `assignment` has the brokers of each partition where the client chose them."""

    name: str
    partitions: int
    replicas: int
    config: Mapping[str, str] = field(default_factory=dict)
    assignment: Mapping[int, Sequence[int]] = field(default_factory=dict)


def plan_topic(
    view: ClusterCache,
    settings: BrokerSettings,
    name: str,
    *,
    partitions: int = _DEFAULT,
    replicas: int = _DEFAULT,
    configs: Iterable[tuple[str, str | None]] = (),
    assignments: Mapping[int, Sequence[int]] | None = None,
) -> TopicPlan:
    """Check a wish for a new topic as Kafka does, in Kafka's order. Raises KafkaError.

    `assignments` are replicas by partition, with `partitions` and `replicas` left at -1.
    """
    admin_policy.check_create(view)
    topic_names.check(name)
    topic_names.check_collision(name, view.topics)
    if view.topic_by_name(name) is not None:
        raise KafkaError(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")
    if topic_names.is_internal(name):
        raise KafkaError(
            ErrorCode.INVALID_REQUEST, f"Topic '{name}' is internal: the cluster makes it itself."
        )
    config = _check_configs(view, configs)
    # The broker that answers evidently lives, though the store may still show it at its start.
    live = sorted(
        broker_id
        for broker_id, lease in view.leases.items()
        if is_live(lease) or broker_id == settings.broker_id
    )
    if assignments:
        if replicas != _DEFAULT or partitions != _DEFAULT:
            what = "replication factor" if replicas != _DEFAULT else "numPartitions"
            raise KafkaError(
                ErrorCode.INVALID_REQUEST,
                f"A manual partition assignment was specified, but {what} was not set to -1.",
            )
        replicas = _check_assignments(assignments, set(view.leases), live)
        partitions = len(assignments)
    elif replicas < _DEFAULT or replicas == 0:
        raise KafkaError(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        )
    elif partitions < _DEFAULT or partitions == 0:
        raise KafkaError(
            ErrorCode.INVALID_PARTITIONS, "Number of partitions was set to an invalid non-positive value."
        )
    plan = TopicPlan(
        name,
        settings.num_partitions if partitions == _DEFAULT else partitions,
        settings.default_replication_factor if replicas == _DEFAULT else replicas,
        config,
        assignments or {},
    )
    _check_size(plan, len(live))
    return plan


def _check_configs(view: ClusterCache, configs: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in configs:
        if value is None:
            raise KafkaError(ErrorCode.INVALID_CONFIG, f"Null value not supported for topic configs: {name}")
        given[name] = value
    try:
        return topic_config.validate(given, defaults=config_defaults(view).merged, tiering=has_tiering(view))
    except InvalidTopicConfig as error:
        raise KafkaError(ErrorCode.INVALID_CONFIG, str(error)) from error


def _check_size(plan: TopicPlan, live: int) -> None:
    if plan.partitions > MAX_PARTITIONS:
        raise KafkaError(
            ErrorCode.INVALID_PARTITIONS,
            f"A topic can have at most {MAX_PARTITIONS} partitions, not {plan.partitions}.",
        )
    if plan.replicas > live:
        raise KafkaError(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"Unable to replicate the partition {plan.replicas} time(s): The target replication factor of "
            f"{plan.replicas} cannot be reached because only {live} broker(s) are registered.",
        )
    min_isr = int(plan.config.get("min.insync.replicas", "1"))
    if min_isr > plan.replicas:
        raise KafkaError(
            ErrorCode.INVALID_CONFIG,
            f"min.insync.replicas={min_isr} is above the replication factor {plan.replicas}: "
            "no acks=all write could ever succeed.",
        )


def _check_assignments(assignments: Mapping[int, Sequence[int]], known: set[int], live: Sequence[int]) -> int:
    """Return the replication factor of a manual assignment."""
    factor = 0
    for brokers in assignments.values():
        why = assignment_problem(brokers, known, factor)
        if why:
            raise KafkaError(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"The manual partition assignment includes {why}"
            )
        factor = len(brokers)
    if set(assignments) != set(range(len(assignments))):
        raise KafkaError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "partitions should be a consecutive 0-based integer sequence",
        )
    for index, brokers in assignments.items():
        check_lives(index, brokers, live)
    check_text(assignments)
    return factor


def check_lives(index: int, brokers: Iterable[int], live: Collection[int]) -> None:
    """Check that a new partition would have a replica that can lead it. Raises KafkaError."""
    if not any(broker in live for broker in brokers):
        raise KafkaError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            f"All brokers specified in the manual partition assignment for partition {index} are fenced or in controlled "
            "shutdown.",
        )


def check_text(assignments: Mapping[int, Sequence[int]]) -> None:
    """Check that the Topic object can hold an assignment. Raises KafkaError."""
    if len(format_assignment(assignments)) > MAX_TEXT:
        raise KafkaError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "The manual partition assignment is too large; give the number of partitions and a replication factor instead.",
        )


def assignment_problem(brokers: Sequence[int], known: Collection[int], factor: int) -> str:
    """Return what is wrong with one partition's replicas, or an empty string.

    `known` are the registered brokers; `factor` is what other partitions have, 0 for anything.
    """
    if not brokers:
        return "an empty replica list."
    for broker in brokers:
        if brokers.count(broker) > 1:
            return f"the broker {broker} more than once."
        if broker not in known:
            return f"broker {broker}, but no such broker is registered."
    if factor and len(brokers) != factor:
        return (
            f"a partition with {len(brokers)} replica(s), but this is not consistent with previous "
            f"partitions, which have {factor} replica(s)."
        )
    return ""
