from __future__ import annotations

import json
from typing import Any

from tests.unit.operator.kubernetes.builders import blueprint_of_spec

from strandline_broker.cluster.model import Object
from strandline_broker.server.placement import parse_placement
from strandline_operator.kubernetes.placement import needs_node, node_address, placement

NODE: Object = {
    "metadata": {"name": "node-1", "labels": {"topology.kubernetes.io/zone": "zone-1", "shelf": "s7"}},
    "status": {
        "addresses": [
            {"type": "Hostname", "address": "node-1"},
            {"type": "InternalIP", "address": "10.0.0.11"},
        ]
    },
}


def services(**status: Any) -> dict[str, Object]:
    spec = {"ports": [{"port": 9094, "nodePort": 31234}]}
    return {"demo-broker-1-out": {"spec": spec, "status": status}}


def listener(kind: str, **more: Any) -> dict[str, Any]:
    return {"listeners": [{"name": "OUT", "port": 9094, "type": kind, **more}]}


def test_without_racks_and_outside_addresses_there_is_nothing_to_say() -> None:
    blueprint = blueprint_of_spec({})
    assert not needs_node(blueprint)
    assert placement(blueprint, 1, None, {}) == "{}"


def test_the_rack_is_the_label_of_the_node() -> None:
    blueprint = blueprint_of_spec({"rack": {"topologyKey": "shelf"}})
    assert placement(blueprint, 1, None, {}) is None
    assert placement(blueprint, 1, NODE, {}) == '{"rack":"s7"}'
    assert placement(blueprint_of_spec({"rack": {"topologyKey": "no"}}), 1, NODE, {}) == '{"rack":""}'


def test_a_node_port_is_reached_at_the_pods_own_node() -> None:
    text = placement(blueprint_of_spec(listener("NodePort")), 1, NODE, services())
    assert text is not None
    assert json.loads(text) == {"advertised": {"OUT": {"host": "10.0.0.11", "port": 31234}}}
    assert parse_placement(text).advertised["OUT"] == ("10.0.0.11", 31234)


def test_an_outside_address_of_the_node_is_preferred() -> None:
    outside = {"type": "ExternalIP", "address": "203.0.113.7"}
    node = {**NODE, "status": {"addresses": [*NODE["status"]["addresses"], outside]}}
    assert node_address(node) == "203.0.113.7"


def test_a_load_balancer_is_waited_for() -> None:
    blueprint = blueprint_of_spec(listener("LoadBalancer"))
    assert placement(blueprint, 1, None, services()) == "{}"
    ready = services(loadBalancer={"ingress": [{"ip": "198.51.100.4"}]})
    text = placement(blueprint, 1, None, ready)
    assert text == '{"advertised":{"OUT":{"host":"198.51.100.4","port":9094}}}'
    by_name = services(loadBalancer={"ingress": [{"hostname": "lb.example.org", "ip": ""}]})
    assert "lb.example.org" in str(placement(blueprint, 1, None, by_name))


def test_what_the_user_says_wins() -> None:
    blueprint = blueprint_of_spec(listener("NodePort", advertisedHost="b%d.example.org"))
    assert not needs_node(blueprint)
    text = placement(blueprint, 1, None, services())
    assert text == '{"advertised":{"OUT":{"host":"b1.example.org","port":31234}}}'
