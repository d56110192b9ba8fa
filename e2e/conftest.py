"""Fixtures of the end-to-end tests: one operator and one Cluster for the whole run, made as a user makes them.

Nothing here runs without `-m e2e`. The tests disturb one and the same Cluster one after the other, and every one waits
until it is well again; what they measured is printed at the end and kept for the documentation.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from e2e.demo import Demo
    from e2e.environment import Environment, Hooks
    from e2e.kube import Kube
    from e2e.measured import Measured

SYSTEM = "strandline-system"
DEPLOYMENT = "strandline-operator"
NAMESPACE = "strandline-e2e"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "e2e: needs a Kubernetes cluster with nodes, and images (docs/kubernetes.md)"
    )


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    if "e2e" not in str(config.getoption("-m")):
        return True
    with warnings.catch_warnings():  # kafka-python's own, on import
        warnings.simplefilter("ignore", DeprecationWarning)
        import kafka  # type: ignore[import-untyped]  # noqa: F401
    return None


_measured: list[Measured] = []


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _measured and _measured[0].noted:
        terminalreporter.section("measured")
        for line in _measured[0].noted:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def environment() -> Environment:
    from e2e.environment import Environment, MissingError

    try:
        return Environment.read(os.environ)
    except MissingError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def kube(environment: Environment) -> Kube:
    from e2e.kube import Kube

    return Kube(environment)


@pytest.fixture(scope="session")
def measured(environment: Environment) -> Measured:
    from e2e.measured import Measured

    _measured.append(Measured(environment.results))
    return _measured[0]


@pytest.fixture
def hooks(environment: Environment) -> Hooks:
    """What can be done to nodes. Skips where nothing can."""
    if environment.hooks is None:
        pytest.skip("E2E_HOOKS is not set: nothing can be done to the machines of this cluster")
    return environment.hooks


@pytest.fixture(scope="session")
def operator(kube: Kube, environment: Environment) -> Iterator[Kube]:
    """The operator, installed by Helm."""
    from e2e import installation

    installation.clean_up(kube, SYSTEM, NAMESPACE)
    installation.install(kube, SYSTEM)
    yield kube
    if not environment.keep:
        installation.clean_up(kube, SYSTEM, NAMESPACE)


@pytest.fixture(scope="session")
def demo(operator: Kube, measured: Measured) -> Demo:
    """The Cluster of the examples with a second listener for clients outside; well when a test begins."""
    from e2e import installation
    from e2e.demo import Demo

    cluster = Demo(operator, NAMESPACE)
    installation.start_client(operator, NAMESPACE)
    began = time.monotonic()
    measured.note("first-ack", installation.apply_examples(operator, NAMESPACE))
    cluster.wait_until_ready()
    measured.note("ready", time.monotonic() - began)
    cluster.add_outside_listener()
    return cluster


@pytest.fixture
def bucket() -> dict[str, str]:
    """The bucket and how pods reach it; it exists and holds nothing that is needed."""
    names = ("E2E_S3_ENDPOINT", "E2E_S3_BUCKET", "E2E_S3_ACCESS_KEY", "E2E_S3_SECRET_KEY")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        pytest.skip(f"no bucket: {', '.join(missing)} not set")
    return {name.removeprefix("E2E_S3_").lower(): os.environ[name] for name in names}


@pytest.fixture
def operator_node(operator: Kube) -> str:
    """The node on which the operator runs."""
    pods = operator.core.list_namespaced_pod(SYSTEM, _request_timeout=15).items
    return next(str(pod.spec.node_name) for pod in pods if pod.metadata.deletion_timestamp is None)


@pytest.fixture(autouse=True)
def well(request: pytest.FixtureRequest) -> None:
    """Let no test begin with what another one broke."""
    if "demo" in request.fixturenames:
        request.getfixturevalue("demo").wait_until_ready()
