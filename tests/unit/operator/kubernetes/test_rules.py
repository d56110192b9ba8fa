"""What must hold of the objects of every Cluster."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.operator.kubernetes.builders import SETTINGS, UID, blueprint_of_spec, named
from tests.unit.operator.kubernetes.test_golden import CASES

from strandline_broker.cluster.model import Object
from strandline_operator.kubernetes.access import token_secret
from strandline_operator.kubernetes.children import children
from strandline_operator.kubernetes.listeners import client_listeners, internal_ports
from strandline_operator.kubernetes.settings import OperatorSettings

LISTENERS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.from_regex(r"[A-Z][A-Z0-9_]{0,31}", fullmatch=True),
            "port": st.one_of(st.integers(1024, 65535), st.sampled_from([9091, 9191, 10092, 10192])),
            "type": st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"]),
        },
        optional={"tls": st.just({"secretName": "tls"}), "advertisedHost": st.just("b%d.example.org")},
    ),
    max_size=8,
    unique_by=(lambda one: one["name"], lambda one: one["port"]),
)


def pod_of(spec: dict[str, Any], settings: OperatorSettings = SETTINGS) -> dict[str, Any]:
    objects = children(blueprint_of_spec(spec, settings=settings))
    pod: dict[str, Any] = named(objects, "StatefulSet", "demo-broker")["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("name", CASES)
def test_every_object_is_labelled_and_goes_with_the_cluster(name: str) -> None:
    spec, settings = CASES[name]
    for obj in children(blueprint_of_spec(spec, settings=settings)):
        metadata = obj["metadata"]
        assert metadata["namespace"] == "shop"
        assert metadata["labels"]["strandline.io/cluster"] == "demo"
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "strandline-operator"
        assert "app.kubernetes.io/instance" not in metadata["labels"], "Argo CD would take it for its own"
        assert [owner["uid"] for owner in metadata["ownerReferences"]] == [UID]


def test_volumes_belong_to_nobody_and_are_marked_against_pruning() -> None:
    stateful_set = named(children(blueprint_of_spec({})), "StatefulSet", "demo-broker")
    (claim,) = stateful_set["spec"]["volumeClaimTemplates"]
    assert "ownerReferences" not in claim["metadata"]
    assert claim["metadata"]["annotations"]["argocd.argoproj.io/sync-options"] == "Prune=false"
    assert claim["metadata"]["annotations"]["kustomize.toolkit.fluxcd.io/prune"] == "disabled"
    retention = stateful_set["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert retention == {"whenDeleted": "Retain", "whenScaled": "Retain"}


@pytest.mark.parametrize("name", CASES)
def test_pods_have_no_more_rights_than_they_need(name: str) -> None:
    spec, settings = CASES[name]
    pod = pod_of(spec, settings)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    containers = [*pod["containers"], *pod.get("initContainers", ())]
    for container in containers:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
    roots = [one["name"] for one in containers if one["securityContext"].get("runAsUser") == 0]
    assert roots == (["volume-permissions"] if settings.volume_permissions else [])


def test_a_stopping_broker_gets_the_time_that_it_takes() -> None:
    objects = children(blueprint_of_spec({}))
    pod = named(objects, "StatefulSet", "demo-broker")["spec"]["template"]["spec"]
    config = named(objects, "ConfigMap", "demo-broker-config")["data"]["broker.yaml"]
    (shutdown,) = [line for line in config.splitlines() if line.startswith("shutdown_timeout_ms")]
    assert pod["terminationGracePeriodSeconds"] * 1000 >= int(shutdown.split(": ")[1]) + 20_000


@pytest.mark.parametrize("name", CASES)
def test_no_secret_is_in_a_config_map_or_in_the_open(name: str) -> None:
    spec, settings = CASES[name]
    blueprint = blueprint_of_spec(spec, settings=settings)
    secret = token_secret(blueprint, "s3cr3t")
    assert secret["kind"] == "Secret"
    text = repr(children(blueprint))
    assert "s3cr3t" not in text
    assert secret["data"]["token"] not in text
    for variable in pod_of(spec, settings)["containers"][0]["env"]:
        if "SECRET" in variable["name"] or "KEY_ID" in variable["name"]:
            assert "value" not in variable
            assert variable["valueFrom"]["secretKeyRef"]["name"] == "bucket"


@pytest.mark.parametrize("name", CASES)
def test_rights_of_brokers_are_bounded(name: str) -> None:
    spec, settings = CASES[name]
    objects = children(blueprint_of_spec(spec, settings=settings))
    rules = named(objects, "Role", "demo-broker")["rules"]
    assert not any("*" in value for rule in rules for values in rule.values() for value in values)
    assert not [obj for obj in objects if obj["kind"].startswith("ClusterRole")]
    resources = {resource for rule in rules for resource in rule["resources"]}
    assert resources == {"clusters", "clusterstates", "partitionsets", "leases", "topics"}
    writes = {"create", "patch", "update", "delete", "deletecollection"}
    for rule in rules:
        if "clusters" in rule["resources"]:
            assert not writes & set(rule["verbs"])
        if "leases" in rule["resources"] and "patch" in rule["verbs"]:
            assert rule["resourceNames"][0] == "demo-broker-0"
            assert len(rule["resourceNames"]) == spec.get("replicas", 3)
    topics = {verb for rule in rules if "topics" in rule["resources"] for verb in rule["verbs"]}
    assert bool(topics & writes) is (spec.get("kafkaAdmin") != "None")


def test_the_port_between_brokers_is_open_to_brokers_alone() -> None:
    objects = children(blueprint_of_spec({"listeners": [{"name": "A", "port": 9091}]}))
    ingress = named(objects, "NetworkPolicy", "demo-broker")["spec"]["ingress"]
    open_to_all = {port["port"] for rule in ingress if "from" not in rule for port in rule["ports"]}
    restricted = {port["port"] for rule in ingress if "from" in rule for port in rule["ports"]}
    assert open_to_all == {9091, 10092}
    assert restricted == {9191}
    settings = OperatorSettings(network_policy=False)
    assert not [o for o in children(blueprint_of_spec({}, settings=settings)) if o["kind"] == "NetworkPolicy"]


def test_one_disruption_at_a_time() -> None:
    budget = named(children(blueprint_of_spec({})), "PodDisruptionBudget", "demo-broker")
    assert budget["spec"]["maxUnavailable"] == 1


def test_brokers_find_each_other_before_they_are_ready() -> None:
    service = named(children(blueprint_of_spec({})), "Service", "demo-brokers")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True


def test_the_template_changes_with_what_a_restart_is_needed_for_and_with_nothing_else() -> None:
    def template(spec: dict[str, Any], replicas: int = 3) -> Object:
        objects = children(blueprint_of_spec(spec, replicas=replicas))
        found: Object = named(objects, "StatefulSet", "demo-broker")["spec"]["template"]
        return found

    plain = template({})
    assert template({}, replicas=5) == plain
    assert template({"config": {"retention.ms": "1"}}) == plain
    assert template({"storage": {"size": "1Ti"}}) == plain
    assert template({"flush": "Replicated"}) != plain
    assert template({"listeners": [{"name": "PLAIN", "port": 9093}]}) != plain


def test_a_stateful_set_keeps_the_size_that_it_cannot_change() -> None:
    blueprint = blueprint_of_spec({"storage": {"size": "40Gi"}}, template_size="20Gi")
    (claim,) = named(children(blueprint), "StatefulSet", "demo-broker")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"


@given(LISTENERS)
def test_ports_and_names_never_collide(listeners: list[dict[str, Any]]) -> None:
    found = client_listeners({"listeners": listeners})
    ports = [*(one.port for one in found), *internal_ports(found)]
    assert len(ports) == len(set(ports))
    objects = children(blueprint_of_spec({"listeners": listeners, "replicas": 2}))
    keys = [(obj["kind"], obj["metadata"]["name"]) for obj in objects]
    assert len(keys) == len(set(keys))
    for kind, name in keys:
        assert kind != "Service" or len(name) <= 63
    for obj in objects:
        if obj["kind"] == "Service":
            names = [port["name"] for port in obj["spec"]["ports"]]
            assert len(names) == len(set(names))
    pod = named(objects, "StatefulSet", "demo-broker")["spec"]["template"]["spec"]
    names = [port["name"] for port in pod["containers"][0]["ports"]]
    assert len(names) == len(set(names))
    assert all(len(name) <= 15 for name in names), "Kubernetes' limit"
