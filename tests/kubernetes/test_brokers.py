"""Broker processes and a controller whose only common ground is a namespace of a real API server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer
from tests.kubernetes import api as cluster
from tests.unit.cluster.support import run, topic_object

from strandline_broker.cluster.kubernetes_store import KubernetesStore
from strandline_broker.cluster.model import CLUSTER, TOPIC, new_object
from strandline_broker.cluster.view import ClusterView
from strandline_operator.controller.loop import Controller

pytestmark = pytest.mark.kubernetes
BROKERS, PARTITIONS = 3, 3


def settings_of(broker_id: int, folder: Path, namespace: str) -> list[str]:
    return [
        f"broker_id={broker_id}",
        f"data_dir={folder / f'broker-{broker_id}'}",
        "store=kubernetes",
        f"namespace={namespace}",
        "listeners=PLAINTEXT://127.0.0.1:0,INTERNAL://127.0.0.1:0",
        "listener_security_protocol_map=INTERNAL:PLAINTEXT",
        "inter_broker_listener_name=INTERNAL",
        f"inter_broker_token_file={folder / 'token'}",
        "http_port=-1",
    ]


class Processes:
    """Broker processes by id."""

    def __init__(self, folder: Path, namespace: str, kubeconfig: str) -> None:
        (folder / "token").write_text(secrets.token_urlsafe(48))
        self._folder, self._namespace = folder, namespace
        self._environment = {**os.environ, "KUBECONFIG": kubeconfig}
        self._environment.pop("KUBERNETES_SERVICE_HOST", None)
        self.running: dict[int, asyncio.subprocess.Process] = {}

    async def start(self, broker_id: int) -> None:
        settings = settings_of(broker_id, self._folder, self._namespace)
        arguments = [argument for setting in settings for argument in ("--set", setting)]
        with (self._folder / f"broker-{broker_id}.log").open("ab") as log:
            self.running[broker_id] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "strandline_operator.cli", "broker", *arguments,
                stdout=log, stderr=log, env=self._environment,
            )  # fmt: skip

    async def stop(self, broker_id: int, number: int) -> int:
        process = self.running.pop(broker_id)
        process.send_signal(number)
        return await process.wait()

    async def stop_all(self) -> None:
        for broker_id in tuple(self.running):
            await self.stop(broker_id, signal.SIGKILL)


@contextlib.asynccontextmanager
async def controlled(store: KubernetesStore) -> AsyncIterator[ClusterView]:
    controller = Controller(
        store,
        "dev",
        monotonic=time.monotonic,
        now_ms=lambda: time.time_ns() // 1_000_000,
        notify=lambda notice: None,
    )
    task = asyncio.create_task(controller.run())
    try:
        yield controller.view
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def led(view: ClusterView, brokers: int) -> bool:
    topic = view.topic_by_name("a")
    return topic is not None and all(
        state.leader >= 0 and len(state.isr) == brokers for _, state in topic.partitions()
    )


def bootstrap(view: ClusterView) -> str:
    addresses = [lease.listeners["PLAINTEXT"] for lease in view.leases.values() if lease.held]
    return ",".join(f"{host}:{port}" for host, port in addresses)


class Load(threading.Thread):
    """Produces numbered records, with acks=all, until it is stopped; remembers which were acknowledged."""

    def __init__(self, servers: str) -> None:
        super().__init__()
        self._producer = Producer({"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": 5})
        self._end = threading.Event()
        self.acknowledged: dict[int, float] = {}

    def run(self) -> None:
        number = 0
        while not self._end.is_set():
            self._producer.produce("a", str(number).encode(), on_delivery=self._delivered)
            number += 1
            self._producer.poll(0.002)
        assert self._producer.flush(60) == 0

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        value = message.value()
        if error is None and value is not None:
            self.acknowledged[int(value)] = time.monotonic()

    def finish(self) -> None:
        self._end.set()
        self.join()


def read_all(servers: str) -> list[int]:
    consumer = Consumer(
        {
            "bootstrap.servers": servers, "group.id": "g", "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )  # fmt: skip
    consumer.subscribe(["a"])
    found: list[int] = []
    ended: set[int | None] = set()
    while len(ended) < PARTITIONS:
        message = consumer.poll(30)
        assert message is not None, "nothing to read"
        error, value = message.error(), message.value()
        if error is None:
            assert value is not None
            found.append(int(value))
        else:
            assert error.code() == KafkaError._PARTITION_EOF, error
            ended.add(message.partition())
    consumer.close()
    return found


def test_a_cluster_of_processes_survives_the_end_of_a_leader(
    kubeconfig: str, namespace: str, tmp_path: Path
) -> None:
    async def body() -> None:
        store = KubernetesStore(cluster.open_api(kubeconfig), namespace)
        processes = Processes(tmp_path, namespace, kubeconfig)
        try:
            async with controlled(store) as view:
                await store.create(CLUSTER, new_object(CLUSTER, "dev", {"replicas": BROKERS}))
                config = {"min.insync.replicas": "2"}
                await store.create(
                    TOPIC, topic_object("a", partitions=PARTITIONS, replicas=BROKERS, config=config)
                )
                for broker_id in range(BROKERS):
                    await processes.start(broker_id)
                await view.wait_until(lambda view: led(view, BROKERS), 60)
                servers = bootstrap(view)
                load = Load(servers)
                load.start()
                try:
                    while len(load.acknowledged) < 500:
                        await asyncio.sleep(0.01)
                    # Not seen by any kubelet: only its Lease tells.
                    await processes.stop(0, signal.SIGKILL)
                    await view.wait_until(lambda view: led(view, BROKERS - 1), 60)
                    before = len(load.acknowledged)
                    while len(load.acknowledged) < before + 500:
                        await asyncio.sleep(0.01)
                    await processes.start(0)
                    await view.wait_until(lambda view: led(view, BROKERS), 60)
                    assert await processes.stop(1, signal.SIGTERM) == 0
                finally:
                    await asyncio.to_thread(load.finish)
                found = await asyncio.to_thread(read_all, bootstrap(view))
                assert len(found) == len(set(found)), "idempotent producers repeat nothing"
                assert load.acknowledged.keys() <= set(found)
        finally:
            await processes.stop_all()
            await store.close()

    run(body(), timeout_s=240)
