"""All objects that a Cluster is made of, in the order in which they are applied. Pure.

Pods need the ConfigMap, the Secret and the ServiceAccount to start, so the StatefulSet comes last.
"""

from __future__ import annotations

from strandline_broker.cluster.model import Object
from strandline_operator.kubernetes.access import role, role_binding, service_account
from strandline_operator.kubernetes.blueprint import Blueprint
from strandline_operator.kubernetes.config_map import config_map
from strandline_operator.kubernetes.network import disruption_budget, network_policy, services
from strandline_operator.kubernetes.stateful_set import stateful_set


def children(blueprint: Blueprint) -> list[Object]:
    """Return every object but the Secret between brokers, which `plan` makes only where there is none."""
    objects = [
        service_account(blueprint),
        role(blueprint),
        role_binding(blueprint),
        config_map(blueprint),
        *services(blueprint),
        disruption_budget(blueprint),
    ]
    if blueprint.settings.network_policy:
        objects.append(network_policy(blueprint))
    objects.append(stateful_set(blueprint))
    return objects
