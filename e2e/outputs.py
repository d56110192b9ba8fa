"""Writes into docs/kubernetes.md what a real API server prints for the examples, and what the tests measured.

    python -m e2e.outputs        # the environment of the tests; the operator runs, as after a run with E2E_KEEP=1

Each part lies between `<!-- printed: NAME -->` and `<!-- end -->`. The examples are applied to a namespace of their own,
`shop`, which is deleted at the end.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from e2e.demo import Demo
from e2e.environment import ROOT, Environment, MissingError
from e2e.installation import EXAMPLES
from e2e.kube import Kube, is_ready, wait_for
from e2e.measured import DATA, MEASURES, Measured

PAGE = ROOT / "docs" / "kubernetes.md"
NAMESPACE = "shop"
_READY_S = 300.0


def main() -> int:
    """Return the exit status."""
    try:
        environment = Environment.read()
    except MissingError as error:
        print(error, file=sys.stderr)
        return 2
    kube = Kube(environment)
    parts = {"measured": measured_table(Measured(environment.results))}
    with _examples(kube):
        parts["explain"] = _block("kubectl explain cluster.spec", kube, "explain", "cluster.spec")
        for name, command in {
            "get": f"get clusters,topics --namespace {NAMESPACE}",
            "get-wide": f"get clusters,topics --namespace {NAMESPACE} --output wide",
            "describe": f"describe topic hello --namespace {NAMESPACE}",
        }.items():
            parts[name] = _block(f"kubectl {command}", kube, *command.split())
    text = PAGE.read_text()
    for name, part in parts.items():
        text = replaced(text, name, part)
    PAGE.write_text(text)
    return 0


@contextmanager
def _examples(kube: Kube) -> Iterator[None]:
    """The examples, ready, in a namespace of their own."""
    files = [text for path in EXAMPLES for text in ("--filename", str(path))]
    kube.kubectl("create", "namespace", NAMESPACE)
    try:
        kube.kubectl("apply", "--namespace", NAMESPACE, *files)
        Demo(kube, NAMESPACE).wait_until_ready()
        wait_for(lambda: is_ready(kube.custom(NAMESPACE, "topics", "hello")), _READY_S, "the Topic")
        yield
    finally:
        # While its Cluster exists, so that the operator takes the finalizers off.
        kube.kubectl(
            "delete", "topics,clusters", "--all", "--namespace", NAMESPACE, "--timeout=180s", timeout_s=200
        )
        kube.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def _block(command: str, kube: Kube, *arguments: str) -> str:
    lines = kube.kubectl(*arguments).strip().splitlines()
    return "\n".join(["```console", f"$ {command}", *(line.rstrip() for line in lines), "```"])


def measured_table(measured: Measured) -> str:
    """Return what was measured as Markdown. Raises AssertionError if a run left something out."""
    missing = (MEASURES.keys() - measured.times.keys()) | (DATA.keys() - measured.data.keys())
    assert not missing, f"not measured yet: {', '.join(sorted(missing))}"
    lines = ["| what | seconds | load | what else was seen |", "|---|---|---|---|"]
    for name, text in MEASURES.items():
        time = measured.times[name]
        lines.append(f"| {text} | {time.seconds:.2f} | {time.load:.1f} | {time.remark} |")
    for where, title in DATA.items():
        lines += ["", f"{title}:", "", "```", *measured.data[where], "```"]
    return "\n".join(lines)


def replaced(text: str, name: str, part: str) -> str:
    """Return the page with one part replaced. Raises AssertionError if the page has no such part, or several."""
    pattern = re.compile(rf"(<!-- printed: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    found, count = pattern.subn(lambda match: f"{match[1]}{part}\n{match[2]}", text)
    assert count == 1, f"{PAGE.name} has {count} parts {name}"
    return found


if __name__ == "__main__":
    sys.exit(main())
