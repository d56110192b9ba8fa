"""The objects of some Clusters, byte for byte. `STRANDLINE_REWRITE_GOLDEN=1` writes the files anew: read the difference."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.operator.kubernetes.builders import SETTINGS, blueprint_of_spec, named

from strandline_broker.server.config import load
from strandline_operator.kubernetes.children import children
from strandline_operator.kubernetes.settings import OperatorSettings

ROOT = Path(__file__).resolve().parents[4]
GOLDEN = Path(__file__).with_name("golden")


def example(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load((ROOT / "examples" / name).read_text(encoding="utf-8"))["spec"]
    return spec


CASES: dict[str, tuple[dict[str, Any], OperatorSettings]] = {
    "replicated": (example("cluster.yaml"), SETTINGS),
    "minimal": ({"replicas": 1}, SETTINGS),
    "everything": (
        {
            "replicas": 2,
            "flush": "Replicated",
            "rack": {"topologyKey": "topology.kubernetes.io/zone"},
            "storage": {"size": "100Gi", "className": "fast"},
            "listeners": [
                {"name": "PLAIN", "port": 9092},
                {"name": "SECURE", "port": 9093, "tls": {"secretName": "demo-tls"}},
                {"name": "NODES", "port": 9094, "type": "NodePort"},
                {
                    "name": "WORLD_1",
                    "port": 9095,
                    "type": "LoadBalancer",
                    "advertisedHost": "b%d.example.org",
                },
            ],
            "tiering": {
                "bucket": "records",
                "region": "eu-central-1",
                "endpointUrl": "https://s3.example.org",
                "credentialsSecret": {"name": "bucket"},
            },
            "kafkaAdmin": "None",
        },
        OperatorSettings(
            image="registry.example.org/strandline@sha256:0",
            image_pull_policy="Always",
            image_pull_secrets=("registry",),
            volume_permissions=True,
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_objects_are_as_they_were(name: str) -> None:
    spec, settings = CASES[name]
    text = yaml.safe_dump_all(
        children(blueprint_of_spec(spec, settings=settings)), sort_keys=False, width=120
    )
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("STRANDLINE_REWRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_a_broker_understands_its_configuration(name: str, tmp_path: Path) -> None:
    spec, settings = CASES[name]
    objects = children(blueprint_of_spec(spec, settings=settings))
    file = tmp_path / "broker.yaml"
    file.write_text(named(objects, "ConfigMap", "demo-broker-config")["data"]["broker.yaml"])
    pod = named(objects, "StatefulSet", "demo-broker")["spec"]["template"]["spec"]
    environment = {"POD_NAME": "demo-broker-1", "STRANDLINE_BROKER_ID": "1"}
    for variable in pod["containers"][0]["env"]:
        text = variable.get("value")
        if text is not None:
            for key, value in {**environment}.items():
                text = text.replace(f"$({key})", value)
            environment[variable["name"]] = text
    config = load(file, (), environment)
    assert (config.broker_id, config.cluster_name, config.namespace) == (1, "demo", "shop")
    assert config.store == "kubernetes"
    shown = {one.name: (one.advertised_host, one.advertised_port) for one in config.resolve_listeners()}
    own = "demo-broker-1.demo-brokers.shop.svc.cluster.local"
    assert shown["PLAIN"] == (own, 9092)
    assert shown["INTER-BROKER"] == (own, 9091)
    if name == "everything":
        assert shown["WORLD_1"] == ("b1.example.org", 9095)
        secure = next(one for one in config.resolve_listeners() if one.name == "SECURE")
        mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert secure.tls
        assert secure.certificate_file == "/etc/strandline/tls/secure/tls.crt"
        assert "/etc/strandline/tls/secure" in mounts
