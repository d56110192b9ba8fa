"""Writes into docs/kubernetes.md what a real API server prints for the examples, and what the tests measured.

    python -m e2e.outputs              # both; the environment of the tests, and the operator runs, as E2E_KEEP=1 leaves it
    python -m e2e.outputs --measured   # what the tests measured alone

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
    parts = {} if "--measured" in sys.argv[1:] else printed(Kube(environment))
    parts["measured"] = measured_table(Measured(environment.results))
    text = PAGE.read_text()
    for name, part in parts.items():
        text = replaced(text, name, part)
    PAGE.write_text(text)
    return 0


def printed(kube: Kube) -> dict[str, str]:
    """Return what kubectl prints of the examples, by the name of the part."""
    commands = {
        "explain": "explain cluster.spec",
        "get": f"get clusters,topics --namespace {NAMESPACE}",
        "get-wide": f"get clusters,topics --namespace {NAMESPACE} --output wide",
        "describe": f"describe topic hello --namespace {NAMESPACE}",
    }
    with _examples(kube):
        return {name: _block(command, kube) for name, command in commands.items()}


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


def _block(command: str, kube: Kube) -> str:
    lines = kube.kubectl(*command.split()).strip().splitlines()
    return "\n".join(["```console", f"$ kubectl {command}", *(line.rstrip() for line in lines), "```"])


def measured_table(measured: Measured) -> str:
    """Return what was measured as Markdown; what was not says so."""
    lines = ["| what | seconds | load | what else was seen |", "|---|---|---|---|"]
    for name, text in MEASURES.items():
        time = measured.times.get(name)
        if time is None:
            lines.append(f"| {text} | not measured | | |")
            continue
        load = "unknown" if time.load is None else f"{time.load:.1f}"
        lines.append(f"| {text} | {time.seconds:.2f} | {load} | {time.remark} |")
    for where, title in DATA.items():
        lines += ["", f"{title}:", "", "```", *measured.data.get(where, ["not run"]), "```"]
    return "\n".join(lines)


def replaced(text: str, name: str, part: str) -> str:
    """Return the page with one part replaced. Raises AssertionError if the page has no such part, or several."""
    pattern = re.compile(rf"(<!-- printed: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    found, count = pattern.subn(lambda match: f"{match[1]}{part}\n{match[2]}", text)
    assert count == 1, f"{PAGE.name} has {count} parts {name}"
    return found


if __name__ == "__main__":
    sys.exit(main())
