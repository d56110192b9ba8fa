"""KubernetesStore keeps the contract on a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.kubernetes import api as cluster
from tests.unit.cluster.store_contract import StoreContract, collect, names, put
from tests.unit.cluster.support import add, replace, run, topic_object

from strandline_broker.cluster.kubernetes_access import from_kubeconfig
from strandline_broker.cluster.kubernetes_api import KubernetesApi
from strandline_broker.cluster.kubernetes_store import KubernetesStore
from strandline_broker.cluster.lease_keeper import LeaseKeeper, micro_time
from strandline_broker.cluster.model import LEASE, TOPIC, BrokerLease, BrokerPhase, Endpoint, new_object
from strandline_broker.cluster.store import ClusterStore, Invalid, Unavailable

pytestmark = pytest.mark.kubernetes


class TestKubernetesStore(StoreContract):
    kubeconfig = ""
    namespace = ""

    @pytest.fixture(autouse=True)
    def _place(self, kubeconfig: str, namespace: str) -> None:
        self.kubeconfig, self.namespace = kubeconfig, namespace

    async def open_store(self, place: Path, *, small_history: bool = False) -> ClusterStore:
        return KubernetesStore(KubernetesApi(from_kubeconfig(Path(self.kubeconfig))), self.namespace)


def test_a_broker_takes_renews_and_releases_its_lease(kubeconfig: str, namespace: str) -> None:
    async def body() -> None:
        store = KubernetesStore(cluster.open_api(kubeconfig), namespace)
        lease = BrokerLease(1, "first", 5, {"PLAIN": Endpoint("h", 9092)}, cluster="dev")
        keeper = LeaseKeeper(store, lease, on_lost=lambda _: None)
        await keeper.acquire()
        await keeper.set_state(BrokerPhase.RUNNING)
        found = BrokerLease.from_object((await store.list(LEASE))[0][0])
        assert (found.held, found.state, found.transitions) == (True, BrokerPhase.RUNNING, 0)
        await keeper.release()
        assert not BrokerLease.from_object(await store.get(LEASE, lease.name)).held
        second = BrokerLease(1, "second", 5, {"PLAIN": Endpoint("h", 9092)}, cluster="dev")
        await LeaseKeeper(store, second, on_lost=lambda _: None).acquire()
        found = BrokerLease.from_object(await store.get(LEASE, lease.name))
        assert (found.incarnation, found.transitions) == ("second", 1)
        await store.close()

    run(body())


def test_leases_of_others_are_neither_listed_nor_watched(kubeconfig: str, namespace: str) -> None:
    async def body() -> None:
        store = KubernetesStore(cluster.open_api(kubeconfig), namespace)
        _, version = await store.list(LEASE)
        foreign = {"holderIdentity": "x", "renewTime": micro_time()}
        await store.create(LEASE, new_object(LEASE, "somebody", foreign))
        lease = BrokerLease(1, "a", 1, {}, cluster="dev", acquire_time=micro_time(), renew_time=micro_time())
        await store.create(LEASE, lease.to_object())
        objects, _ = await store.list(LEASE)
        assert [(obj["metadata"]["name"], obj["kind"]) for obj in objects] == [("dev-broker-1", LEASE)]
        assert names(await collect(store.watch(LEASE, version), 1)) == [("ADDED", "dev-broker-1")]
        await store.close()

    run(body())


def test_a_list_of_many_pages_is_one_state(kubeconfig: str, namespace: str) -> None:
    async def body() -> None:
        store = KubernetesStore(cluster.open_api(kubeconfig), namespace)
        expected = sorted(f"t{index}" for index in range(120))
        await asyncio.gather(*(store.create(TOPIC, topic_object(name)) for name in expected))
        objects, version = await store.list(TOPIC)
        assert [obj["metadata"]["name"] for obj in objects] == expected
        await store.create(TOPIC, topic_object("later"))
        assert names(await collect(store.watch(TOPIC, version), 1)) == [("ADDED", "later")]
        await store.close()

    run(body())


def test_what_the_schema_or_a_rule_refuses_is_invalid_with_its_words(kubeconfig: str, namespace: str) -> None:
    async def body() -> None:
        store = KubernetesStore(cluster.open_api(kubeconfig), namespace)
        topic = await store.create(TOPIC, topic_object("a", partitions=3))
        with pytest.raises(Invalid, match="partitions cannot be decreased"):
            await put(store, topic, replace("/spec/partitions", 2), tests=[("/spec/partitions", 3)])
        with pytest.raises(Invalid, match="replicas"):
            await put(store, topic, replace("/spec/replicas", 0))
        with pytest.raises(Invalid, match="partitoins"):
            await store.create(TOPIC, topic_object("b", partitoins=3))
        with pytest.raises(Invalid, match="partitoins"):
            await put(store, topic, add("/spec/partitoins", 3))
        await store.close()

    run(body())


def test_a_namespace_or_kind_that_is_not_there_is_no_absent_object(kubeconfig: str) -> None:
    async def body() -> None:
        api = cluster.open_api(kubeconfig)
        store = KubernetesStore(api, "no-such-namespace-of-ours")
        with pytest.raises(Unavailable, match="namespaces"):
            await store.create(TOPIC, topic_object("a"))
        with pytest.raises(Unavailable, match="404"):
            await api.request("GET", "/apis/strandline.io/v1alpha1/namespaces/default/things/a")
        await store.close()

    run(body())


def test_a_watch_sees_a_write_soon_after_its_answer(kubeconfig: str, namespace: str) -> None:
    """Not a benchmark: a watch that polls, or that buffers, would take far longer than this."""

    async def body() -> list[float]:
        store = KubernetesStore(cluster.open_api(kubeconfig), namespace)
        loop = asyncio.get_running_loop()
        obj = await store.create(TOPIC, topic_object("a"))
        _, version = await store.list(TOPIC)
        seen: dict[int, float] = {}
        watch = store.watch(TOPIC, version)

        async def follow(events: AsyncGenerator[Any, None]) -> None:
            async for event in events:
                seen[event.object["spec"]["partitions"]] = loop.time()
                if len(seen) == 20:
                    return

        following = asyncio.create_task(follow(watch))
        answered: dict[int, float] = {}
        for count in range(2, 22):
            await put(store, obj, replace("/spec/partitions", count))
            answered[count] = loop.time()
        await following
        await watch.aclose()
        await store.close()
        return sorted(seen[count] - answered[count] for count in answered)

    delays = run(body())
    assert delays[10] < 0.2, f"median {1000 * delays[10]:.1f} ms, worst {1000 * delays[-1]:.1f} ms"
