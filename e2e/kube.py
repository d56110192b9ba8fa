"""The cluster under test as its administrator sees it: kubectl and helm as users call them, and reads through the API."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import IO, Any, TypeVar

import kubernetes
from e2e.environment import Environment

GROUP, VERSION = "strandline.io", "v1alpha1"
_REQUEST_TIMEOUT_S = 15
_LOOK_INTERVAL_S = 0.2

T = TypeVar("T")


class Kube:
    """Everything is done with the rights of the kubeconfig."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        api = kubernetes.config.new_client_from_config(str(environment.kubeconfig))
        self.core = kubernetes.client.CoreV1Api(api)
        self.apps = kubernetes.client.AppsV1Api(api)
        self._custom = kubernetes.client.CustomObjectsApi(api)

    def kubectl(self, *arguments: str, stdin: IO[bytes] | None = None, timeout_s: float = 120.0) -> str:
        """Run kubectl, on the file `stdin`; return what it printed. Raises AssertionError with its complaint."""
        return self._run(self.environment.kubectl, arguments, stdin, timeout_s)

    def helm(self, *arguments: str, timeout_s: float = 300.0) -> str:
        """Run helm; return what it printed. Raises AssertionError with its complaint."""
        return self._run(self.environment.helm, arguments, None, timeout_s)

    def start_kubectl(self, *arguments: str) -> subprocess.Popen[str]:
        """Start kubectl with its output as a pipe."""
        return subprocess.Popen(
            [self.environment.kubectl, *self._access(), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def _access(self) -> tuple[str, ...]:
        return ("--kubeconfig", str(self.environment.kubeconfig))

    def _run(
        self, program: str, arguments: tuple[str, ...], stdin: IO[bytes] | None, timeout_s: float
    ) -> str:
        done = subprocess.run(
            [program, *self._access(), *arguments],
            stdin=stdin if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stderr or done.stdout}"
        return done.stdout

    def custom(self, namespace: str, plural: str, name: str) -> dict[str, Any] | None:
        """Return a Cluster, Topic or ClusterState; None if there is none."""
        try:
            found: dict[str, Any] = self._custom.get_namespaced_custom_object(
                GROUP, VERSION, namespace, plural, name, _request_timeout=_REQUEST_TIMEOUT_S
            )
        except kubernetes.client.ApiException as error:
            if error.status == 404:
                return None
            raise
        return found

    def customs(self, namespace: str, plural: str, selector: str = "") -> list[dict[str, Any]]:
        """Return all objects of a kind of ours."""
        found: list[dict[str, Any]] = self._custom.list_namespaced_custom_object(
            GROUP, VERSION, namespace, plural, label_selector=selector, _request_timeout=_REQUEST_TIMEOUT_S
        )["items"]
        return found

    def patch(self, namespace: str, plural: str, name: str, patch: dict[str, Any]) -> None:
        """Merge into an object of ours."""
        self._custom.patch_namespaced_custom_object(
            GROUP, VERSION, namespace, plural, name, patch, _request_timeout=_REQUEST_TIMEOUT_S
        )

    def events(self, namespace: str, name: str) -> list[tuple[str, str]]:
        """Return (reason, message) of the Events on an object, oldest first."""
        found = self.core.list_namespaced_event(
            namespace, field_selector=f"involvedObject.name={name}", _request_timeout=_REQUEST_TIMEOUT_S
        ).items
        found.sort(key=lambda event: event.metadata.creation_timestamp)
        return [(event.reason, event.message) for event in found]


def condition(obj: dict[str, Any] | None, kind: str) -> dict[str, Any]:
    """Return a condition of an object, empty if it has none of that type."""
    conditions = ((obj or {}).get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == kind), {})


def is_ready(obj: dict[str, Any] | None) -> bool:
    """Say whether an object is ready, and its status speaks of its newest spec."""
    if obj is None or (obj.get("status") or {}).get("observedGeneration") != obj["metadata"]["generation"]:
        return False
    return condition(obj, "Ready").get("status") == "True"


def wait_for(look: Callable[[], T], timeout_s: float, what: str, interval_s: float = _LOOK_INTERVAL_S) -> T:
    """Return the first true value of `look`. Raises AssertionError naming `what` when the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"after {timeout_s:.0f} s still waiting for {what}"
        time.sleep(interval_s)
