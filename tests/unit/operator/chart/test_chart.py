"""The Helm chart, as Helm renders it. Without `helm` (in PATH or $KUBE_ASSETS) only the written manifests are looked at."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.operator.kubernetes.builders import blueprint_of_spec

from strandline_broker.cluster.model import Object
from strandline_operator.kubernetes.children import children
from strandline_operator.kubernetes.settings import OperatorSettings

ROOT = Path(__file__).resolve().parents[4]
CHART = ROOT / "charts" / "strandline"
INSTALL = ROOT / "manifests" / "install.yaml"
HELM = shutil.which("helm", path=os.pathsep.join([os.environ.get("KUBE_ASSETS", ""), os.environ["PATH"]]))

needs_helm = pytest.mark.skipif(HELM is None, reason="helm is not installed")


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert HELM is not None
    return subprocess.run(
        [HELM, "template", "strandline", str(CHART), "--kube-version", "1.34.0", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def rendered(*arguments: str) -> list[Object]:
    result = helm("--namespace", "strandline-system", *arguments)
    assert result.returncode == 0, result.stderr
    return [obj for obj in yaml.safe_load_all(result.stdout) if obj]


def installed() -> list[Object]:
    return [obj for obj in yaml.safe_load_all(INSTALL.read_text(encoding="utf-8")) if obj]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [obj for obj in objects if obj["kind"] == kind]


def environment(objects: list[Object]) -> dict[str, str]:
    (deployment,) = of_kind(objects, "Deployment")
    variables = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    return {one["name"]: one.get("value", "x") for one in variables}


@needs_helm
def test_the_plain_manifests_are_what_the_chart_makes() -> None:
    written = [obj for obj in installed() if obj["kind"] != "Namespace"]
    assert written == rendered("--include-crds"), "run `make manifests`"


def test_the_plain_manifests_hold_the_definitions_of_this_repository() -> None:
    definitions = {obj["metadata"]["name"]: obj for obj in of_kind(installed(), "CustomResourceDefinition")}
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        expected = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert definitions.pop(expected["metadata"]["name"]) == expected, "run `make manifests`"
        assert expected["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not definitions


def test_the_operator_runs_without_rights_that_it_does_not_need() -> None:
    (deployment,) = of_kind(installed(), "Deployment")
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert deployment["spec"]["replicas"] == 1
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    context = pod["containers"][0]["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    for obj in installed():
        for rule in obj.get("rules", ()):
            assert not any("*" in values for values in rule.values())
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
            if "secrets" in rule["resources"]:
                assert rule["verbs"] == ["create"]


def test_the_operator_may_do_what_it_grants_to_brokers() -> None:
    """Nobody can make a Role that allows more than he may do himself."""
    (own,) = of_kind(installed(), "ClusterRole")
    allowed = {
        (group, resource, verb)
        for rule in own["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    (role,) = of_kind(children(blueprint_of_spec({})), "Role")
    for rule in role["rules"]:
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                assert (rule["apiGroups"][0], resource, verb) in allowed


def test_the_operator_understands_its_environment() -> None:
    settings = OperatorSettings.from_environment(environment(installed()))
    (deployment,) = of_kind(installed(), "Deployment")
    assert settings.image == deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    assert settings.namespace == ""
    assert settings.network_policy
    assert not settings.volume_permissions
    assert settings.resources["requests"] == {"cpu": "100m", "memory": "256Mi"}


@needs_helm
def test_values_reach_the_operator() -> None:
    objects = rendered(
        "--set=image.repository=localhost/strandline,image.tag=lab,image.pullPolicy=Never",
        "--set=imagePullSecrets={one,two},brokers.volumePermissions=true,brokers.networkPolicy=false",
        "--set=watchNamespace=shop,clusterDomain=example.local",
    )
    settings = OperatorSettings.from_environment(environment(objects))
    assert settings.image == "localhost/strandline:lab"
    assert settings.image_pull_policy == "Never"
    assert settings.image_pull_secrets == ("one", "two")
    assert settings.namespace == "shop"
    assert settings.cluster_domain == "example.local"
    assert settings.volume_permissions
    assert not settings.network_policy


@needs_helm
def test_an_operator_of_one_namespace_has_rights_in_that_one() -> None:
    objects = rendered("--set=watchNamespace=shop")
    (cluster_role,) = of_kind(objects, "ClusterRole")
    assert {r for rule in cluster_role["rules"] for r in rule["resources"]} == {"nodes", "storageclasses"}
    assert {v for rule in cluster_role["rules"] for v in rule["verbs"]} == {"get"}
    (role,) = [r for r in of_kind(objects, "Role") if r["metadata"]["namespace"] == "shop"]
    assert "partitionsets" in {r for rule in role["rules"] for r in rule["resources"]}


@needs_helm
def test_a_digest_pins_the_image() -> None:
    digest = "sha256:" + "0" * 64
    settings = OperatorSettings.from_environment(environment(rendered(f"--set=image.digest={digest}")))
    assert settings.image == f"ghcr.io/strandline/strandline@{digest}"


@needs_helm
def test_the_example_cluster_is_one() -> None:
    assert not of_kind(rendered(), "Cluster")
    (cluster,) = of_kind(rendered("--set=exampleCluster.enabled=true"), "Cluster")
    assert cluster["spec"]["replicas"] == 3
    assert cluster["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@needs_helm
@pytest.mark.parametrize(
    "value", ["image.pullPolicy=Sometimes", "image.digest=sha256:1", "imagePulSecrets={a}"]
)
def test_values_that_make_no_sense_are_refused(value: str) -> None:
    result = helm(f"--set={value}")
    assert result.returncode != 0
    assert "schema" in result.stderr


def test_the_schema_knows_every_value() -> None:
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    for name, value in values.items():
        assert name in schema["properties"]
        known = schema["properties"][name].get("properties")
        if isinstance(value, dict) and known is not None:
            assert value.keys() <= known.keys()


def test_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "(.+)"', project, re.MULTILINE)
    assert found is not None
    assert chart["version"] == chart["appVersion"] == found[1]
    assert OperatorSettings().image.endswith(f":{found[1]}")


def test_the_operator_does_not_stay_on_a_lost_node_for_minutes() -> None:
    (deployment,) = of_kind(installed(), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    patience = {one["key"]: one["tolerationSeconds"] for one in pod["tolerations"]}
    assert patience == {"node.kubernetes.io/not-ready": 30, "node.kubernetes.io/unreachable": 30}
    (spread,) = pod["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["labelSelector"] == deployment["spec"]["selector"]
