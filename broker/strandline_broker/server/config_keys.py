"""How one configuration key is described, and how its text becomes a value. Used by `server.config` only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

INT_MAX = (1 << 31) - 1
LONG_MAX = (1 << 63) - 1
_METADATA_KEY = "key"


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What is known of a key besides its type and default.

    `kafka` is Kafka's name for the same setting, which DescribeConfigs shows and files may use.
    """

    doc: str
    kafka: str | None = None
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()


def key(
    default: Any,
    doc: str,
    *,
    kafka: str | None = None,
    minimum: int | None = None,
    maximum: int | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare a field of BrokerConfig with its documentation and limits."""
    spec = KeySpec(doc, kafka, minimum, maximum, choices)
    return field(default=default, metadata={_METADATA_KEY: spec})


def spec_of(metadata: Any) -> KeySpec:
    """Return the KeySpec in a dataclass field's metadata."""
    spec = metadata[_METADATA_KEY]
    assert isinstance(spec, KeySpec)
    return spec


def convert(name: str, kind: type, spec: KeySpec, raw: object) -> int | bool | str | None:
    """Return the value of `raw` (text, or a scalar or list from YAML); raises ValueError for the user."""
    if isinstance(raw, Sequence) and not isinstance(raw, str):
        raw = ",".join(str(item) for item in raw)
    if isinstance(raw, dict):
        raise ValueError(f"{name}: expected one value, not a mapping")
    text = ("true" if raw else "false") if isinstance(raw, bool) else "" if raw is None else str(raw).strip()
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{name}: {text!r} is neither true nor false")
        return text.lower() == "true"
    if kind is int:
        return _integer(name, spec, text)
    if spec.choices and text not in spec.choices:
        raise ValueError(f"{name}: {text!r} is not one of {', '.join(spec.choices)}")
    return text


def _integer(name: str, spec: KeySpec, text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
        raise ValueError(f"{name}: {text!r} is not a whole number")
    value = int(text)
    if spec.minimum is not None and value < spec.minimum:
        raise ValueError(f"{name}: {value} is below {spec.minimum}")
    maximum = LONG_MAX if spec.maximum is None else spec.maximum
    if value > maximum:
        raise ValueError(f"{name}: {value} is above {maximum}")
    return value
