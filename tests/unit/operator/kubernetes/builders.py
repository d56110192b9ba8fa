"""Clusters to build, from the short spec that a test is about."""

from __future__ import annotations

from typing import Any

from strandline_broker.cluster.model import API_VERSION, CLUSTER, Cluster, Object
from strandline_operator.kubernetes.blueprint import Blueprint
from strandline_operator.kubernetes.settings import OperatorSettings

UID = "5b1f6d5e-0000-4000-8000-000000000001"
SETTINGS = OperatorSettings(image="example.org/strandline:1.2.3")


def cluster_of(spec: dict[str, Any] | None = None, name: str = "demo") -> Cluster:
    metadata = {"name": name, "uid": UID, "generation": 1}
    return Cluster.from_object(
        {"apiVersion": API_VERSION, "kind": CLUSTER, "metadata": metadata, "spec": spec or {}}
    )


def blueprint_of_spec(
    spec: dict[str, Any] | None = None,
    *,
    settings: OperatorSettings = SETTINGS,
    replicas: int | None = None,
    template_size: str | None = None,
) -> Blueprint:
    cluster = cluster_of(spec)
    return Blueprint(
        cluster, "shop", settings, cluster.replicas if replicas is None else replicas, template_size
    )


def named(objects: list[Object], kind: str, name: str) -> Object:
    return next(obj for obj in objects if obj["kind"] == kind and obj["metadata"]["name"] == name)
