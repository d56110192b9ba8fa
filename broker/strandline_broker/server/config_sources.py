"""Where a broker's configuration comes from: a YAML file, the environment, the command line. Used by `server.config` only.

Each source is returned as it is written; what the spellings and values mean is for `server.config` to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

ENVIRONMENT_PREFIX = "STRANDLINE_"

# Kubernetes sets such variables in every container for a Service whose name begins with `strandline`.
_SERVICE_VARIABLE = re.compile(r".*_SERVICE_(HOST|PORT)(_.*)?|.*_PORT_[0-9]+_(TCP|UDP|SCTP)(_.*)?")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*")


class ConfigError(ValueError):
    """The configuration cannot be used; the text names every problem that was found."""


def from_file(path: str | Path) -> dict[str, object]:
    """Return the keys of a YAML file. Raises ConfigError, OSError."""
    import yaml  # here, because a broker without a file does not pay for the parser

    text = Path(path).read_text(encoding="utf-8")
    try:
        loaded = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe loaders
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: expected `key: value` lines")
    return {str(name): value for name, value in loaded.items()}


def from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    """Return the variables that are meant as keys: those that Kubernetes sets for Services are not."""
    values: dict[str, object] = {}
    for variable, text in sorted(environment.items()):
        name = variable.removeprefix(ENVIRONMENT_PREFIX)
        if name == variable or _SERVICE_VARIABLE.fullmatch(variable) or _SERVICE_ADDRESS.fullmatch(text):
            continue
        values[variable] = text
    return values


def from_assignments(assignments: Sequence[str]) -> dict[str, object]:
    """Return what `key=value` texts say. Raises ConfigError."""
    values: dict[str, object] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set: {assignment!r} is not key=value")
        values[name] = text
    return values
