"""What all builders of one Cluster's objects work from, and what all its objects have in common."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from strandline_broker.cluster.model import API_VERSION, CLUSTER, LABEL_CLUSTER, Cluster, Object
from strandline_operator.kubernetes.listeners import ClientListener, client_listeners, internal_ports
from strandline_operator.kubernetes.settings import OperatorSettings

FIELD_MANAGER: Final = "strandline-operator"
COMPONENT: Final = "broker"
# Argo CD and Flux must not remove what they did not make, though it carries no label of theirs.
KEEP_ANNOTATIONS: Final = {
    "argocd.argoproj.io/sync-options": "Prune=false",
    "kustomize.toolkit.fluxcd.io/prune": "disabled",
}
_MAX_LABEL_LENGTH: Final = 63


@dataclass(frozen=True, slots=True)
class Blueprint:
    """One Cluster as it is to be built.

    `replicas` may be more than the spec says: brokers are not removed undrained. `template_size` is the size of new volumes
    where the StatefulSet has it already and cannot change it.
    """

    cluster: Cluster
    namespace: str
    settings: OperatorSettings
    replicas: int
    template_size: str | None = None

    @property
    def name(self) -> str:
        """Name of the Cluster."""
        return self.cluster.name

    @property
    def listeners(self) -> tuple[ClientListener, ...]:
        """Listeners for clients."""
        return client_listeners(self.cluster.spec)

    @property
    def internal_port(self) -> int:
        """Port of the listener between brokers."""
        return internal_ports(self.listeners)[0]

    @property
    def http_port(self) -> int:
        """Port of health, metrics and reports."""
        return internal_ports(self.listeners)[1]

    @property
    def set_name(self) -> str:
        """Name of the StatefulSet; pod i, broker i and the broker's Lease are called `<set_name>-i`."""
        return f"{self.name}-broker"

    @property
    def headless_service(self) -> str:
        """Name of the Service that gives pods their DNS names."""
        return f"{self.name}-brokers"

    @property
    def bootstrap_service(self) -> str:
        """Name of the Service that clients inside the Kubernetes cluster connect to first."""
        return f"{self.name}-bootstrap"

    @property
    def config_map(self) -> str:
        """Name of the ConfigMap with the brokers' configuration."""
        return f"{self.name}-broker-config"

    @property
    def token_secret(self) -> str:
        """Name of the Secret by which the brokers know each other."""
        return f"{self.name}-inter-broker"

    def pod_name(self, broker_id: int) -> str:
        """Return the name of a broker's pod, which is also its Lease's."""
        return f"{self.set_name}-{broker_id}"

    def service_host(self, service: str) -> str:
        """Return the DNS name of a Service."""
        return f"{service}.{self.namespace}.svc.{self.settings.cluster_domain}"

    def selector(self) -> dict[str, str]:
        """Return the labels by which everything finds the brokers' pods. Immutable in a StatefulSet: never add to it."""
        return {
            "app.kubernetes.io/name": "strandline",
            "app.kubernetes.io/component": COMPONENT,
            LABEL_CLUSTER: self.name,
        }

    def labels(self) -> dict[str, str]:
        """Return the labels of every object.

        `app.kubernetes.io/instance` is left out on purpose: Argo CD takes an object with it for its own, and prunes it.
        """
        return {
            **self.selector(),
            "app.kubernetes.io/part-of": "strandline",
            "app.kubernetes.io/managed-by": FIELD_MANAGER,
        }

    def object(self, api_version: str, kind: str, name: str, **parts: Any) -> Object:
        """Return an object of the Cluster, which goes when the Cluster goes."""
        metadata: dict[str, Any] = {
            "name": name,
            "namespace": self.namespace,
            "labels": self.labels(),
            "annotations": dict(KEEP_ANNOTATIONS),
            "ownerReferences": [self.owner_reference()],
        }
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **parts}

    def owner_reference(self) -> dict[str, Any]:
        """Return the reference by which Kubernetes removes objects with the Cluster."""
        return {
            "apiVersion": API_VERSION,
            "kind": CLUSTER,
            "name": self.name,
            "uid": self.cluster.uid,
            "controller": True,
            # A foreground deletion of the Cluster need not wait for it, and no right on finalizers is needed.
            "blockOwnerDeletion": False,
        }


def checksum(value: object) -> str:
    """Return a short digest of a JSON value, the same for equal values."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def bounded_name(name: str) -> str:
    """Return `name` if a Service may be called so, else its beginning and a digest."""
    if len(name) <= _MAX_LABEL_LENGTH:
        return name
    return f"{name[: _MAX_LABEL_LENGTH - 11].rstrip('-')}-{checksum(name)[:10]}"
