"""The loop over a Cluster's objects, against an API server in memory."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from tests.unit.operator.kopf_app.fake_api import FakeApi
from tests.unit.operator.kopf_app.test_pods import pod
from tests.unit.operator.kubernetes.builders import SETTINGS

from strandline_broker.cluster.kubernetes_api import KubernetesApi
from strandline_broker.cluster.model import CLUSTER, Object, new_object
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_operator.controller import pacing
from strandline_operator.controller.actions import Notice
from strandline_operator.controller.loop import Controller
from strandline_operator.kopf_app.resources import ResourceLoop
from strandline_operator.kopf_app.rolling_update import RollingUpdate
from strandline_operator.kubernetes.client import KubernetesClient

ROOT = "/apis/apps/v1/namespaces/shop/statefulsets/demo-broker"
SERVICES = "/api/v1/namespaces/shop/services"
PODS = "/api/v1/namespaces/shop/pods"


class Bench:
    def __init__(self) -> None:
        self.api = FakeApi()
        self.store = SqliteStore(":memory:")
        self.now = 100.0
        self.notices: list[Notice] = []
        self.controller = Controller(
            self.store,
            "demo",
            monotonic=lambda: self.now,
            now_ms=lambda: 1_700_000_000_000,
            notify=self.notices.append,
            rng=random.Random(7),
        )
        self.loop = ResourceLoop(
            KubernetesClient(cast(KubernetesApi, self.api)),
            self.controller,
            "shop",
            "demo",
            SETTINGS,
            notify=self.notices.append,
            rng=random.Random(7),
        )

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

    async def until_said(self, condition: str, text: str) -> None:
        """Let time pass meanwhile: a status that only says something else waits for its turn."""

        def said() -> bool:
            self.now += 1
            return text in self.conditions().get(condition, "")

        await self.until(said)

    async def respec(self, **spec: Any) -> None:
        old = await self.store.get(CLUSTER, "demo")
        operations = [{"op": "replace", "path": "/spec", "value": {**old["spec"], **spec}}]
        await self.store.patch_if(
            CLUSTER, "demo", uid=old["metadata"]["uid"], tests=[], operations=operations
        )

    def conditions(self) -> dict[str, str]:
        cluster = self.controller.view.cluster
        found = cluster.status.get("conditions", ()) if cluster is not None else ()
        return {one["type"]: one["message"] for one in found if one["status"] == "True"}

    def service(self, name: str) -> Object:
        return self.api.objects[f"{SERVICES}/{name}"]


@contextlib.asynccontextmanager
async def bench(**spec: Any) -> AsyncIterator[Bench]:
    b = Bench()
    await b.store.create(CLUSTER, new_object(CLUSTER, "demo", {"replicas": 2, **spec}))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work()) for work in (b.controller.run, b.loop.run, b.loop.pods.run)]
        try:
            yield b
        finally:
            for task in tasks:
                task.cancel()
    await b.store.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes no condition, but its message, would wait fifteen seconds for its turn."""
    monkeypatch.setattr(pacing, "STATUS_INTERVAL_S", 0.0)


def test_a_cluster_gets_its_objects_and_after_that_nothing_is_written() -> None:
    async def scenario() -> None:
        async with bench() as b:
            await b.until(lambda: ROOT in b.api.objects)
            await b.until(
                lambda: b.controller.view.cluster and b.controller.view.cluster.status.get("bootstrap")
            )
            assert b.controller.view.cluster is not None
            status = b.controller.view.cluster.status
            assert status["bootstrap"] == "demo-bootstrap.shop.svc:9092"
            assert status["listeners"] == [
                {"name": "PLAIN", "type": "ClusterIP", "bootstrap": "demo-bootstrap.shop.svc:9092"}
            ]
            assert [path for path in b.api.objects if "/secrets/" in path]
            assert [n.reason for n in b.notices if n.reason == "BrokersStarted"]
            before = list(b.api.writes)
            b.loop._wake.set()
            await b.until(lambda: not b.loop._wake.is_set())
            await asyncio.sleep(0.05)
            assert b.api.writes == before

    asyncio.run(scenario())


def test_fewer_brokers_are_refused_with_a_condition() -> None:
    async def scenario() -> None:
        async with bench() as b:
            await b.until(lambda: ROOT in b.api.objects)
            await b.respec(replicas=1)
            await b.until(lambda: "ScaleDownRefused" in b.conditions())
            assert b.api.objects[ROOT]["spec"]["replicas"] == 2
            assert "set spec.replicas to 2" in b.conditions()["Stalled"]
            await b.respec(replicas=3)
            await b.until(lambda: b.api.objects[ROOT]["spec"]["replicas"] == 3)
            await b.until(lambda: "ScaleDownRefused" not in b.conditions())

    asyncio.run(scenario())


