"""What a broker may do at the API server: ServiceAccount, Role and RoleBinding, and the secret between brokers.

A broker reads the objects of its namespace that make up cluster state, writes the ISR of its partitions, its own Lease, and
Topics for Kafka clients that administer them. Writes are restricted by name wherever the API server can do that.
"""

from __future__ import annotations

import base64
import secrets
from typing import Any, Final

from strandline_broker.cluster.model import GROUP, Object, cluster_state_name
from strandline_operator.kubernetes.blueprint import Blueprint
from strandline_operator.kubernetes.config_map import TOKEN_KEY
from strandline_operator.kubernetes.network import service_account_name

_READ: Final = ["get", "list", "watch"]
_TOKEN_BYTES: Final = 32


def service_account(blueprint: Blueprint) -> Object:
    """Return the identity of the brokers; pods ask for its token themselves."""
    return blueprint.object(
        "v1", "ServiceAccount", service_account_name(blueprint), automountServiceAccountToken=False
    )


def role(blueprint: Blueprint) -> Object:
    """Return what brokers may do, in their own namespace only."""
    leases = [blueprint.pod_name(broker_id) for broker_id in range(blueprint.replicas)]
    rules: list[dict[str, Any]] = [
        _rule(GROUP, ["clusters", "clusterstates", "partitionsets"], _READ),
        _rule(GROUP, ["partitionsets"], ["patch"]),
        _rule(GROUP, ["clusterstates"], ["patch"], [cluster_state_name(blueprint.name)]),
        _rule("coordination.k8s.io", ["leases"], [*_READ, "create"]),
        _rule("coordination.k8s.io", ["leases"], ["patch"], leases),
    ]
    verbs = ["get", "list"]
    if blueprint.cluster.kafka_admin != "None":
        verbs += ["create", "patch", "delete"]
    rules.append(_rule(GROUP, ["topics"], verbs))
    return blueprint.object(
        "rbac.authorization.k8s.io/v1", "Role", service_account_name(blueprint), rules=rules
    )


def _rule(
    group: str, resources: list[str], verbs: list[str], names: list[str] | None = None
) -> dict[str, Any]:
    rule: dict[str, Any] = {"apiGroups": [group], "resources": resources, "verbs": verbs}
    if names is not None:
        rule["resourceNames"] = names
    return rule


def role_binding(blueprint: Blueprint) -> Object:
    """Return the binding of the two."""
    name = service_account_name(blueprint)
    return blueprint.object(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        name,
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        subjects=[{"kind": "ServiceAccount", "name": name, "namespace": blueprint.namespace}],
    )


def new_token() -> str:
    """Return a new secret between brokers."""
    return secrets.token_hex(_TOKEN_BYTES)


def token_secret(blueprint: Blueprint, token: str) -> Object:
    """Return the Secret. It is created once and never changed by the operator: whoever rotates it writes it."""
    data = {TOKEN_KEY: base64.b64encode(f"{token}\n".encode()).decode()}
    return blueprint.object("v1", "Secret", blueprint.token_secret, type="Opaque", data=data)
