"""The CustomResourceDefinitions as data: found beside the package in a wheel, in the repository otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

GROUP = "strandline.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

# Users write these; the others are the operator's working records.
USER_KINDS = ("Cluster", "Topic")


@dataclass(frozen=True, slots=True)
class Definition:
    """One CustomResourceDefinition: its kind and the structural schema of the version that is served."""

    kind: str
    plural: str
    schema: dict[str, Any]
    has_status: bool


def definitions_directory() -> Path:
    """Return the folder with the CRDs. Raises FileNotFoundError when the installation lacks them."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "crds", package.parent.parent / "crds"):
        if (candidate / "topics.yaml").is_file():
            return candidate
    raise FileNotFoundError(
        f"the CustomResourceDefinitions are missing from the installation at {package}; reinstall strandline"
    )


def parse_definition(document: dict[str, Any]) -> Definition:
    """Return the definition of a parsed CRD. Raises KeyError or StopIteration if it is none of ours."""
    spec = document["spec"]
    version = next(v for v in spec["versions"] if v["name"] == VERSION)
    return Definition(
        kind=spec["names"]["kind"],
        plural=spec["names"]["plural"],
        schema=version["schema"]["openAPIV3Schema"],
        has_status="status" in version.get("subresources", {}),
    )


@cache
def definitions() -> dict[str, Definition]:
    """Return the definitions by kind; read once per process."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: dict[str, Definition] = {}
    for path in sorted(definitions_directory().glob("*.yaml")):
        # A safe loader either way; the C one is ten times as fast.
        definition = parse_definition(yaml.load(path.read_bytes(), Loader=loader))  # noqa: S506
        found[definition.kind] = definition
    return found
