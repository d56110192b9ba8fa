"""Installing the operator and the examples as docs/kubernetes.md says, and taking everything away again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import IO, Any

import kubernetes
from e2e.environment import CHART, ROOT
from e2e.kube import Kube, wait_for

RELEASE = "strandline"
CLIENT_POD = "client"
EXAMPLES = (ROOT / "examples" / "cluster.yaml", ROOT / "examples" / "topic.yaml")
FIRST_ACK = ROOT / "e2e" / "client" / "first_ack.py"
_GONE_S = 180.0


def install(kube: Kube, system: str) -> None:
    """`helm install`, and wait until the operator is active. Newer definitions than those in the cluster are applied."""
    environment = kube.environment
    repository, tag = environment.repository_and_tag
    kube.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    values = f"image.repository={repository},image.tag={tag},image.pullPolicy={environment.pull_policy}"
    kube.helm(
        "install", RELEASE, str(CHART), "--namespace", system, "--create-namespace", "--set", values,
        *environment.helm_arguments, "--wait", "--timeout", "3m",
    )  # fmt: skip


def clean_up(kube: Kube, system: str, namespace: str) -> None:
    """Remove what a run made, also one that was interrupted. The definitions stay, as Helm leaves them."""
    if RELEASE in kube.helm("list", "--namespace", system, "--all", "--short").split():
        kube.helm("uninstall", RELEASE, "--namespace", system, "--wait")
    for plural in ("topics", "clusters"):
        if _kind_exists(kube, plural):
            for obj in kube.customs(namespace, plural):
                # Without an operator nobody else would take them off.
                kube.patch(namespace, plural, obj["metadata"]["name"], {"metadata": {"finalizers": None}})
    kube.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")
    wait_for(lambda: not _namespace_exists(kube, namespace), _GONE_S, f"namespace {namespace} to be gone")


def _kind_exists(kube: Kube, plural: str) -> bool:
    return f"{plural}.strandline.io" in kube.kubectl(
        "get", "customresourcedefinitions", "--output", "name", "--ignore-not-found"
    )


def _namespace_exists(kube: Kube, namespace: str) -> bool:
    try:
        kube.core.read_namespace(namespace, _request_timeout=15)
    except kubernetes.client.ApiException as error:
        if error.status == 404:
            return False
        raise
    return True


def start_client(kube: Kube, namespace: str) -> None:
    """Make the namespace, and a pod in it that has Kafka clients and waits."""
    kube.kubectl("create", "namespace", namespace)
    container = {
        "name": "client",
        "image": kube.environment.client_image,
        "imagePullPolicy": kube.environment.pull_policy,
        "command": ["sleep", "infinity"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    pod: dict[str, Any] = {
        "metadata": {"name": CLIENT_POD},
        "spec": {
            "containers": [container],
            "volumes": [{"name": "data", "emptyDir": {}}],
            "terminationGracePeriodSeconds": 0,
        },
    }
    kube.core.create_namespaced_pod(namespace, pod, _request_timeout=15)
    kube.kubectl(
        "wait", "--namespace", namespace, f"pod/{CLIENT_POD}", "--for=condition=Ready", "--timeout=180s"
    )


def in_client(
    kube: Kube, namespace: str, *command: str, stdin: IO[bytes] | None = None, timeout_s: float = 600
) -> str:
    """Run a program in that pod; return what it printed. Raises AssertionError with its complaint."""
    options = ("--stdin",) if stdin is not None else ()
    return kube.kubectl(
        "exec",
        "--namespace",
        namespace,
        *options,
        CLIENT_POD,
        "--",
        *command,
        stdin=stdin,
        timeout_s=timeout_s,
    )


def copy_to_client(kube: Kube, namespace: str, path: Path) -> None:
    """Copy a file into the folder `/data` of that pod."""
    with path.open("rb") as content:
        in_client(kube, namespace, "sh", "-c", f"cat > /data/{path.name}", stdin=content)


def apply_examples(kube: Kube, namespace: str) -> float:
    """Apply the examples as they are; return the seconds until a client in a pod had its first record acknowledged.

    The client is there before, and nothing else: what is measured is operator, scheduler, kubelets and brokers.
    """
    copy_to_client(kube, namespace, FIRST_ACK)
    program = ("python3", f"/data/{FIRST_ACK.name}", "demo-bootstrap:9092", "hello")
    with kube.start_kubectl("exec", "--namespace", namespace, CLIENT_POD, "--", *program) as client:
        assert client.stdout is not None
        assert client.stdout.readline().strip() == "waiting"
        began = time.monotonic()
        kube.kubectl("apply", "--namespace", namespace, *_files(EXAMPLES))
        line = client.stdout.readline().strip()
        took_s = time.monotonic() - began
    assert line.startswith("acknowledged "), line
    return took_s


def _files(paths: tuple[Path, ...]) -> list[str]:
    return [text for path in paths for text in ("--filename", str(path))]
