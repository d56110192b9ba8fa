from __future__ import annotations

import asyncio
import random
from typing import Any, cast

from tests.unit.operator.kopf_app.fake_api import FakeApi

from strandline_broker.cluster.kubernetes_api import KubernetesApi
from strandline_broker.cluster.model import Object
from strandline_operator.kopf_app.pods import (
    PodWatcher,
    broker_id_of,
    ended_incarnations,
    is_ready,
    waiting_reason,
)
from strandline_operator.kubernetes.client import KubernetesClient

PODS = "/api/v1/namespaces/shop/pods"


def terminated(incarnation: str) -> dict[str, Any]:
    return {"terminated": {"exitCode": 137, "message": f"incarnation={incarnation}\n"}}


def pod(broker_id: int = 0, *, state: Any = None, last: Any = None, **status: Any) -> Object:
    name = f"demo-broker-{broker_id}"
    labels = {"strandline.io/cluster": "demo", "apps.kubernetes.io/pod-index": str(broker_id)}
    container = {"name": "broker", "state": state or {"running": {}}, "lastState": last or {}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": labels},
        "status": {"containerStatuses": [container], **status},
    }


def test_the_broker_is_the_index_of_the_pod() -> None:
    assert broker_id_of(pod(7)) == 7
    assert broker_id_of({"metadata": {}}) is None


def test_a_termination_message_names_the_life_that_ended() -> None:
    assert list(ended_incarnations(pod())) == []
    assert list(ended_incarnations(pod(state=terminated("a")))) == ["a"]
    assert list(ended_incarnations(pod(last=terminated("a")))) == ["a"]
    assert list(ended_incarnations(pod(state=terminated("b"), last=terminated("a")))) == ["a", "b"]
    silent = {"terminated": {"exitCode": 137}}
    assert list(ended_incarnations(pod(state=silent))) == []
    other = pod(state=terminated("a"))
    other["status"]["containerStatuses"][0]["name"] = "sidecar"
    assert list(ended_incarnations(other)) == []


def test_a_pod_that_is_being_deleted_is_not_ready() -> None:
    ready = pod(conditions=[{"type": "Ready", "status": "True"}])
    assert is_ready(ready)
    ready["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not is_ready(ready)
    assert not is_ready(pod(conditions=[{"type": "Ready", "status": "False"}]))


def test_why_a_pod_does_not_run() -> None:
    assert waiting_reason(pod()) == ""
    assert waiting_reason(pod(state={"waiting": {"reason": "ContainerCreating"}})) == ""
    pulling = {"waiting": {"reason": "ErrImageNeverPull", "message": "no such image"}}
    assert waiting_reason(pod(state=pulling)) == "ErrImageNeverPull: no such image"
    unscheduled = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    ]
    assert waiting_reason(pod(conditions=unscheduled)) == "Unschedulable: 0/3 nodes"


def test_every_end_is_told_once_also_one_that_happened_before() -> None:
    async def scenario() -> None:
        api = FakeApi()
        ended: list[tuple[int, str]] = []
        changed = asyncio.Event()
        watcher = PodWatcher(
            KubernetesClient(cast(KubernetesApi, api)),
            "shop",
            "demo",
            on_change=changed.set,
            on_ended=lambda broker_id, incarnation: ended.append((broker_id, incarnation)),
            rng=random.Random(1),
        )

        async def put(obj: Object) -> None:
            changed.clear()
            await api.put(f"{PODS}/{obj['metadata']['name']}", obj)
            await changed.wait()

        await api.put(f"{PODS}/demo-broker-0", pod(0, last=terminated("before")))
        task = asyncio.create_task(watcher.run())
        await changed.wait()
        assert ended == [(0, "before")]
        await put(pod(1))
        await put(pod(1, state=terminated("a")))
        await put(pod(1, last=terminated("a")))
        await put(pod(1, state=terminated("b"), last=terminated("a")))
        await put(pod(1, last=terminated("b")))
        assert ended == [(0, "before"), (1, "a"), (1, "b")]
        assert set(watcher.pods) == {"demo-broker-0", "demo-broker-1"}
        changed.clear()
        await api.remove(f"{PODS}/demo-broker-1")
        await changed.wait()
        assert set(watcher.pods) == {"demo-broker-0"}
        assert len(ended) == 3, "a pod that vanished proves nothing"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(scenario(), 10))
