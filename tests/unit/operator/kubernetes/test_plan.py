from __future__ import annotations

import copy
from typing import Any

from tests.unit.operator.kubernetes.builders import UID, blueprint_of_spec

from strandline_broker.cluster.model import Object
from strandline_operator.kubernetes.children import children
from strandline_operator.kubernetes.plan import (
    Apply,
    Blocked,
    Key,
    Remove,
    difference,
    key_of,
    plan,
    stamped,
)

Steps = list[Apply | Remove | Blocked]


def as_stored(obj: Object) -> Object:
    """Return an object as the API server gives it back: stamped, with more fields and in its own spelling."""
    stored = copy.deepcopy(stamped(obj))
    stored["metadata"] |= {
        "uid": f"uid-of-{obj['metadata']['name']}",
        "resourceVersion": "7",
        "generation": 1,
    }
    if obj["kind"] == "Service":
        stored["spec"]["sessionAffinity"] = "None"
        for port in stored["spec"]["ports"]:
            port["nodePort"] = 31000
    return stored


def store(objects: list[Object]) -> dict[Key, Object]:
    return {key_of(obj): as_stored(obj) for obj in objects}


SPEC: dict[str, Any] = {"listeners": [{"name": "NODES", "port": 9094, "type": "NodePort"}]}


def test_what_is_missing_is_made_in_order_and_the_pods_come_last() -> None:
    desired = children(blueprint_of_spec(SPEC))
    steps = plan(desired, {}, UID)
    assert [step.reason for step in steps if isinstance(step, Apply)] == ["missing"] * len(desired)
    assert [key_of(step.object) for step in steps if isinstance(step, Apply)] == [
        key_of(one) for one in desired
    ]
    assert desired[-1]["kind"] == "StatefulSet"


def test_nothing_is_written_where_nothing_differs() -> None:
    desired = children(blueprint_of_spec(SPEC))
    assert plan(desired, store(desired), UID) == []


def test_an_amount_in_another_spelling_is_no_difference() -> None:
    desired = children(blueprint_of_spec(SPEC))
    observed = store(desired)
    container = observed["StatefulSet", "demo-broker"]["spec"]["template"]["spec"]["containers"][0]
    container["resources"]["requests"] = {"cpu": "0.1", "memory": "262144Ki"}
    assert plan(desired, observed, UID) == []


def test_what_somebody_else_changed_is_made_so_again() -> None:
    desired = children(blueprint_of_spec(SPEC))
    observed = store(desired)
    observed["Service", "demo-brokers"]["spec"]["publishNotReadyAddresses"] = False
    (step,) = plan(desired, observed, UID)
    assert isinstance(step, Apply)
    assert step.reason == "changed by somebody else: spec.publishNotReadyAddresses"


def test_a_field_that_is_no_longer_wanted_shows_though_every_wanted_one_is_there() -> None:
    before = children(blueprint_of_spec({"rack": {"topologyKey": "zone"}}))[-1]
    after = copy.deepcopy(before)
    del after["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert difference(stamped(after), as_stored(before)) == "wanted otherwise"


def test_only_services_and_policies_are_removed() -> None:
    observed = store(children(blueprint_of_spec(SPEC)))
    steps = plan([], observed, UID)
    assert {step.kind for step in steps if isinstance(step, Remove)} == {"Service", "NetworkPolicy"}
    assert all(isinstance(step, Remove) for step in steps)


def test_services_of_a_listener_that_is_gone_go() -> None:
    observed = store(children(blueprint_of_spec(SPEC)))
    steps = plan(children(blueprint_of_spec({})), observed, UID)
    removed = sorted(step.name for step in steps if isinstance(step, Remove))
    assert removed == ["demo-bootstrap-nodes", *(f"demo-broker-{i}-nodes" for i in range(3))]


def test_what_is_somebody_elses_is_not_touched() -> None:
    desired = children(blueprint_of_spec({}))
    observed = store(desired)
    observed["Service", "demo-bootstrap"]["metadata"].pop("ownerReferences")
    observed["ConfigMap", "demo-broker-config"]["metadata"]["ownerReferences"][0]["uid"] = "former"
    assert plan(desired, observed, UID) == [
        Blocked("ConfigMap", "demo-broker-config", leaving=True),
        Blocked("Service", "demo-bootstrap", leaving=False),
    ]
