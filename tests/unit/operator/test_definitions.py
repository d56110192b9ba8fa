"""The CRDs are structural, described, cheap where they must be, and fit the objects that the code writes."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import cel
import pytest
import yaml

from strandline_broker.cluster import topic_config
from strandline_broker.cluster.model import (
    KINDS,
    LEASE,
    ClusterState,
    PartitionState,
    ReplicaRef,
    new_partition_set,
)
from strandline_operator.validation import load_path
from strandline_operator.validation.definitions import definitions, definitions_directory
from strandline_operator.validation.problems import Problem
from strandline_operator.validation.structural import schema_problems, unknown_fields

REPOSITORY = Path(__file__).resolve().parents[3]
KNOWN_KEYWORDS = {
    "type", "format", "description", "default", "enum", "pattern", "required", "properties", "additionalProperties",
    "items", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties",
    "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
}  # fmt: skip


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            yield from nodes(schema[keyword], f"{path}[]")


@pytest.fixture(params=sorted(definitions()))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def crds() -> dict[str, Any]:
    found = (yaml.safe_load(path.read_text()) for path in definitions_directory().glob("*.yaml"))
    return {crd["spec"]["names"]["kind"]: crd for crd in found}


def test_every_custom_kind_of_the_contract_has_a_definition() -> None:
    assert set(definitions()) == set(KINDS) - {LEASE}
    for name, definition in definitions().items():
        assert (definition.plural, definition.has_status) == (KINDS[name].plural, KINDS[name].status)


def test_schemas_are_structural_and_described(kind: str) -> None:
    for path, schema in nodes(definitions()[kind].schema):
        assert "type" in schema, path
        assert set(schema) <= KNOWN_KEYWORDS, path
        inner = path.rpartition(".")[0]
        explained = (
            "description" in schema
            or path.endswith("[]")
            or path.startswith((".apiVersion", ".kind", ".metadata"))
        )
        assert explained or "conditions[]" in inner, f"kubectl explain says nothing about {path}"
        if schema["type"] == "array":
            assert "items" in schema, path
            assert "x-kubernetes-list-type" in schema, path


def test_every_list_of_specs_is_bounded(kind: str) -> None:
    for path, schema in nodes(definitions()[kind].schema):
        if path.startswith(".spec") and schema["type"] == "array":
            assert "maxItems" in schema, path
        if path.startswith(".spec") and "additionalProperties" in schema:
            assert "maxProperties" in schema, path


def test_rules_stand_on_cluster_and_topic_only_and_help(kind: str) -> None:
    rules = [
        rule
        for _, schema in nodes(definitions()[kind].schema)
        for rule in schema.get("x-kubernetes-validations", ())
    ]
    assert bool(rules) == (kind in ("Cluster", "Topic"))
    for rule in rules:
        assert len(rule["message"]) > 40, "says what is wrong and what to do"
        assert "\n" not in rule["message"], "the API server refuses line breaks in messages"
        assert len(rule["message"]) < 2048
        assert rule["reason"] in {
            "FieldValueInvalid",
            "FieldValueForbidden",
            "FieldValueRequired",
        }
        cel.compile(rule["rule"])


def test_printer_columns_answer_the_first_question(kind: str) -> None:
    columns = {column["name"] for column in crds()[kind]["spec"]["versions"][0]["additionalPrinterColumns"]}
    assert "Age" in columns
    if kind in ("Cluster", "Topic"):
        assert columns >= {"Ready", "Partitions", "Under-Replicated", "Offline", "Unprotected", "Stored"}


def test_scale_and_status() -> None:
    version = crds()["Cluster"]["spec"]["versions"][0]
    assert version["subresources"]["scale"]["specReplicasPath"] == ".spec.replicas"
    status = definitions()["Cluster"].schema["properties"]["status"]["properties"]
    assert {"observedGeneration", "conditions", "replicas", "selector"} <= set(status)


def test_definitions_survive_an_uninstall() -> None:
    for crd in crds().values():
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        assert crd["metadata"]["name"] == f"{crd['spec']['names']['plural']}.{crd['spec']['group']}"


def refused(kind: str, obj: dict[str, Any]) -> list[Problem]:
    schema = definitions()[kind].schema
    return [*unknown_fields(obj, schema), *schema_problems(kind, obj)]


def test_what_the_code_writes_fits() -> None:
    state = PartitionState(
        replicas=(0, 1),
        isr=(ReplicaRef(0, 2**53 - 1),),
        leader=-1,
        leader_incarnation="a" * 12,
        elr=(ReplicaRef(1, 1),),
        recovering=True,
    )
    part = new_partition_set(
        cluster="demo",
        topic_id=UUID(int=7),
        topic_name="Orders_v1",
        slice_index=3,
        config={"a": "b"},
        partitions=(state,) * 100,
    )
    assert refused("PartitionSet", part.to_object()) == []
    assert (
        refused(
            "ClusterState", ClusterState("demo", 3, {"0": {"a": "b"}}, {}, (UUID(int=9),), "5f1c").to_object()
        )
        == []
    )
    too_many = part.to_object()
    too_many["spec"]["partitions"] *= 2
    assert [str(p) for p in refused("PartitionSet", too_many)] == [
        "spec.partitions: is too long (200); at most 100 allowed"
    ]


def test_examples_are_valid_and_their_configs_are_kafkas() -> None:
    found = load_path(REPOSITORY / "examples")
    assert [str(problem) for problem in found.problems] == []
    assert len(found.documents) >= 4
    clusters = {
        document.object["metadata"]["name"] for document in found.documents if document.key[0] == "Cluster"
    }
    for document in found.documents:
        topic_config.validate(document.object["spec"].get("config", {}))
        if document.key[0] == "Topic":
            assert document.object["spec"]["clusterRef"]["name"] in clusters


def test_the_wheel_carries_the_definitions(tmp_path: Path) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included["crds"] == "strandline_operator/crds", "where definitions_directory looks first"
    pytest.importorskip("hatchling", reason="building a wheel without the network needs hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"strandline_operator/crds/{entry.plural}.yaml" for entry in definitions().values()} <= set(names)
