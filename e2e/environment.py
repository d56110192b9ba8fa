"""What the tests were given: a cluster, images, and what can be done to its machines. Read once, from the environment.

KUBECONFIG            the cluster, in which definitions, cluster roles and namespaces may be made
E2E_IMAGE             the image of operator and brokers, as nodes know it
E2E_CLIENT_IMAGE      the image of `e2e/client`
E2E_PULL_POLICY       of both (default IfNotPresent)
E2E_HELM_ARGUMENTS    more of them for `helm install`, separated by blanks
E2E_HOOKS             a program that can do to nodes what the Kubernetes API cannot, see `Hooks`; may be missing
E2E_S3_ENDPOINT, E2E_S3_BUCKET, E2E_S3_ACCESS_KEY, E2E_S3_SECRET_KEY
                      a bucket that pods can reach; without it tiered storage is not tested
E2E_RESULTS           the file in which measured seconds are kept (default .cache/e2e/measured.json)
E2E_KEEP              not empty: leave everything running at the end
KUBECTL, HELM         programs, if they are not on the PATH
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "charts" / "strandline"


class MissingError(Exception):
    """Something that the tests need is missing; the text says what."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """A program of the laboratory or of kind, called as `PROGRAM VERB ARGUMENT...`; it fails if it cannot.

    - `node-off NODE`, `node-on NODE`: power; off is sudden, and `node-on` returns when the node's kubelet answers;
    - `signal NODE CONTAINER SIGNAL`: to the first process of a container, given by its id in the pod's status;
    - `api-down`, `api-up`: the API server ends at once, and answers again when `api-up` returns.
    """

    program: str

    def __call__(self, verb: str, *arguments: str, timeout_s: float = 300.0) -> None:
        """Call it. Raises CalledProcessError, TimeoutExpired."""
        subprocess.run([self.program, verb, *arguments], check=True, timeout=timeout_s)


@dataclass(frozen=True, slots=True)
class Environment:
    """All settings; `hooks` is None where nothing can be done to nodes."""

    kubeconfig: Path
    image: str
    client_image: str
    pull_policy: str
    helm_arguments: tuple[str, ...]
    hooks: Hooks | None
    results: Path
    keep: bool
    kubectl: str
    helm: str

    @classmethod
    def read(cls, variables: Mapping[str, str] = os.environ) -> Environment:
        """Read it. Raises MissingError."""
        missing = [
            name for name in ("KUBECONFIG", "E2E_IMAGE", "E2E_CLIENT_IMAGE") if not variables.get(name)
        ]
        if missing:
            raise MissingError(f"set {', '.join(missing)}; `make e2e-lab` and `make e2e-kind` do")
        hooks = variables.get("E2E_HOOKS")
        return cls(
            kubeconfig=Path(variables["KUBECONFIG"]),
            image=variables["E2E_IMAGE"],
            client_image=variables["E2E_CLIENT_IMAGE"],
            pull_policy=variables.get("E2E_PULL_POLICY") or "IfNotPresent",
            helm_arguments=tuple(shlex.split(variables.get("E2E_HELM_ARGUMENTS", ""))),
            hooks=Hooks(hooks) if hooks else None,
            results=Path(variables.get("E2E_RESULTS") or ROOT / ".cache" / "e2e" / "measured.json"),
            keep=bool(variables.get("E2E_KEEP")),
            kubectl=_program(variables, "KUBECTL", "kubectl"),
            helm=_program(variables, "HELM", "helm"),
        )

    @property
    def repository_and_tag(self) -> tuple[str, str]:
        """The image as the chart takes it."""
        repository, _, tag = self.image.rpartition(":")
        return repository, tag


def _program(variables: Mapping[str, str], variable: str, name: str) -> str:
    found = variables.get(variable) or shutil.which(name)
    if not found:
        raise MissingError(f"{name} is not on the PATH: install it, or set {variable}")
    return found
