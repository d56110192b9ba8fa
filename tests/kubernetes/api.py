"""What the tests need of a real API server besides the store: definitions, namespaces, raw requests."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import orjson
import yaml

from strandline_broker.cluster.kubernetes_access import from_kubeconfig
from strandline_broker.cluster.kubernetes_api import KubernetesApi
from strandline_broker.cluster.kubernetes_errors import ApiRefusal
from strandline_broker.cluster.store import Unavailable

CRDS = Path(__file__).resolve().parents[2] / "crds"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE_PATCH = "application/merge-patch+json"
# Marks what tests made, so that what an interrupted run left behind can be found: kubectl get ns -l ...
LABEL = {"strandline.io/test": "true"}


def open_api(kubeconfig: str) -> KubernetesApi:
    return KubernetesApi(from_kubeconfig(Path(kubeconfig)))


async def post(api: KubernetesApi, path: str, body: dict[str, Any]) -> Any:
    return await api.request("POST", path, body=orjson.dumps(body))


async def install_definitions(api: KubernetesApi) -> None:
    """Create or replace the CustomResourceDefinitions of this source tree, and wait until they are served."""
    for path in sorted(CRDS.glob("*.yaml")):
        wanted = yaml.safe_load(path.read_text())
        name, collection = wanted["metadata"]["name"], served_at(wanted)
        try:
            await post(api, DEFINITIONS, wanted)
        except ApiRefusal as refusal:
            if refusal.reason != "AlreadyExists":
                raise
            body = orjson.dumps({key: wanted[key] for key in ("apiVersion", "kind", "metadata", "spec")})
            await api.request("PATCH", f"{DEFINITIONS}/{name}", body=body, content_type=MERGE_PATCH)
        await until_served(api, collection)


def served_at(definition: dict[str, Any]) -> str:
    spec = definition["spec"]
    version = spec["versions"][0]["name"]
    return f"/apis/{spec['group']}/{version}/namespaces/default/{spec['names']['plural']}?limit=1"


async def until_served(api: KubernetesApi, collection: str) -> None:
    path, _, _ = collection.partition("?")
    async with asyncio.timeout(30):
        while True:
            try:
                await api.request("GET", path, query={"limit": "1"})
            except Unavailable:  # 404 at first, then 429 while its storage begins
                await asyncio.sleep(0.1)
            else:
                return


async def create_namespace(api: KubernetesApi) -> str:
    name = f"strandline-test-{uuid.uuid4().hex[:12]}"
    await post(api, "/api/v1/namespaces", {"metadata": {"name": name, "labels": LABEL}})
    return name


async def delete_namespace(api: KubernetesApi, name: str) -> None:
    """Ask for the deletion; what is in it goes in the background, once no finalizer of a test keeps it."""
    topics = f"/apis/strandline.io/v1alpha1/namespaces/{name}/topics"
    for topic in (await api.request("GET", topics))["items"]:
        if topic["metadata"].get("finalizers"):
            await api.request(
                "PATCH",
                f"{topics}/{topic['metadata']['name']}",
                body=b'{"metadata": {"finalizers": null}}',
                content_type=MERGE_PATCH,
            )
    await api.request("DELETE", f"/api/v1/namespaces/{name}")
