"""JSON pointers and patches (RFC 6901, RFC 6902), as far as cluster stores need them.

Stores use it; callers who build patches use `pointer`. Pure. Only the operations `add`, `replace`, `remove`
and `test`: `move` and `copy` are never needed here, and an operation that nobody uses is one that nobody
tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final


class PatchError(ValueError):
    """The patch is malformed, or an operation's path does not exist."""


class FailedTestError(PatchError):
    """A `test` operation inside the patch did not hold."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    def __init__(self, path: str, expected: Any, actual: Any) -> None:
        super().__init__(f"test of {path} failed")
        self.path = path
        self.expected = expected
        self.actual = actual


MISSING: Final = object()


def pointer(*tokens: str | int) -> str:
    """Return the JSON pointer of the given reference tokens, escaped."""
    return "".join("/" + str(token).replace("~", "~0").replace("/", "~1") for token in tokens)


def parse(path: str) -> list[str]:
    """Return the reference tokens of a JSON pointer. Raises PatchError."""
    if path == "":
        return []
    if not path.startswith("/"):
        raise PatchError(f"{path!r} is no JSON pointer")
    tokens = path[1:].split("/")
    return [token.replace("~1", "/").replace("~0", "~") for token in tokens] if "~" in path else tokens


def resolve(document: Any, path: str) -> Any:
    """Return the value at `path`, or `MISSING` when its last token does not exist or any before it."""
    return _resolve(document, parse(path))


def _resolve(document: Any, tokens: Iterable[str]) -> Any:
    value = document
    for token in tokens:
        if isinstance(value, dict):
            value = value.get(token, MISSING)
        elif isinstance(value, list):
            index = _index(token, len(value) - 1)
            value = MISSING if index is None else value[index]
        else:
            return MISSING
        if value is MISSING:
            return MISSING
    return value


def copied(value: Any) -> Any:
    """Return a deep copy of a JSON value: `copy.deepcopy` without what JSON does not have, in a fifth of its time."""
    if isinstance(value, dict):
        # Most entries are strings, which are not worth a call.
        return {key: entry if type(entry) is str else copied(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [copied(entry) for entry in value]
    return value


def equal(a: Any, b: Any) -> bool:
    """Return whether two JSON values are equal; unlike Python, JSON does not take `true` for 1."""
    if isinstance(a, str) and isinstance(b, str):
        return a == b
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return False
        for key, value in a.items():
            other = b[key]
            # A patched copy shares most of its strings and numbers with the original.
            if value is not other and not equal(value, other):
                return False
        return True
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def failed_tests(document: Any, tests: Iterable[tuple[str, Any]]) -> list[tuple[str, Any, Any]]:
    """Return (pointer, expected, actual) of every test that does not hold.

    Raises PatchError on a bad pointer.

    An expected None also matches a last reference token that does not exist, as in the API server's patch library; below
    something that does not exist, no test holds.
    """
    failed = []
    for path, expected in tests:
        actual = resolve(document, path)
        holds = equal(None if actual is MISSING else actual, expected)
        if actual is MISSING:
            actual = None
            holds = holds and isinstance(resolve(document, pointer(*parse(path)[:-1])), dict)
        if not holds:
            failed.append((path, expected, actual))
    return failed


def apply(document: Any, operations: Sequence[dict[str, Any]]) -> Any:
    """Return `document` with all operations applied.

    The argument stays as it is. Raises PatchError, FailedTestError.
    """
    result = copied(document)
    for operation in operations:
        _apply_one(result, operation)
    return result


def _apply_one(document: Any, operation: dict[str, Any]) -> None:
    op, path = operation.get("op"), operation.get("path")
    if op not in ("add", "replace", "remove", "test") or not isinstance(path, str):
        raise PatchError(f"{operation!r} is no supported operation (add, replace, remove, test)")
    if op != "remove" and "value" not in operation:
        raise PatchError(f"{op} of {path} has no value")
    if op == "test":
        failed = failed_tests(document, [(path, operation["value"])])
        if failed:
            raise FailedTestError(*failed[0])
        return
    tokens = parse(path)
    if not tokens:
        raise PatchError("the whole document cannot be patched")
    parent = _resolve(document, tokens[:-1])
    # A copy: a value that appears twice in a patch must not become one shared value in the document.
    value = copied(operation.get("value"))
    if isinstance(parent, dict):
        _apply_to_object(parent, tokens[-1], op, value, path)
    elif isinstance(parent, list):
        _apply_to_array(parent, tokens[-1], op, value, path)
    else:
        raise PatchError(f"cannot {op} {path}: there is nothing above it")


def _apply_to_object(parent: dict[str, Any], key: str, op: str, value: Any, path: str) -> None:
    if op != "add" and key not in parent:
        raise PatchError(f"cannot {op} {path}: it does not exist")
    if op == "remove":
        del parent[key]
    else:
        parent[key] = value


def _apply_to_array(parent: list[Any], last: str, op: str, value: Any, path: str) -> None:
    if op == "add":
        index = len(parent) if last == "-" else _index(last, len(parent))
        if index is None:
            raise PatchError(f"cannot add {path}: the index is out of range")
        parent.insert(index, value)
        return
    index = _index(last, len(parent) - 1)
    if index is None:
        raise PatchError(f"cannot {op} {path}: it does not exist")
    if op == "remove":
        del parent[index]
    else:
        parent[index] = value


def _index(token: str, last: int) -> int | None:
    """Return an array index in [0, last], or None. RFC 6901 allows neither signs nor leading zeros."""
    if not (token.isascii() and token.isdigit()) or (len(token) > 1 and token[0] == "0"):
        return None
    index = int(token)
    return index if index <= last else None
