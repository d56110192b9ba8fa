from __future__ import annotations

from typing import Any

from tests.unit.operator.kubernetes.builders import blueprint_of_spec

from strandline_broker.cluster.model import Object
from strandline_operator.kubernetes.volumes import growth, names_of

CLASSES: dict[str, Object | None] = {
    "fast": {"metadata": {"name": "fast"}, "allowVolumeExpansion": True},
    "local": {"metadata": {"name": "local"}},
    "gone": None,
}


def claim(broker_id: int, size: str, storage_class: str | None = "fast", **status: Any) -> Object:
    return {
        "metadata": {"name": f"data-demo-broker-{broker_id}", "uid": f"u{broker_id}"},
        "spec": {"storageClassName": storage_class, "resources": {"requests": {"storage": size}}},
        "status": status,
    }


def grown(*claims: Object, size: str = "20Gi") -> tuple[str, str, str]:
    found = growth(blueprint_of_spec({"storage": {"size": size}}), claims, CLASSES)
    return names_of(found.enlarge), names_of(found.fixed), names_of(found.pending)


def test_volumes_of_the_wanted_size_are_left_alone_in_any_spelling() -> None:
    assert grown(claim(0, "20Gi"), claim(1, "20480Mi"), claim(2, "30Gi")) == ("", "", "")


def test_smaller_claims_grow_where_the_class_lets_them() -> None:
    assert grown(claim(0, "10Gi"), claim(1, "20Gi")) == ("data-demo-broker-0", "", "")
    assert grown(claim(0, "10Gi", "local")) == ("", "data-demo-broker-0", "")
    assert grown(claim(0, "10Gi", "gone")) == ("", "data-demo-broker-0", "")
    assert grown(claim(0, "10Gi", None)) == ("", "data-demo-broker-0", "")


def test_a_volume_that_is_not_as_large_yet_is_pending() -> None:
    assert grown(claim(0, "20Gi", capacity={"storage": "10Gi"})) == ("", "", "data-demo-broker-0")
    assert grown(claim(0, "20Gi", capacity={"storage": "20Gi"})) == ("", "", "")


def test_claims_of_others_and_claims_that_go_are_not_touched() -> None:
    other = claim(0, "1Gi")
    other["metadata"]["name"] = "data-demo-two-broker-0"
    going = claim(1, "1Gi")
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert grown(other, going) == ("", "", "")


def test_many_are_counted() -> None:
    assert names_of([claim(i, "1Gi") for i in range(5)]) == (
        "data-demo-broker-0, data-demo-broker-1, data-demo-broker-2 and 2 more"
    )
