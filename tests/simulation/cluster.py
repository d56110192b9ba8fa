"""A simulated cluster: machines with brokers, controllers, a store, and the network between all of them."""

from __future__ import annotations

import contextvars
import random
from typing import TYPE_CHECKING, Any

from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.network import SimNetwork
from tests.simulation.node import PORT, Node
from tests.simulation.seams import SimClock
from tests.simulation.store import MemoryStore, StoreFaults, StorePath
from tests.simulation.store_server import StoreServer

from strandline_broker.cluster.model import CLUSTER, TOPIC, PartitionSet, new_object
from strandline_broker.cluster.store import Unavailable
from strandline_operator.controller.loop import Controller

if TYPE_CHECKING:
    from tests.simulation.bucket import Bucket
    from tests.simulation.journal import Journal

BROKER_SETTINGS = {
    "lease_duration_ms": "4000",
    "lease_renew_ms": "1200",
    "log_cleaner_enable": "false",
    "group_initial_rebalance_delay_ms": "300",
    "replica_high_watermark_checkpoint_interval_ms": "2000",
    "log_retention_check_interval_ms": "5000",
    "replica_lag_time_max_ms": "2000",
    "replica_fetch_wait_max_ms": "1000",
    "shutdown_timeout_ms": "5000",
}


class ControllerHost:
    """A machine for controllers. Its process may be killed, paused, and started anew."""

    def __init__(self, cluster: Cluster, number: int, rng: random.Random) -> None:
        self.cluster = cluster
        self.host = f"controller-{number}"
        self.rng = rng
        self.lives = 0
        self.process: Process | None = None
        self.controller: Controller | None = None

    def start(self) -> None:
        """Start a controller, unless one runs here."""
        if self.process is not None:
            return
        cluster = self.cluster
        self.lives += 1
        self.process = process = Process(cluster.loop, f"{self.host}.{self.lives}")
        process.on_end(cluster.network)
        cluster.journal.event(f"{process.name} starts")
        process.spawn(self._run(process), "run")

    async def _run(self, process: Process) -> None:
        cluster = self.cluster
        clock = SimClock(cluster.loop)
        self.controller = Controller(
            cluster.store_for(self.host, process),
            cluster.name,
            monotonic=clock.monotonic,
            now_ms=clock.now_ms,
            notify=lambda notice: cluster.journal.count("notices"),
            rng=random.Random(self.rng.random()),
            placement_patience_s=3.0,
        )
        await self.controller.run()

    def kill(self) -> None:
        """End the process."""
        process, self.process = self.process, None
        if process is not None:
            self.cluster.journal.event(f"{process.name} ends")
            process.kept.append(self.controller)
            self.controller = None
            process.kill()


class Cluster:
    """See the module. Everything random comes from `rng`, in an order that the schedule alone decides."""

    def __init__(self, loop: VirtualLoop, journal: Journal, rng: random.Random, *, brokers: int) -> None:
        self.loop = loop
        self.journal = journal
        self.name = "sim"
        self.context = contextvars.Context()
        self.network = SimNetwork(loop, random.Random(rng.random()))
        self.store_faults = StoreFaults()
        self.clock = SimClock(loop)
        self.server = StoreServer(
            random.Random(rng.random()), now_ms=self.clock.now_ms, time=loop.time, history=200
        )
        self.broker_settings = dict(BROKER_SETTINGS)
        self.paths: dict[str, StorePath] = {}
        self.stores: dict[str, MemoryStore] = {}
        self._rng = random.Random(rng.random())
        self.nodes = [Node(self, number, random.Random(rng.random())) for number in range(brokers)]
        self.controllers = [ControllerHost(self, number, random.Random(rng.random())) for number in range(2)]
        self.bucket: Bucket | None = None
        """Where sealed segments go, if the schedule tiers; set before brokers start."""
        self.tells_of_ends = True
        """Whether somebody (a kubelet) tells controllers of processes that ended."""

    @property
    def bootstrap(self) -> list[tuple[str, int]]:
        """Addresses of all brokers."""
        return [(node.host, PORT) for node in self.nodes]

    def store_for(self, host: str, process: Process) -> MemoryStore:
        """Return a new client of the store for a process on `host`."""
        path = self.paths.get(host)
        if path is None:
            path = self.paths[host] = StorePath(
                self.loop, self.network.links, host, random.Random(self._rng.random()), self.store_faults
            )
        store = MemoryStore(self.server, path)
        self.stores[host] = store
        process.on_end(_StoreEnd(store))
        return store

    def admin_store(self) -> MemoryStore:
        """Return a client of the store that nothing gets in the way of."""
        return MemoryStore(self.server)

    def set_store_away(self, *, away: bool) -> None:
        """Let the store go or come back; watches end when it goes."""
        self.store_faults.away = away
        if away:
            for store in self.stores.values():
                store.end_watches(Unavailable("the cluster store is away"))

    def process_ended(self, node: Node) -> None:
        """Tell the controllers, if there is somebody who does: a kubelet knows before it starts a successor."""
        if self.tells_of_ends:
            for host in self.controllers:
                if host.process is not None and host.controller is not None and not host.process.paused:
                    self.loop.call_soon(host.controller.process_ended, node.id, context=host.process.context)

    async def create(self, replicas: int, config: dict[str, str], *, flush: str = "Fsync") -> None:
        """Make the Cluster object."""
        spec: dict[str, Any] = {"replicas": replicas, "config": config, "flush": flush}
        if self.bucket is not None:
            spec["tiering"] = {"bucket": "s3://simulated"}
        await self.admin_store().create(CLUSTER, new_object(CLUSTER, self.name, spec))

    async def create_topic(self, name: str, partitions: int, replicas: int, config: dict[str, str]) -> None:
        """Apply a Topic, as a user does."""
        spec = {
            "clusterRef": {"name": self.name},
            "partitions": partitions,
            "replicas": replicas,
            "config": config,
        }
        await self.admin_store().create(TOPIC, new_object(TOPIC, name, spec))

    def partition_sets(self) -> list[PartitionSet]:
        """Return the truth of the store."""
        objects, _ = self.server.list_objects("PartitionSet")
        return [PartitionSet.from_object(obj) for obj in objects]

    def node(self, broker_id: int) -> Node:
        """Return the machine of a broker."""
        return self.nodes[broker_id]

    def end_all(self) -> None:
        """Kill everything, at the end of a schedule."""
        for node in self.nodes:
            node.kill()
        for host in self.controllers:
            host.kill()


class _StoreEnd:
    """Closes the store's client of a process that ended."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def process_ended(self, process: Process) -> None:
        self._store.forget()
