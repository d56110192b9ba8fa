"""The CEL rules of the CRDs (`x-kubernetes-validations`), evaluated as the API server does.

A rule that mentions `oldSelf` is a transition rule: it runs only when the old object has a value at the same place,
where "the same place" exists in objects, maps, and lists of type `map`. An expression that fails to evaluate refuses the
object, as it does there. Source: k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from strandline_operator.validation.problems import Problem, child_path
from strandline_operator.validation.quantity import parse_quantity

Schema = Mapping[str, Any]

# What the CEL library raises for a failed evaluation: a missing key, a wrong type, a number that does not parse.
EVALUATION_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError)

_OLD_SELF = re.compile(r"\boldSelf\b")
_ABSENT: Any = object()


def rule_problems(value: Any, schema: Schema, old: Any = _ABSENT, path: str = "") -> Iterator[Problem]:
    """Yield a problem for every rule of `schema` that `value` breaks, given the object it replaces (if any).

    `value` must already be valid by the schema and defaulted: rules rely on types.
    """
    for rule in schema.get("x-kubernetes-validations", ()):
        yield from _check(rule, value, old, path)
    if isinstance(value, dict):
        old_map = old if isinstance(old, dict) else {}
        properties: Schema = schema.get("properties", {})
        extra = schema.get("additionalProperties")
        for key, item in value.items():
            child = properties.get(key, extra)
            if isinstance(child, Mapping):
                yield from rule_problems(item, child, old_map.get(key, _ABSENT), child_path(path, key))
    elif isinstance(value, list) and "items" in schema:
        previous = _correlate(old, schema)
        for index, item in enumerate(value):
            old_item = previous.get(_list_key(item, schema), _ABSENT)
            yield from rule_problems(item, schema["items"], old_item, child_path(path, index))


def _correlate(old: Any, schema: Schema) -> dict[tuple[Any, ...], Any]:
    if not isinstance(old, list) or schema.get("x-kubernetes-list-type") != "map":
        return {}
    return {_list_key(item, schema): item for item in old}


def _list_key(item: Any, schema: Schema) -> tuple[Any, ...]:
    return (
        tuple(item.get(key) for key in schema.get("x-kubernetes-list-map-keys", ()))
        if isinstance(item, dict)
        else ()
    )


def _check(rule: Mapping[str, Any], value: Any, old: Any, path: str) -> Iterator[Problem]:
    expression = rule["rule"]
    bindings = {"self": value}
    if _OLD_SELF.search(expression):
        if old is _ABSENT:
            return
        bindings["oldSelf"] = old
    where = path + rule.get("fieldPath", "")
    try:
        holds = evaluate(expression, bindings)
    except (
        RuntimeError,
        ValueError,
        TypeError,
    ) as error:  # what the CEL library raises for a failed evaluation
        yield Problem(f"the rule {expression!r} could not be evaluated: {error}", where.lstrip("."))
        return
    if holds is not True:
        yield Problem(rule.get("message", f"breaks the rule {expression}"), where.lstrip("."))


def evaluate(expression: str, bindings: Mapping[str, Any]) -> Any:
    """Return the value of a CEL expression. Raises EVALUATION_ERRORS, ValueError for syntax."""
    import cel

    context = cel.Context(dict(bindings))
    for name, function in _KUBERNETES_FUNCTIONS.items():
        context.add_function(name, function)
    return _compiled(expression).execute(context)


@cache
def _compiled(expression: str) -> Any:
    # 0.2 s to import, and only manifests need it.
    import cel

    return cel.compile(expression)


def _quantity(text: str) -> str:
    parse_quantity(text)
    return text


def _compare(left: str, right: str) -> int:
    a, b = parse_quantity(left), parse_quantity(right)
    return (a > b) - (a < b)


def _is_quantity(text: str) -> bool:
    try:
        parse_quantity(text)
    except ValueError:
        return False
    return True


# Of the Kubernetes CEL libraries, the functions that our CRDs use. A quantity stays its text: CEL has no fractions.
_KUBERNETES_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "quantity": _quantity,
    "isQuantity": _is_quantity,
    "compareTo": _compare,
}
