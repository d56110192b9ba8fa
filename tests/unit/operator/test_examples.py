"""The examples for Kubernetes: what they declare is accepted, fits together, and can be built.

What no test here shows: that the S3 server's image can be pulled and runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.operator.kubernetes.builders import SETTINGS, cluster_of, named

from strandline_broker.cluster import topic_config
from strandline_operator.kubernetes.blueprint import Blueprint
from strandline_operator.kubernetes.children import children
from strandline_operator.validation.manifests import load_path

EXAMPLES = Path(__file__).resolve().parents[3] / "manifests" / "examples"
PATHS = sorted(EXAMPLES.iterdir())


def documents(path: Path) -> list[dict[str, Any]]:
    return [obj for obj in yaml.safe_load_all(path.read_text(encoding="utf-8")) if obj is not None]


def test_there_are_the_examples_that_the_documents_name() -> None:
    assert {path.stem for path in PATHS} == {"minimal", "replicated", "external-access", "minio"}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_an_example_is_accepted_and_fits_together(path: Path) -> None:
    found = load_path(path)
    assert [str(problem) for problem in found.problems] == []
    clusters = {d.object["metadata"]["name"]: d.object for d in found.documents if d.key[0] == "Cluster"}
    topics = [d.object for d in found.documents if d.key[0] == "Topic"]
    assert len(clusters) == 1
    assert topics
    for topic in topics:
        cluster = clusters[topic["spec"]["clusterRef"]["name"]]
        assert topic["spec"].get("replicas", 1) <= cluster["spec"]["replicas"]
        tiering = bool(cluster["spec"].get("tiering"))
        topic_config.validate(
            {**cluster["spec"].get("config", {}), **topic["spec"].get("config", {})}, tiering=tiering
        )
    for name, cluster in clusters.items():
        blueprint = Blueprint(
            cluster_of(cluster["spec"], name), "shop", SETTINGS, cluster["spec"]["replicas"]
        )
        assert named(children(blueprint), "StatefulSet", f"{name}-broker")


def test_no_two_examples_meet_in_one_namespace() -> None:
    declared = [document.key for path in PATHS for document in load_path(path).documents]
    assert len(declared) == len(set(declared))


def test_the_bucket_of_the_example_is_the_one_that_its_server_has() -> None:
    folder = EXAMPLES / "minio"
    server = {obj["kind"]: obj for obj in documents(folder / "s3-server.yaml")}
    (cluster,) = (obj for obj in documents(folder / "cluster.yaml") if obj["kind"] == "Cluster")
    tiering = cluster["spec"]["tiering"]
    service, secret = server["Service"], server["Secret"]
    port = service["spec"]["ports"][0]["port"]
    assert tiering["endpointUrl"] == f"http://{service['metadata']['name']}:{port}"
    assert tiering["credentialsSecret"]["name"] == secret["metadata"]["name"]
    assert set(secret["stringData"]) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    (maker,) = server["Job"]["spec"]["template"]["spec"]["containers"]
    assert f"mb --ignore-existing s3/{tiering['bucket']}" in maker["command"][-1]
    assert tiering["endpointUrl"] in maker["command"][-1]
    blueprint = Blueprint(cluster_of(cluster["spec"], "tiered"), "shop", SETTINGS, 3)
    settings = named(children(blueprint), "ConfigMap", blueprint.config_map)["data"]["broker.yaml"]
    assert f'tiering_bucket: "s3://{tiering["bucket"]}"' in settings
    assert f'tiering_endpoint_url: "{tiering["endpointUrl"]}"' in settings
    labels = server["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


def test_the_image_of_the_server_is_named_in_one_place() -> None:
    folder = EXAMPLES / "minio"
    (kustomization,) = documents(folder / "kustomization.yaml")
    (image,) = kustomization["images"]
    assert image["newTag"] or image["digest"]
    used = {
        container["image"]
        for obj in documents(folder / "s3-server.yaml")
        for container in obj.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ())
    }
    assert used == {image["name"]}
    assert set(kustomization["resources"]) == {"s3-server.yaml", "cluster.yaml"}
