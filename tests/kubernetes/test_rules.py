"""The CRDs are accepted by an API server, and its CEL rules say what `strandline dev` says."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
import yaml
from tests.kubernetes.api import (
    CRDS,
    DEFINITIONS,
    create_namespace,
    delete_namespace,
    install_definitions,
    open_api,
    post,
)
from tests.unit.operator.rule_cases import CASES, Case

from strandline_broker.cluster.kubernetes_api import KubernetesApi
from strandline_broker.cluster.kubernetes_errors import ApiRefusal

pytestmark = pytest.mark.kubernetes
PLURALS = {"Topic": "topics", "Cluster": "clusters"}


async def refusal_of(api: KubernetesApi, namespace: str, case: Case) -> str | None:
    obj = case.object()
    path = f"/apis/{obj['apiVersion']}/namespaces/{namespace}/{PLURALS[obj['kind']]}"
    strict = {"fieldValidation": "Strict"}
    try:
        if not case.update:
            await api.request("POST", path, query={**strict, "dryRun": "All"}, body=orjson.dumps(obj))
            return None
        stored = await post(api, path, case.base)
        name = stored["metadata"]["name"]
        try:
            body = orjson.dumps({**obj, "metadata": {**stored["metadata"], **obj["metadata"]}})
            await api.request("PUT", f"{path}/{name}", query=strict, body=body)
        finally:
            await api.request("DELETE", f"{path}/{name}")
    except ApiRefusal as refusal:
        return str(refusal)
    return None


def test_the_rules_of_an_api_server_are_ours(kubeconfig: str) -> None:
    async def scenario() -> list[str]:
        api = open_api(kubeconfig)
        wrong = []
        try:
            await install_definitions(api)
            namespace = await create_namespace(api)
            try:
                for case in CASES:
                    found = await refusal_of(api, namespace, case)
                    if (found is None) != (case.refusal is None) or (case.refusal or "") not in (found or ""):
                        wrong.append(f"{case.name}: expected {case.refusal!r}, found {found!r}")
            finally:
                await delete_namespace(api, namespace)
        finally:
            await api.close()
        return wrong

    assert asyncio.run(scenario()) == []


def test_the_definitions_are_structural_and_complete(kubeconfig: str) -> None:
    names = [
        yaml.safe_load(path.read_text(encoding="utf-8"))["metadata"]["name"]
        for path in sorted(CRDS.glob("*.yaml"))
    ]

    async def scenario() -> None:
        api = open_api(kubeconfig)
        try:
            await install_definitions(api)
            for name in names:
                await check(api, name)
        finally:
            await api.close()

    async def check(api: KubernetesApi, name: str) -> None:
        async with asyncio.timeout(30):
            while True:
                found: dict[str, Any] = await api.request("GET", f"{DEFINITIONS}/{name}")
                conditions = {c["type"]: c["status"] for c in found["status"].get("conditions", ())}
                if conditions.get("Established") == "True":
                    break
                await asyncio.sleep(0.1)
        assert conditions.get("NonStructuralSchema", "False") == "False"
        assert conditions["NamesAccepted"] == "True"

    asyncio.run(scenario())
