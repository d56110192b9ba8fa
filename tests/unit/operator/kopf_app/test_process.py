"""The lock, Events, deletions, Topics without a Cluster, and the loop around everything."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from tests.unit.operator.kopf_app.fake_api import FakeApi

from strandline_broker.cluster.backoff import Backoff
from strandline_broker.cluster.kubernetes_api import KubernetesApi
from strandline_broker.cluster.model import API_VERSION, TOPIC, Object, new_object
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_operator.controller.actions import Notice
from strandline_operator.kopf_app import deletion
from strandline_operator.kopf_app.deletion import delete_cluster
from strandline_operator.kopf_app.events import MAX_WAITING, EventPoster
from strandline_operator.kopf_app.lock import DURATION_S, OperatorLock, Waiter
from strandline_operator.kopf_app.operation import run_patiently
from strandline_operator.kopf_app.orphans import Orphans
from strandline_operator.kubernetes.client import KubernetesClient

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OURS = f"/apis/{API_VERSION}/namespaces/shop"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/shop/leases"
EVENTS = "/api/v1/namespaces/shop/events"


def client_of(api: FakeApi) -> KubernetesClient:
    return KubernetesClient(cast(KubernetesApi, api))


def lease(holder: str, version: str) -> Object:
    return {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": holder}}


def test_a_lease_is_taken_when_it_is_free_ours_or_stands_still() -> None:
    waiter = Waiter("me")
    assert waiter.may_take(None, 0.0)
    assert waiter.may_take(lease("", "1"), 0.0)
    assert waiter.may_take(lease("me", "1"), 0.0)
    assert not waiter.may_take(lease("you", "1"), 100.0)
    assert not waiter.may_take(lease("you", "1"), 100.0 + DURATION_S - 0.1)
    assert not waiter.may_take(lease("you", "2"), 100.0 + DURATION_S)
    assert waiter.may_take(lease("you", "2"), 100.0 + 2 * DURATION_S)


def test_of_two_operators_one_waits_until_the_other_lets_go() -> None:
    async def scenario() -> None:
        api = FakeApi()
        first, second = (OperatorLock(client_of(api), "shop", name, lambda: 0.0) for name in ("a", "b"))
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await first.release()
        await waiting
        assert api.objects[f"{LEASES}/strandline-operator"]["spec"]["holderIdentity"] == "b"

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_holder_notices_a_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        api = FakeApi()
        lock = OperatorLock(client_of(api), "shop", "a", lambda: 0.0)
        await lock.acquire()
        monkeypatch.setattr("strandline_operator.kopf_app.lock.RENEW_INTERVAL_S", 0.01)
        holding = asyncio.create_task(lock.hold())
        writes = len(api.writes)
        while len(api.writes) < writes + 2:
            await asyncio.sleep(0.01)
        assert not holding.done()
        await client_of(api).merge("Lease", "shop", "strandline-operator", {"spec": {"holderIdentity": "b"}})
        await holding

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_events_name_their_object_and_are_bounded() -> None:
    async def scenario() -> None:
        api = FakeApi()
        poster = EventPoster(client_of(api), lambda: NOW)
        notice = Notice("Topic", "orders", "Deleted", "m" * 2000, warning=True)
        for _ in range(MAX_WAITING + 5):
            poster.post("shop", notice, "u1")
        task = asyncio.create_task(poster.run())
        while len(api.writes) < MAX_WAITING:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert len(api.writes) == MAX_WAITING
        event = next(iter(api.objects.values()))
        assert event["involvedObject"] == {
            "apiVersion": API_VERSION,
            "kind": "Topic",
            "namespace": "shop",
            "name": "orders",
            "uid": "u1",
        }
        assert (event["type"], event["reason"], len(event["message"])) == ("Warning", "Deleted", 1024)
        task.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 10))


# -- deletion -------------------------------------------------------------------------------------------------------


async def cluster_with_parts(api: FakeApi, policy: str, *, deleting: bool = True) -> Object:
    metadata: dict[str, Any] = {"name": "demo", "namespace": "shop", "uid": "c1"}
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    cluster = {"kind": "Cluster", "metadata": metadata, "spec": {"deletionPolicy": policy}}
    await api.put(f"{OURS}/clusters/demo", cluster)
    for name, owner in (("demo", "demo"), ("other", "other")):
        labels = {"labels": {"strandline.io/cluster": owner}, "name": name, "namespace": "shop"}
        for path in (
            f"{OURS}/partitionsets",
            f"{OURS}/clusterstates",
            "/api/v1/namespaces/shop/persistentvolumeclaims",
            "/apis/apps/v1/namespaces/shop/statefulsets",
            LEASES,
        ):
            await api.put(f"{path}/{name}", {"metadata": dict(labels)})
    return await client_of(api).get("Cluster", "shop", "demo") or {}


def remaining(api: FakeApi) -> set[str]:
    return {path for path in api.objects if path.endswith("/demo") and "/clusters/" not in path}


def delete(api: FakeApi, cluster: Object) -> list[str]:
    async def scenario() -> list[str]:
        poster = EventPoster(client_of(api), lambda: NOW)
        await delete_cluster(client_of(api), cluster, poster)
        return [poster._queue.get_nowait().notice.reason for _ in range(poster._queue.qsize())]

    return asyncio.run(asyncio.wait_for(scenario(), 10))


def test_retain_leaves_everything() -> None:
    api = FakeApi()
    cluster = asyncio.run(cluster_with_parts(api, "Retain"))
    before = remaining(api)
    assert delete(api, cluster) == ["Retained"]
    assert remaining(api) == before


def test_delete_erases_what_is_the_clusters_and_nothing_else() -> None:
    api = FakeApi()
    cluster = asyncio.run(cluster_with_parts(api, "Delete"))
    others = {path for path in api.objects if path.endswith("/other")}
    assert delete(api, cluster) == ["Erased"]
    assert remaining(api) == set()
    assert {path for path in api.objects if path.endswith("/other")} == others


def test_nothing_is_erased_for_a_cluster_that_is_not_being_deleted() -> None:
    api = FakeApi()
    cluster = asyncio.run(cluster_with_parts(api, "Delete", deleting=False))
    before = remaining(api)
    delete(api, cluster)
    assert remaining(api) == before


def test_an_erasure_that_does_not_end_lets_the_object_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "DEADLINE_S", 0.1)
    monkeypatch.setattr(deletion, "_LOOK_INTERVAL_S", 0.01)
    api = FakeApi()
    cluster = asyncio.run(cluster_with_parts(api, "Delete"))
    labels = {"labels": {"strandline.io/cluster": "demo"}, "name": "demo-broker-0"}
    asyncio.run(api.put("/api/v1/namespaces/shop/pods/demo-broker-0", {"metadata": labels}))
    assert delete(api, cluster) == ["ErasedInPart"]
    assert remaining(api) == {f"{LEASES}/demo"}, "a broker that still runs would make it again"


# -- Topics without a Cluster ------------------------------------------------------------------------------------------


def test_topics_without_a_cluster_say_so_and_can_be_deleted() -> None:
    async def scenario() -> None:
        api, store = FakeApi(), SqliteStore(":memory:")
        poster = EventPoster(client_of(api), lambda: NOW)
        orphans = Orphans(client_of(api), lambda _: store, poster, random.Random(1))
        held = new_object(
            TOPIC, "held", {"clusterRef": {"name": "gone"}}, finalizers=("strandline.io/topic",)
        )
        made = await store.create(TOPIC, held)
        await store.create(TOPIC, new_object(TOPIC, "lonely", {"clusterRef": {"name": "gone"}}))
        await store.create(TOPIC, new_object(TOPIC, "served", {"clusterRef": {"name": "demo"}}))
        await store.delete_if(TOPIC, "held", uid=made["metadata"]["uid"])
        await api.put(f"{OURS}/clusters/demo", {"metadata": {"name": "demo"}})
        task = asyncio.create_task(orphans.run())
        orphans.look_at("shop", "gone")
        orphans.look_at("shop", "demo")
        while len(topics := (await store.list(TOPIC))[0]) == 3 or not topics[0].get("status"):
            await asyncio.sleep(0.01)
        lonely, served = topics
        assert (lonely["metadata"]["name"], served["metadata"]["name"]) == ("lonely", "served")
        reasons = {one["type"]: one["reason"] for one in lonely["status"]["conditions"]}
        assert reasons["Ready"] == reasons["Stalled"] == "ClusterNotFound"
        assert not served.get("status")
        assert poster._queue.get_nowait().notice.reason == "Released"
        task.cancel()
        await store.close()

    asyncio.run(asyncio.wait_for(scenario(), 10))


# -- the loop around a daemon -----------------------------------------------------------------------------------------


def test_what_fails_or_ends_begins_anew_until_it_is_told_to_stop() -> None:
    async def scenario() -> None:
        stop = asyncio.Event()
        runs: list[str] = []

        async def work() -> None:
            runs.append("run")
            if len(runs) == 1:
                raise RuntimeError("an accident")
            if len(runs) == 2:
                return
            try:
                await asyncio.Event().wait()
            finally:
                runs.append("cancelled")

        backoff = Backoff(random.Random(1), first_s=0.001, cap_s=0.001)
        task = asyncio.create_task(run_patiently(work, stop.wait, name="test", backoff=backoff))
        while len(runs) < 3:
            await asyncio.sleep(0.005)
        stop.set()
        await task
        assert runs == ["run", "run", "run", "cancelled"]

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_cancelled_daemon_leaves_nothing_running() -> None:
    async def scenario() -> None:
        ended = asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        backoff = Backoff(random.Random(1))
        task = asyncio.create_task(run_patiently(work, asyncio.Event().wait, name="test", backoff=backoff))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    asyncio.run(asyncio.wait_for(scenario(), 10))