def test_pods_remember_the_number_of_brokers_when_the_stateful_set_is_gone() -> None:
    async def scenario() -> None:
        async with bench(replicas=1) as b:
            await b.until(lambda: ROOT in b.api.objects)
            await b.api.put(f"{PODS}/demo-broker-4", pod(4))
            await b.until(lambda: b.loop.pods.pods)
            await b.api.remove(ROOT)
            b.loop._wake.set()
            await b.until(lambda: ROOT in b.api.objects)
            assert b.api.objects[ROOT]["spec"]["replicas"] == 5

    asyncio.run(scenario())


def test_somebody_elses_object_is_left_alone_and_named() -> None:
    async def scenario() -> None:
        b = Bench()
        foreign = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "demo-bootstrap"},
            "spec": {"a": 1},
        }
        await b.store.create(CLUSTER, new_object(CLUSTER, "demo", {"replicas": 1}))
        await b.api.put(f"{SERVICES}/demo-bootstrap", foreign)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work()) for work in (b.controller.run, b.loop.run)]
            await b.until(lambda: "ResourceConflict" in b.conditions())
            assert b.conditions()["ResourceConflict"].startswith("Service demo-bootstrap exists")
            assert b.service("demo-bootstrap")["spec"] == {"a": 1}
            for task in tasks:
                task.cancel()
        await b.store.close()

    asyncio.run(scenario())


def test_a_pod_is_told_its_rack_as_soon_as_it_has_a_node() -> None:
    async def scenario() -> None:
        async with bench(rack={"topologyKey": "zone"}) as b:
            node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"zone": "z1"}}}
            await b.api.put("/api/v1/nodes/n1", node)
            await b.until(lambda: ROOT in b.api.objects)
            await b.api.put(f"{PODS}/demo-broker-1", pod(1))
            await b.until(lambda: b.loop.pods.pods)
            placed = pod(1)
            placed["spec"] = {"nodeName": "n1"}
            await b.api.put(f"{PODS}/demo-broker-1", placed)

            def annotation() -> str | None:
                annotations = b.api.objects[f"{PODS}/demo-broker-1"]["metadata"].get("annotations", {})
                found: str | None = annotations.get("strandline.io/placement")
                return found

            await b.until(annotation)
            assert annotation() == '{"rack":"z1"}'

    asyncio.run(scenario())


def test_an_api_server_that_is_away_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        b = Bench()
        b.api.away = True
        await b.store.create(CLUSTER, new_object(CLUSTER, "demo", {"replicas": 1}))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work()) for work in (b.controller.run, b.loop.run, b.loop.pods.run)]
            await b.until(lambda: b.controller.view.cluster)
            await asyncio.sleep(0.05)
            b.api.away = False
            await b.until(lambda: ROOT in b.api.objects)
            assert "not in order yet: away" in caplog.text
            assert tasks[1].cancelling() == 0, "Python 3.11.2 would end it at its next timeout"
            assert "Traceback" not in caplog.text, "it is nothing unexpected"
            for task in tasks:
                task.cancel()
        await b.store.close()

    asyncio.run(scenario())


def test_outdated_brokers_are_evicted_one_by_one_and_people_learn_why() -> None:
    def made(broker_id: int, revision: str, *, ready: bool = True) -> Object:
        obj = pod(broker_id, conditions=[{"type": "Ready", "status": "True" if ready else "False"}])
        obj["metadata"]["labels"]["controller-revision-hash"] = revision
        obj["spec"] = {"nodeName": "n1", "containers": [{"name": "broker", "image": "old"}]}
        return obj

    async def scenario() -> None:
        async with bench() as b:
            await b.until(lambda: ROOT in b.api.objects)
            for broker_id in range(2):
                await b.api.put(f"{PODS}/demo-broker-{broker_id}", made(broker_id, "one"))
            status = {"updateRevision": "two", "observedGeneration": 1}
            await b.api.put(ROOT, {**b.api.objects[ROOT], "status": status})
            b.loop._wake.set()
            await b.until(lambda: f"{PODS}/demo-broker-0" not in b.api.objects)
            await b.api.put(f"{PODS}/demo-broker-0", made(0, "two", ready=False))
            await b.until_said("RollingUpdate", "waiting for broker 0")
            assert f"{PODS}/demo-broker-1" in b.api.objects
            await b.api.put(f"{PODS}/demo-broker-0", made(0, "two"))
            await b.until(lambda: f"{PODS}/demo-broker-1" not in b.api.objects)
            await b.api.put(f"{PODS}/demo-broker-1", made(1, "two"))
            await b.until(lambda: "RollingUpdate" not in b.conditions())
            messages = [n.message for n in b.notices if n.reason == "BrokerRestarted"]
            assert [message.split(": ")[0] for message in messages] == [
                "restarting broker 0",
                "restarting broker 1",
            ]
            assert "image old becomes example.org/strandline:1.2.3" in messages[0]

    asyncio.run(scenario())


