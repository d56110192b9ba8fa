"""What goes to an API server and what comes back, as bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strandline_broker.cluster.kubernetes_errors import ApiRefusal, error_of
from strandline_broker.cluster.kubernetes_objects import (
    collection_path,
    delete_body,
    encode,
    object_path,
    patch_body,
    received,
    selector,
)
from strandline_broker.cluster.kubernetes_watch import LineSplitter
from strandline_broker.cluster.model import KINDS, LEASE, TOPIC
from strandline_broker.cluster.store import Invalid, Unavailable

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def test_paths_of_resources() -> None:
    assert collection_path(LEASE, "ns") == "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
    assert object_path(TOPIC, "ns", "a.b") == "/apis/strandline.io/v1alpha1/namespaces/ns/topics/a.b"
    assert object_path(TOPIC, "ns", "a", "status").endswith("/topics/a/status")
    assert object_path(TOPIC, "n/s", "a/b").endswith("/namespaces/n%2Fs/topics/a%2Fb")


def test_only_leases_are_selected_by_their_label() -> None:
    assert {kind: selector(kind) for kind in KINDS if selector(kind)} == {
        LEASE: {"labelSelector": "strandline.io/cluster"}
    }


def test_strings_are_escaped_as_go_does() -> None:
    assert encode({"a<b": "x>y & \u2028\u2029 é"}) == (
        b'{"a\\u003cb":"x\\u003ey \\u0026 \\u2028\\u2029 \xc3\xa9"}'
    )


@given(JSON_VALUES)
def test_what_is_encoded_reads_back(value: object) -> None:
    body = encode(value)
    assert json.loads(body) == value
    assert not set(b"<>&") & set(body)


def test_a_patch_tests_the_uid_first() -> None:
    body = json.loads(patch_body("u", [("/a", None)], [{"op": "remove", "path": "/a"}]))
    assert body == [
        {"op": "test", "path": "/metadata/uid", "value": "u"},
        {"op": "test", "path": "/a", "value": None},
        {"op": "remove", "path": "/a"},
    ]
    with pytest.raises(Invalid):
        patch_body("u", [("/a", object())], [])


def test_a_delete_names_what_it_was_decided_about() -> None:
    assert json.loads(delete_body("u", None))["preconditions"] == {"uid": "u"}
    assert json.loads(delete_body("u", "7"))["preconditions"] == {"uid": "u", "resourceVersion": "7"}


def test_an_object_comes_without_its_managers_and_with_its_kind() -> None:
    obj = {"metadata": {"name": "a", "managedFields": [{}]}, "spec": {}}
    assert received(LEASE, obj) == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "a"},
        "spec": {},
    }


def test_a_refusal_that_quotes_the_whole_object_still_says_what_is_wrong() -> None:
    message = (
        'Topic "a" is invalid: patch: Invalid value: "' + "x" * 5000 + '": unknown field "spec.partitoins"'
    )
    status = {"kind": "Status", "code": 422, "reason": "Invalid", "message": message}
    error = error_of(422, {}, json.dumps(status).encode())
    assert isinstance(error, ApiRefusal)
    assert str(error).startswith('Topic "a" is invalid')
    assert str(error).endswith('unknown field "spec.partitoins"')
    assert len(str(error)) < 600


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b""))), st.data())
def test_lines_do_not_depend_on_how_they_arrive(lines: list[bytes], data: st.DataObject) -> None:
    body = b"".join(line + b"\n" for line in lines) + b"unfinished"
    splitter = LineSplitter()
    found: list[bytes] = []
    while body:
        size = data.draw(st.integers(1, len(body)))
        found += splitter.feed(body[:size])
        body = body[size:]
    assert found == lines


def test_a_line_without_end_is_not_kept() -> None:
    splitter = LineSplitter(limit=10)
    assert list(splitter.feed(b"12345\n1234567890")) == [b"12345"]
    with pytest.raises(Unavailable):
        list(splitter.feed(b"1"))
