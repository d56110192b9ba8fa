"""Manifests are refused as the API server would refuse them, and the message says what to do."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strandline_operator.validation import ManifestError, load_path, load_text, validate
from strandline_operator.validation.quantity import parse_quantity

Change = Callable[[dict[str, Any]], Any]

TOPIC: dict[str, Any] = {
    "apiVersion": "strandline.io/v1alpha1",
    "kind": "Topic",
    "metadata": {"name": "orders"},
    "spec": {"clusterRef": {"name": "demo"}, "partitions": 3, "config": {"retention.ms": "1000"}},
}
CLUSTER: dict[str, Any] = {
    "apiVersion": "strandline.io/v1alpha1",
    "kind": "Cluster",
    "metadata": {"name": "demo"},
    "spec": {
        "storage": {"size": "10Gi"},
        "tiering": {"bucket": "archive"},
        "listeners": [{"name": "PLAIN", "port": 9092}, {"name": "TLS", "port": 9093}],
    },
}


def changed(base: dict[str, Any], change: Change) -> dict[str, Any]:
    result = copy.deepcopy(base)
    change(result)
    return result


def refusal(manifest: Any, old: dict[str, Any] | None = None) -> str:
    with pytest.raises(ManifestError) as caught:
        validate(manifest, old)
    return str(caught.value)


def test_defaults_are_the_ones_that_the_api_server_would_set() -> None:
    spec = validate(TOPIC)["spec"]
    assert spec == {
        "clusterRef": {"name": "demo"},
        "partitions": 3,
        "replicas": 1,
        "config": {"retention.ms": "1000"},
        "deletionPolicy": "Retain",
        "deletionGracePeriod": "24h",
    }
    assert validate(CLUSTER)["spec"]["listeners"][0] == {"name": "PLAIN", "port": 9092, "type": "ClusterIP"}
    assert validate({**CLUSTER, "spec": {}})["spec"]["replicas"] == 3


def test_arguments_are_left_as_they_were() -> None:
    before = copy.deepcopy(TOPIC)
    validate(TOPIC, TOPIC)
    assert before == TOPIC


def test_status_in_a_manifest_is_dropped_as_the_api_server_does() -> None:
    assert "status" not in validate({**TOPIC, "status": {"offline": 3}})


def test_a_null_with_a_default_becomes_the_default() -> None:
    assert validate(changed(TOPIC, lambda t: t["spec"].update(partitions=None)))["spec"]["partitions"] == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t["spec"].update(partitons=4), 'spec.partitons: unknown field (did you mean "partitions"?)'),
        (lambda t: t["spec"].update(xyz=4), "spec.xyz: unknown field; known fields: clusterRef, config"),
        (lambda t: t.update(sepc={}), 'sepc: unknown field (did you mean "spec"?)'),
        (lambda t: t["spec"]["clusterRef"].update(namespace="x"), "spec.clusterRef.namespace: unknown field"),
        (lambda t: t["spec"].update(partitions="4"), "spec.partitions: must be a whole number; remove the quotes: 4"),
        (lambda t: t["spec"].update(partitions=0), "spec.partitions: 0 is too small; use 1 or more"),
        (lambda t: t["spec"].update(partitions=10_001), "spec.partitions: 10001 is too large; use 10000 or less"),
        (lambda t: t["spec"].update(partitions=True), "spec.partitions: must be a whole number, not True"),
        (lambda t: t["spec"].update(config={"retention.ms": 5}), 'spec.config[retention.ms]: must be a string; put it'),
        (lambda t: t["spec"].update(config={"preallocate": True}), 'put it in quotes: "true"'),
        (lambda t: t["spec"].update(config=[]), "spec.config: must be a mapping, not []"),
        (lambda t: t["spec"].pop("clusterRef"), "spec: missing; add spec.clusterRef"),
        (lambda t: t.pop("spec"), "missing; add spec"),
        (lambda t: t.update(spec=None), "spec: must be a mapping, not empty"),
        (lambda t: t["spec"].update(deletionPolicy="delete"), '(did you mean "Delete"?)'),
        (lambda t: t["spec"].update(deletionGracePeriod="1 day"), "A duration such as 24h, 90m or 7d"),
        (lambda t: t["spec"].update(topicName="a b"), 'spec.topicName: "a b" does not match'),
        (lambda t: t["spec"].update(topicName=".."), "choose another name"),
        (lambda t: t["spec"].update(topicName="__consumer_offsets"), "this topic is internal"),
        (lambda t: t["spec"].update(topicName="x" * 250), "spec.topicName: is too long (250); at most 249"),
        (lambda t: t["metadata"].update(name="Orders_v1"), "for other topic names set spec.topicName"),
        (lambda t: t["metadata"].pop("name"), "metadata.name: missing"),
        (lambda t: t["metadata"].update(lables={}), 'metadata.lables: unknown field (did you mean "labels"?)'),
        (lambda t: t["metadata"].update(labels={"a": 1}), 'metadata.labels[a]: must be a string; put it in quotes: "1"'),
        (lambda t: t.update(kind="Topics"), 'kind: "Topics" is unknown (did you mean "Topic"?)'),
        (lambda t: t.update(kind="PartitionSet"), "kind: PartitionSet is the operator's own record"),
        (lambda t: t.update(apiVersion="strandline.io/v1"), '"strandline.io/v1" is not served; use strandline.io/v1alpha1'),
        (lambda t: t["spec"].update(config={"min.insync.replicas": "2"}), "min.insync.replicas is above spec.replicas"),
        (lambda t: t["spec"].update(config={"min.insync.replicas": "two"}), "must be a whole number of at least 1"),
        (lambda t: t["spec"].update(config={"min.insync.replicas": "0"}), "must be a whole number of at least 1"),
        (
            lambda t: t["spec"].update(config={"remote.storage.enable": "TRUE", "cleanup.policy": "compact,delete"}),
            "compacted topics are not tiered",
        ),
    ],
)  # fmt: skip
def test_one_topic_alone_is_refused(change: Change, expected: str) -> None:
    message = refusal(changed(TOPIC, change))
    assert expected in message
    assert len(message.splitlines()) == 1, "one mistake gives one problem"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t["spec"].update(partitions=2), "partitions cannot be decreased"),
        (lambda t: t["spec"].pop("partitions"), "partitions cannot be decreased"),
        (lambda t: t["spec"]["clusterRef"].update(name="other"), "clusterRef is immutable"),
        (lambda t: t["spec"].update(topicName="other"), "spec.topicName: topicName is immutable"),
    ],
)
def test_one_topic_change_is_refused(change: Change, expected: str) -> None:
    assert expected in refusal(changed(TOPIC, change), TOPIC)
    validate(changed(TOPIC, change))  # alone it is fine


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t["spec"].update(partitions=4),
        lambda t: t["spec"].update(topicName="orders"),
        lambda t: t["spec"].update(replicas=3, config={"min.insync.replicas": "2"}),
        lambda t: t["spec"].update(config={"remote.storage.enable": "true"}),
        lambda t: t["spec"].update(config={"remote.storage.enable": "false", "cleanup.policy": "compact"}),
        lambda t: t["spec"].update(deletionPolicy="Delete", deletionGracePeriod="1h30m"),
    ],
)
def test_a_good_topic_change_is_accepted(change: Change) -> None:
    validate(changed(TOPIC, change), TOPIC)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c["spec"]["storage"].update(size="9Gi"), "spec.storage.size: a volume cannot shrink"),
        (lambda c: c["spec"]["storage"].update(size="10G"), "a volume cannot shrink"),
        (
            lambda c: c["spec"]["storage"].update(className="fast"),
            "className cannot be added or removed later",
        ),
        (lambda c: c["spec"].pop("tiering"), "tiering cannot be removed"),
        (lambda c: c["spec"]["tiering"].update(bucket="other"), "bucket is immutable"),
        (lambda c: c["spec"]["tiering"].update(prefix="p"), "spec.tiering.prefix: prefix is immutable"),
        (lambda c: c["spec"]["listeners"][0].update(port=9093), "two listeners have the same port"),
        (
            lambda c: c["spec"].update(config={"min.insync.replicas": "4"}),
            "lower min.insync.replicas or raise replicas",
        ),
    ],
)
def test_one_cluster_change_is_refused(change: Change, expected: str) -> None:
    assert expected in refusal(changed(CLUSTER, change), CLUSTER)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["spec"]["storage"].update(size="10240Mi"),
        lambda c: c["spec"]["storage"].update(size="1Ti"),
        lambda c: c["spec"].update(replicas=5),
        lambda c: c["spec"]["listeners"].reverse(),
    ],
)
def test_a_good_cluster_change_is_accepted(change: Change) -> None:
    validate(changed(CLUSTER, change), CLUSTER)


def test_two_listeners_of_one_name_are_refused() -> None:
    both = changed(CLUSTER, lambda c: c["spec"]["listeners"][1].update(name="PLAIN"))
    assert "spec.listeners[1]: another item has the same name" in refusal(both)


def test_every_problem_is_reported_at_once() -> None:
    message = refusal(changed(TOPIC, lambda t: t["spec"].update(partitions=0, replicas=0, nope=1)))
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize(
    "manifest", [None, [], "text", 5, {}, {"kind": "Topic"}, {"kind": ["Topic"], "metadata": 3}]
)
def test_what_is_no_object_is_refused_without_a_crash(manifest: Any) -> None:
    assert refusal(manifest)


def test_a_key_that_appears_twice_is_refused() -> None:
    found = load_text("a: 1\nb: 2\na: 3\n", "topics.yaml")
    assert 'topics.yaml: is not valid YAML: the key "a" appears twice' in str(found.problems[0])


def test_other_peoples_objects_are_left_alone() -> None:
    found = load_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n", "f.yaml")
    assert (found.documents, found.problems) == ([], [])
    assert found.foreign == ["f.yaml: ConfigMap (v1)"]


def test_a_folder_reports_good_and_bad_documents(tmp_path: Path) -> None:
    good = "apiVersion: strandline.io/v1alpha1\nkind: Topic\nmetadata: {name: %s}\nspec: {clusterRef: {name: demo}}\n"
    (tmp_path / "a.yaml").write_text(good % "one" + "---\n" + good % "two")
    (tmp_path / "b.yaml").write_text(good % "one")
    (tmp_path / "c.json").write_text('{"apiVersion": "strandline.io/v1alpha1", "kind": "Topik"}')
    (tmp_path / ".hidden.yaml").write_text("nonsense")
    (tmp_path / "notes.txt").write_text("nonsense")
    found = load_path(tmp_path)
    assert [document.key for document in found.documents] == [("Topic", "one"), ("Topic", "two")]
    assert found.bad_files == {"b.yaml", "c.json"}
    assert "b.yaml: Topic one: is declared in a.yaml too; keep one of them" in map(str, found.problems)


def test_a_list_object_holds_several() -> None:
    items = [{**TOPIC, "metadata": {"name": name}} for name in ("a", "b")]
    found = load_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}), "l.json")
    assert [document.key[1] for document in found.documents] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1Ki", 1024), ("1k", 1000), ("1.5Gi", 1610612736), ("2e3", 2000), ("1500m", 1.5), ("0", 0)],
)
def test_quantities(text: str, value: float) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1KB", "0x10", "1GiB"])
def test_bad_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity(text)