def test_a_spec_at_which_nobody_has_looked_is_not_called_done() -> None:
    async def scenario() -> None:
        async with bench() as b:
            await b.until(lambda: ROOT in b.api.objects)
            status = {"updateRevision": "one", "observedGeneration": 1}
            await b.api.put(ROOT, {**b.api.objects[ROOT], "status": status})
            b.loop._wake.set()
            await b.until_said("Reconciling", "0 of 2 brokers run")
            b.api.away = True
            await b.respec(config={"retention.ms": "1"})
            await b.until(
                lambda: (
                    b.controller.view.cluster and b.controller.view.cluster.status["observedGeneration"] == 2
                )
            )
            assert b.conditions()["Reconciling"] == "brokers are brought in line with the spec"
            b.api.away = False
            await b.until_said("Reconciling", "0 of 2 brokers run")

    asyncio.run(scenario())


def test_a_restart_is_under_way_also_before_the_pod_shows_it() -> None:
    def made(broker_id: int) -> Object:
        obj = pod(broker_id, conditions=[{"type": "Ready", "status": "True"}])
        obj["metadata"]["uid"] = f"u{broker_id}"
        obj["spec"] = {"containers": []}
        return obj

    async def scenario() -> None:
        api = FakeApi()
        pods = [made(0), made(1)]
        await api.put(f"{PODS}/demo-broker-0", pods[0])
        b = Bench()
        rolling = RollingUpdate(
            KubernetesClient(cast(KubernetesApi, api)), b.controller, "shop", "demo", b.notices.append
        )
        stateful_set: Object = {
            "metadata": {"generation": 2},
            "spec": {"replicas": 2, "template": {"metadata": {}, "spec": {}}},
            "status": {"updateRevision": "two", "observedGeneration": 1},
        }
        unseen = await rolling.step(stateful_set, pods)
        assert not unseen.done
        assert [trouble.reason for trouble in unseen.troubles] == ["Applying"]
        stateful_set["status"]["observedGeneration"] = 2
        for _ in range(2):
            progress = await rolling.step(stateful_set, pods)
            assert [trouble.message.split(":")[0] for trouble in progress.troubles] == ["restarting broker 0"]
        assert len(b.notices) == 1
        await b.store.close()

    asyncio.run(scenario())


def test_volumes_grow_one_by_one_claim_and_the_template_stays() -> None:
    async def scenario() -> None:
        async with bench(storage={"size": "10Gi"}) as b:
            await b.until(lambda: ROOT in b.api.objects)
            claims = "/api/v1/namespaces/shop/persistentvolumeclaims"
            labels = {"strandline.io/cluster": "demo"}
            for broker_id, storage_class in enumerate(("fast", "local")):
                await b.api.put(
                    f"{claims}/data-demo-broker-{broker_id}",
                    {
                        "metadata": {"name": f"data-demo-broker-{broker_id}", "labels": labels},
                        "spec": {
                            "storageClassName": storage_class,
                            "resources": {"requests": {"storage": "10Gi"}},
                        },
                    },
                )
            classes = "/apis/storage.k8s.io/v1/storageclasses"
            await b.api.put(f"{classes}/fast", {"metadata": {"name": "fast"}, "allowVolumeExpansion": True})
            await b.respec(storage={"size": "15Gi"})
            await b.until(lambda: "VolumesCannotGrow" in b.conditions())
            sizes = [
                b.api.objects[f"{claims}/data-demo-broker-{i}"]["spec"]["resources"]["requests"]["storage"]
                for i in range(2)
            ]
            assert sizes == ["15Gi", "10Gi"]
            assert "data-demo-broker-1" in b.conditions()["VolumesCannotGrow"]
            (template,) = b.api.objects[ROOT]["spec"]["volumeClaimTemplates"]
            assert template["spec"]["resources"]["requests"]["storage"] == "10Gi"

    asyncio.run(scenario())
