from __future__ import annotations

from typing import Any

import pytest
from tests.unit.operator.kubernetes.builders import blueprint_of_spec

from strandline_broker.cluster.model import Object
from strandline_operator.kubernetes.bootstrap import cluster_bootstrap, listener_statuses
from strandline_operator.kubernetes.placement import ANNOTATION_PLACEMENT

PLAIN = {"name": "PLAIN", "port": 9092}


def pod(number: int, placement: str | None) -> Object:
    annotations = {ANNOTATION_PLACEMENT: placement} if placement is not None else {}
    return {"metadata": {"name": f"demo-broker-{number}", "annotations": annotations}}


def outside(kind: str) -> dict[str, Any]:
    return {"name": "OUT", "port": 9094, "type": kind}


def test_without_listeners_there_is_the_usual_one() -> None:
    blueprint = blueprint_of_spec({})
    address = f"demo-bootstrap.{blueprint.namespace}.svc:9092"
    assert cluster_bootstrap(blueprint) == address
    assert listener_statuses(blueprint, {}, []) == (
        {"name": "PLAIN", "type": "ClusterIP", "bootstrap": address},
    )


def test_clients_inside_get_one_listener_of_their_own() -> None:
    listeners = [outside("NodePort"), {"name": "SECURE", "port": 9093, "tls": {"secretName": "s"}}, PLAIN]
    assert cluster_bootstrap(blueprint_of_spec({"listeners": listeners})).endswith(".svc:9093")
    assert cluster_bootstrap(blueprint_of_spec({"listeners": listeners[:1]})).endswith(".svc:9094")


def test_a_node_port_is_reached_at_the_nodes_of_the_first_pods() -> None:
    blueprint = blueprint_of_spec({"listeners": [outside("NodePort")]})
    pods = [
        pod(number, f'{{"advertised":{{"OUT":{{"host":"10.0.0.{number}","port":3100{number}}}}}}}')
        for number in (4, 1, 2, 3)
    ]
    (status,) = listener_statuses(blueprint, {}, [*pods, pod(0, None)])
    assert status["bootstrap"] == "10.0.0.1:31001,10.0.0.2:31002,10.0.0.3:31003"


@pytest.mark.parametrize("placement", [None, "{}", "no json", "[]", '{"advertised":{"OTHER":{}}}'])
def test_an_address_that_is_not_known_is_left_out(placement: str | None) -> None:
    blueprint = blueprint_of_spec({"listeners": [outside("NodePort")]})
    assert listener_statuses(blueprint, {}, [pod(0, placement)]) == ({"name": "OUT", "type": "NodePort"},)


def test_a_load_balancer_has_one_address_for_all() -> None:
    blueprint = blueprint_of_spec({"listeners": [outside("LoadBalancer")]})
    waiting: Object = {"status": {"loadBalancer": {}}}
    assert "bootstrap" not in listener_statuses(blueprint, {"demo-bootstrap-out": waiting}, [])[0]
    ready: Object = {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}}}
    (status,) = listener_statuses(blueprint, {"demo-bootstrap-out": ready}, [])
    assert status["bootstrap"] == "203.0.113.9:9094"
