"""Tests against a real API server: `pytest tests/kubernetes -m kubernetes`, or `make test-kubernetes`.

STRANDLINE_TEST_KUBECONFIG or KUBECONFIG names a cluster in which namespaces and CustomResourceDefinitions may be made: the
definitions of `crds/` are installed, and every test gets a namespace of its own that is deleted afterwards. Without
`-m kubernetes` nothing here is even imported.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "kubernetes: needs a Kubernetes API server")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if "kubernetes" not in (config.getoption("-m") or "") else None


@pytest.fixture(scope="session")
def kubeconfig() -> str:
    """The kubeconfig file of the cluster under test."""
    path = os.environ.get("STRANDLINE_TEST_KUBECONFIG") or os.environ.get("KUBECONFIG")
    if not path:
        pytest.fail("set STRANDLINE_TEST_KUBECONFIG or KUBECONFIG")
    return path


@pytest.fixture(scope="session", autouse=True)
def definitions(kubeconfig: str) -> None:
    """Serve the CustomResourceDefinitions of this source tree."""
    from tests.kubernetes import api

    async def body() -> None:
        client = api.open_api(kubeconfig)
        await api.install_definitions(client)
        await client.close()

    asyncio.run(body())


@pytest.fixture
def namespace(kubeconfig: str) -> Iterator[str]:
    """A namespace of the test's own."""
    from tests.kubernetes import api

    async def make() -> str:
        client = api.open_api(kubeconfig)
        name = await api.create_namespace(client)
        await client.close()
        return name

    async def delete(name: str) -> None:
        client = api.open_api(kubeconfig)
        await api.delete_namespace(client, name)
        await client.close()

    name = asyncio.run(make())
    yield name
    asyncio.run(delete(name))
