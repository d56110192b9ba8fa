"""JSON pointers and patches as RFC 6901 and RFC 6902 define them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strandline_broker.cluster.json_patch import (
    MISSING,
    FailedTestError,
    PatchError,
    apply,
    copied,
    equal,
    failed_tests,
    pointer,
    resolve,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("", {"a": [1, {"b/c": 2, "~": 3, "": 4}]}),
        ("/a/0", 1),
        ("/a/1/b~1c", 2),
        ("/a/1/~0", 3),
        ("/a/1/", 4),
        ("/a/2", MISSING),
        ("/a/-", MISSING),
        ("/a/01", MISSING),
        ("/a/+1", MISSING),
        ("/a/0/x", MISSING),
        ("/b/c", MISSING),
    ],
)
def test_pointers_resolve(path: str, value: object) -> None:
    assert resolve({"a": [1, {"b/c": 2, "~": 3, "": 4}]}, path) == value


@given(st.dictionaries(st.text(max_size=4), json_values, min_size=1, max_size=4), st.data())
def test_every_key_can_be_pointed_at(document: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(document)))
    assert resolve(document, pointer(key)) == document[key]
    assert resolve({"x": [document]}, pointer("x", 0, key)) == document[key]
    replaced = apply(document, [{"op": "replace", "path": pointer(key), "value": "new"}])
    assert replaced == {**document, key: "new"}
    removed = apply(document, [{"op": "remove", "path": pointer(key)}])
    assert removed == {other: value for other, value in document.items() if other != key}


@given(json_values)
def test_a_copy_is_equal_and_shares_nothing_that_changes(value: Any) -> None:
    result = copied(value)
    assert equal(result, value)
    assert not _changeable(result) & _changeable(value)


def _changeable(value: Any) -> set[int]:
    """Return the addresses of all lists and objects in a value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = {id(value)} if isinstance(value, dict | list) else set()
    return own.union(*map(_changeable, inner))


@given(json_values, json_values)
def test_equality_is_that_of_json(a: Any, b: Any) -> None:
    assert equal(a, copy.deepcopy(a))
    assert equal(a, b) == equal(b, a)
    if equal(a, b):
        assert a == b


def test_true_is_not_one_at_any_depth() -> None:
    assert equal(1, 1.0)
    assert not equal({"a": [True]}, {"a": [1]})
    assert not equal(0, False)


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        ({"op": "add", "path": "/list/1", "value": 9}, [1, 9, 2]),
        ({"op": "add", "path": "/list/-", "value": 9}, [1, 2, 9]),
        ({"op": "add", "path": "/list/2", "value": 9}, [1, 2, 9]),
        ({"op": "replace", "path": "/list/0", "value": 9}, [9, 2]),
        ({"op": "remove", "path": "/list/0"}, [2]),
        ({"op": "add", "path": "/list", "value": []}, []),
        ({"op": "test", "path": "/list/0", "value": 1}, [1, 2]),
        ({"op": "test", "path": "/none", "value": None}, [1, 2]),
    ],
)
def test_operations(operation: dict[str, Any], result: list[int]) -> None:
    document = {"list": [1, 2]}
    assert apply(document, [operation]) == {"list": result}
    assert document == {"list": [1, 2]}, "the argument stays as it is"


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "add", "path": "/list/3", "value": 9},
        {"op": "replace", "path": "/list/-", "value": 9},
        {"op": "replace", "path": "/list/2", "value": 9},
        {"op": "remove", "path": "/none"},
        {"op": "replace", "path": "/none", "value": 1},
        {"op": "add", "path": "/none/deep", "value": 1},
        {"op": "add", "path": "/list/0/deep", "value": 1},
        {"op": "add", "path": "/x"},
        {"op": "add", "path": "", "value": {}},
        {"op": "add", "path": "no-slash", "value": 1},
        {"op": "move", "path": "/x", "from": "/list"},
        {"path": "/x", "value": 1},
        {"op": "add", "value": 1},
    ],
)
def test_what_cannot_be_applied_is_refused(operation: dict[str, Any]) -> None:
    with pytest.raises(PatchError):
        apply({"list": [1, 2]}, [operation])


def test_a_failed_test_says_what_was_there() -> None:
    with pytest.raises(FailedTestError) as caught:
        apply({"a": 1}, [{"op": "test", "path": "/a", "value": 2}])
    assert (caught.value.path, caught.value.expected, caught.value.actual) == ("/a", 2, 1)
    assert failed_tests({"a": 1}, [("/a", 1), ("/a", 2), ("/c", None), ("/b/c", None), ("/b", 3)]) == [
        ("/a", 2, 1),
        ("/b/c", None, None),
        ("/b", 3, None),
    ]


def test_a_value_used_twice_does_not_become_shared() -> None:
    value: list[int] = []
    result = apply({}, [{"op": "add", "path": "/a", "value": value}, {"op": "add", "path": "/b", "value": value},
                        {"op": "add", "path": "/a/-", "value": 1}])  # fmt: skip
    assert result == {"a": [1], "b": []}
    assert value == []
