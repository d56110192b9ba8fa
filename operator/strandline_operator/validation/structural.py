"""Structural schemas outside the API server: defaults, unknown fields, and the checks that jsonschema makes.

The order is the API server's: prune nulls that have a default, apply defaults, then validate. It differs in one
deliberate way: the API server drops unknown fields (kubectl refuses them); here they are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from strandline_operator.validation.problems import Problem, child_path, did_you_mean

Schema = Mapping[str, Any]

_TYPE_NAMES = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a mapping",
    "array": "a list",
}
# Keywords whose meaning is JSON Schema's own; the rest of a structural schema says nothing about one value.
_SHARED_KEYWORDS = (
    "type", "enum", "pattern", "required",
    "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
)  # fmt: skip


def apply_defaults(value: Any, schema: Schema) -> Any:
    """Return `value` with the schema's defaults filled in; the argument is not changed."""
    if isinstance(value, dict) and schema.get("type") == "object":
        return _object_with_defaults(value, schema)
    if isinstance(value, list) and "items" in schema:
        return [apply_defaults(item, schema["items"]) for item in value]
    return value


def _object_with_defaults(value: dict[str, Any], schema: Schema) -> dict[str, Any]:
    properties: Schema = schema.get("properties", {})
    extra = schema.get("additionalProperties")
    result: dict[str, Any] = {}
    for key, item in value.items():
        if key in properties:
            if item is None and "default" in properties[key]:
                continue
            result[key] = apply_defaults(item, properties[key])
        else:
            result[key] = apply_defaults(item, extra) if isinstance(extra, Mapping) else item
    for key, child in properties.items():
        if key not in result and "default" in child:
            result[key] = apply_defaults(child["default"], child)
    return result


def unknown_fields(value: Any, schema: Schema, path: str = "") -> Iterator[Problem]:
    """Yield a problem for every field that the schema does not have."""
    if isinstance(value, dict):
        properties: Schema = schema.get("properties", {})
        extra = schema.get("additionalProperties")
        # `metadata` is the API server's own; its schema here only narrows the name.
        if path == "metadata" or (not properties and extra is None):
            return
        for key, item in value.items():
            field = child_path(path, str(key))
            if key in properties:
                yield from unknown_fields(item, properties[key], field)
            elif isinstance(extra, Mapping):
                yield from unknown_fields(item, extra, field)
            elif extra is None:
                hint = (
                    did_you_mean(str(key), properties) or f"; known fields: {', '.join(sorted(properties))}"
                )
                yield Problem(f"unknown field{hint}", field)
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from unknown_fields(item, schema["items"], child_path(path, index))


def to_json_schema(schema: Schema) -> dict[str, Any]:
    """Translate a structural schema to plain JSON Schema; extensions that need code (CEL, list types) are left out."""
    result: dict[str, Any] = {key: schema[key] for key in _SHARED_KEYWORDS if key in schema}
    if "pattern" in schema and "description" in schema:
        result["description"] = schema["description"]  # a pattern alone explains nothing to most people
    if schema.get("nullable") and "type" in result:
        result["type"] = [result["type"], "null"]
    if "properties" in schema:
        result["properties"] = {key: to_json_schema(child) for key, child in schema["properties"].items()}
    if isinstance(schema.get("additionalProperties"), Mapping):
        result["additionalProperties"] = to_json_schema(schema["additionalProperties"])
    if "items" in schema:
        result["items"] = to_json_schema(schema["items"])
    return result


def duplicate_items(value: Any, schema: Schema, path: str = "") -> Iterator[Problem]:
    """Yield a problem for every item of a `map` list whose keys an earlier item has."""
    if isinstance(value, dict):
        for key, child in schema.get("properties", {}).items():
            if key in value:
                yield from duplicate_items(value[key], child, child_path(path, key))
    elif isinstance(value, list) and schema.get("x-kubernetes-list-type") == "map":
        keys = schema["x-kubernetes-list-map-keys"]
        seen: set[tuple[str, ...]] = set()
        for index, item in enumerate(value):
            identity = tuple(str(item.get(key)) for key in keys) if isinstance(item, dict) else (str(index),)
            if identity in seen:
                yield Problem(f"another item has the same {', '.join(keys)}", child_path(path, index))
            seen.add(identity)


@cache
def _validator(kind: str) -> Any:
    # jsonschema costs 0.1 s to import, and a start without manifests never needs it.
    import jsonschema

    from strandline_operator.validation.definitions import definitions

    return jsonschema.Draft202012Validator(to_json_schema(definitions()[kind].schema))


def schema_problems(kind: str, value: Any) -> Iterator[Problem]:
    """Yield what the schema of `kind` refuses in `value`, one problem per field and keyword."""
    for error in sorted(_validator(kind).iter_errors(value), key=lambda e: [str(p) for p in e.absolute_path]):
        path = ""
        for key in error.absolute_path:
            path = child_path(path, key)
        yield _explain(error.validator, error.validator_value, error.instance, path, error.schema)


def _explain(keyword: str, expected: Any, value: Any, path: str, schema: Schema) -> Problem:
    shown = _shown(value)
    match keyword:
        case "type":
            return Problem(_explain_type(expected, value), path)
        case "required":
            missing = [name for name in expected if name not in value]
            # One error per missing name arrives; naming all of them each time would repeat.
            return Problem(f"missing; add {', '.join(child_path(path, name) for name in missing)}", path)
        case "enum":
            return Problem(
                f"{shown} is not one of {', '.join(map(str, expected))}{did_you_mean(str(value), expected)}",
                path,
            )
        case "minimum":
            return Problem(f"{shown} is too small; use {expected} or more", path)
        case "maximum":
            return Problem(f"{shown} is too large; use {expected} or less", path)
        case "pattern":
            return Problem(
                f"{shown} does not match {expected}. {schema.get('description', '')}".rstrip(), path
            )
        case "minLength" | "minItems" | "minProperties":
            return Problem(f"is too short; at least {expected} needed", path)
        case "maxLength" | "maxItems" | "maxProperties":
            return Problem(f"is too long ({len(value)}); at most {expected} allowed", path)
    raise AssertionError(f"the translation never emits the keyword {keyword}")


def _explain_type(expected: Any, value: Any) -> str:
    wanted = _TYPE_NAMES[expected if isinstance(expected, str) else expected[0]]
    if expected == "string" and isinstance(value, (bool, int, float)):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return f'must be a string; put it in quotes: "{text}"'
    if expected in ("integer", "number") and isinstance(value, str) and value.strip().lstrip("-").isdigit():
        return f"must be {wanted}; remove the quotes: {value.strip()}"
    if value is None:
        return f"must be {wanted}, not empty; give a value or remove the field"
    return f"must be {wanted}, not {_shown(value)}"


def _shown(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
