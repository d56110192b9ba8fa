"""What the person who installs the operator decides, for all Clusters alike.

Read once, from the environment that the Helm chart sets. Builders and handlers get the finished value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ENVIRONMENT_PREFIX = "STRANDLINE_OPERATOR_"

_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
# Enough to start and to be scheduled anywhere; what a busy broker needs is for the installation to say.
_DEFAULT_RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}}


class SettingsError(ValueError):
    """The environment holds a value that cannot be used; the text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """`image` runs the brokers (the same image runs the operator).

    `namespace` is the only one whose Clusters are served; empty means all. `own_namespace` is where the operator itself
    runs and keeps its Lease. `cluster_domain` is the DNS domain of Services. `volume_permissions`: a root init container
    gives each volume to the brokers' user, for storage that ignores fsGroup (hostPath volumes).
    """

    image: str = "ghcr.io/strandline/strandline:0.1.0"
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    namespace: str = ""
    own_namespace: str = "default"
    identity: str = "strandline-operator"
    cluster_domain: str = "cluster.local"
    resources: dict[str, Any] = field(default_factory=lambda: dict(_DEFAULT_RESOURCES))
    volume_permissions: bool = False
    network_policy: bool = True

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> OperatorSettings:
        """Read `STRANDLINE_OPERATOR_<FIELD>`; what is unset or empty keeps its default. Raises SettingsError."""
        given = {
            name.removeprefix(ENVIRONMENT_PREFIX).lower(): text.strip()
            for name, text in environment.items()
            if name.startswith(ENVIRONMENT_PREFIX) and text.strip()
        }
        values: dict[str, Any] = {}
        for name, text in given.items():
            if name not in cls.__dataclass_fields__:
                raise SettingsError(f"{ENVIRONMENT_PREFIX}{name.upper()}: there is no such setting")
            values[name] = _converted(name, text)
        if values.get("image_pull_policy", "Never") not in _PULL_POLICIES:
            raise SettingsError(
                f"{ENVIRONMENT_PREFIX}IMAGE_PULL_POLICY: {values['image_pull_policy']!r} is not one of "
                f"{', '.join(_PULL_POLICIES)}"
            )
        return cls(**values)


def _converted(name: str, text: str) -> Any:
    key = f"{ENVIRONMENT_PREFIX}{name.upper()}"
    if name in ("volume_permissions", "network_policy"):
        if text.lower() not in ("true", "false"):
            raise SettingsError(f"{key}: {text!r} is neither true nor false")
        return text.lower() == "true"
    if name == "image_pull_secrets":
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if name == "resources":
        try:
            parsed = json.loads(text)
        except ValueError as error:
            raise SettingsError(f"{key}: not JSON: {error}") from error
        if not isinstance(parsed, dict):
            raise SettingsError(f"{key}: expected an object as in a container's `resources`")
        return parsed
    return text
