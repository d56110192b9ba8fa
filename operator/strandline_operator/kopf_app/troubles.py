"""What hinders a Cluster outside its partitions, for its status. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from strandline_broker.cluster.model import Object
from strandline_operator.controller.conditions import Reason, Trouble
from strandline_operator.kopf_app.pods import waiting_reason
from strandline_operator.kubernetes.blueprint import Blueprint
from strandline_operator.kubernetes.plan import Blocked

_MAX_REASON = 300


def outside_troubles(
    blueprint: Blueprint, blocked: Sequence[Blocked], pods: Iterable[Object]
) -> tuple[Trouble, ...]:
    """Return what the Cluster's conditions should name."""
    troubles = []
    wanted = blueprint.cluster.replicas
    if blueprint.replicas > wanted:
        message = (
            f"{blueprint.replicas} brokers run, and spec.replicas is {wanted}: this version cannot drain brokers, and "
            f"removing them undrained would lose their replicas; set spec.replicas to {blueprint.replicas}"
        )
        troubles.append(Trouble(Reason.SCALE_DOWN_REFUSED, message, stalled=True))
    for one in blocked:
        if one.leaving:
            message = f"{one.kind} {one.name} of the former Cluster of this name is still being removed"
            troubles.append(Trouble(Reason.CREATING, message, own_condition=False))
        else:
            message = f"{one.kind} {one.name} exists and is not this Cluster's; remove or rename it"
            troubles.append(Trouble(Reason.RESOURCE_CONFLICT, message, stalled=True))
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"])):
        reason = waiting_reason(pod)
        if reason:
            message = f"pod {pod['metadata']['name']} does not run: {reason[:_MAX_REASON]}"
            troubles.append(Trouble(Reason.PODS_NOT_RUNNING, message))
            break  # one tells enough; the others mostly wait for the same
    return tuple(troubles)
