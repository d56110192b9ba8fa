"""What a client wants to change about the configuration of one resource: a whole or steps. Pure.

Source: Apache Kafka 4.2, `ConfigurationControlManager`, `ConfigAdminManager.preprocess`, KIP-339.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from strandline_broker.errors import ErrorCode, KafkaError


class Operation(IntEnum):
    """What to do with one key, numbered as on the wire."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


class Step(NamedTuple):
    """One key of a request."""

    name: str
    operation: int
    value: str | None


# The value that a list has before it is appended to or subtracted from while it is not set; None for keys
# that are no lists.
ListDefault = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """A change of one resource. `replace`: keys that no step names go back to their defaults (AlterConfigs)."""

    resource_type: int
    resource_name: str
    steps: tuple[Step, ...]
    replace: bool

    def check(self) -> None:
        """Refuse what makes no sense whatever the resource. Raises KafkaError(INVALID_REQUEST)."""
        times = Counter(step.name for step in self.steps)
        if any(count > 1 for count in times.values()):
            raise KafkaError(ErrorCode.INVALID_REQUEST, "Error due to duplicate config keys")
        for step in self.steps:
            if step.operation not in tuple(Operation):
                raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown operations type {step.operation}")
        missing = [s.name for s in self.steps if s.value is None and s.operation != Operation.DELETE]
        if missing:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST, f"Null value not supported for : {', '.join(missing)}"
            )

    def apply(self, current: Mapping[str, str], list_default: ListDefault) -> dict[str, str]:
        """Return the configuration after the change of `current`; values are not checked.

        Raises KafkaError(INVALID_CONFIG) for appending to what is no list.
        """
        result = {} if self.replace else dict(current)
        for name, operation, value in self.steps:
            if operation == Operation.DELETE:
                result.pop(name, None)
                continue
            assert value is not None, "checked"
            if operation in (Operation.APPEND, Operation.SUBTRACT):
                default = list_default(name)
                if default is None:
                    raise KafkaError(
                        ErrorCode.INVALID_CONFIG,
                        f"Can't {Operation(operation).name} to key {name} because its type is not LIST.",
                    )
                value = _changed_list(result.get(name, default), Operation(operation), value)
            result[name] = value
        return result


def _changed_list(current: str, operation: Operation, value: str) -> str:
    items = [item.strip() for item in current.split(",") if item.strip()]
    named = [item.strip() for item in value.split(",")]
    if operation is Operation.SUBTRACT:
        return ",".join(item for item in items if item not in named)
    return ",".join([*items, *(item for item in dict.fromkeys(named) if item not in items)])


def changes_of(resources: Iterable[Any], *, replace: bool) -> list[ConfigChange]:
    """Read the resources of an AlterConfigs (`replace`) or IncrementalAlterConfigs request."""
    return [
        ConfigChange(
            resource.resource_type,
            resource.resource_name,
            tuple(
                Step(config.name, getattr(config, "config_operation", Operation.SET), config.value)
                for config in resource.configs
            ),
            replace,
        )
        for resource in resources
    ]
