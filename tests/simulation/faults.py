"""Makes the steps of a schedule happen, and undoes in the end whatever is still wrong."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from tests.simulation.bucket import Trap
from tests.simulation.schedule import Step
from tests.simulation.store import STORE_HOST

from strandline_broker.cluster.store import Gone, Unavailable

if TYPE_CHECKING:
    from tests.simulation.admin import Admin
    from tests.simulation.cluster import Cluster
    from tests.simulation.node import Node
    from tests.simulation.probes import Probes

CLOCK_OFF_MS = 3_600_000
_USUAL_CAPACITY = 1 << 40


class Faults:
    """See the module. Every step runs in a task of its own; `heal` ends them all."""

    def __init__(self, cluster: Cluster, admin: Admin, probes: Probes, clients: list[str]) -> None:
        self.cluster = cluster
        self.admin = admin
        self.probes = probes
        self.clients = clients
        self.journal = cluster.journal
        self._tasks: list[asyncio.Task[None]] = []
        self._cuts: dict[tuple[str, str], int] = {}
        self._actions: dict[str, Callable[[dict[str, Any]], Coroutine[Any, Any, None]]] = {
            "kill": self._kill,
            "power-off": self._power_off,
            "stop": self._stop,
            "wipe": self._wipe,
            "pause": self._pause,
            "cut-brokers": self._cut_hosts,
            "isolate": self._isolate,
            "cut-controller": self._cut_hosts,
            "cut-client": self._cut_client,
            "reset": self._reset,
            "slow-link": self._slow_link,
            "slow-disk": self._slow_disk,
            "full-disk": self._full_disk,
            "failing-sync": self._failing_sync,
            "store": self._store,
            "watch-lag": self._watch_lag,
            "end-watches": self._end_watches,
            "clock": self._clock,
            "controller": self._controller,
            "blackout": self._blackout,
            "power-cut": self._power_cut,
            "elect-preferred": self.admin.elect_preferred,
            "min-isr": self.admin.set_min_isr,
            "reassign": self.admin.reassign,
            "add-partitions": self.admin.add_partitions,
            "create-topic": self.admin.create_topic,
            "delete-records": self.admin.delete_records,
            "bucket": self._bucket,
            "cut-bucket": self._cut_hosts,
            "trap": self._trap,
            "local-trap": self._local_trap,
            "unclean": self._unclean,
        }

    async def run(self, steps: tuple[Step, ...]) -> None:
        """Do every step at its time."""
        loop = self.cluster.loop
        for step in steps:
            await asyncio.sleep(max(0.0, step.at - loop.time()))
            self.journal.event(f"-- {step.kind} {step.details}")
            self.journal.count(f"fault {step.kind}")
            self._tasks.append(loop.create_task(self._actions[step.kind](step.details)))

    async def heal(self) -> None:
        """Undo everything: no fault is left, and everybody is started."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        cluster = self.cluster
        for (source, target), count in self._cuts.items():
            for _ in range(count):
                cluster.network.heal(source, target)
        self._cuts.clear()
        cluster.network.links.slow.clear()
        faults = cluster.store_faults
        faults.away = False
        faults.refused = faults.lost_answer = faults.late_write = 0.0
        for path in cluster.paths.values():
            path.lag_s = 0.0
        if cluster.bucket is not None:
            cluster.bucket.heal()
        for node in cluster.nodes:
            node.speed.stall_s = 0.0
            node.disk.capacity = _USUAL_CAPACITY
            node.disk.clear_faults()
            node.disk.on_operation = None
            if node.process is not None:
                node.process.resume()
            if node.stopping:
                node.kill()
            node.start()
        for host in cluster.controllers:
            if host.process is not None:
                host.process.resume()
        cluster.controllers[1].kill()
        cluster.controllers[0].start()
        self.journal.event("-- healed")

    def failures(self) -> list[BaseException]:
        """Return what went wrong in the faults themselves."""
        return [
            error
            for task in self._tasks
            if task.done() and not task.cancelled() and (error := task.exception()) is not None
        ]

    # -- brokers -------------------------------------------------------------------------------------------------------

    def _node(self, details: dict[str, Any]) -> Node:
        number: int = details["node"]
        return self.cluster.nodes[number]

    async def _come_back(self, node: Node, after_s: float) -> None:
        await asyncio.sleep(after_s)
        node.start()

    async def _kill(self, details: dict[str, Any]) -> None:
        node = self._node(details)
        node.kill()
        await self._come_back(node, details["down"])

    async def _power_off(self, details: dict[str, Any]) -> None:
        node = self._node(details)
        await self._fall_behind([node], details["stall"])
        if details["within"] and node.running:
            life = node.lives
            node.power_off_within(details["within"], torn=details["torn"])
            for _ in range(100):
                if node.process is None or node.lives != life:
                    break
                await asyncio.sleep(0.05)
            else:
                node.power_off(torn=details["torn"])
        else:
            node.power_off(torn=details["torn"])
        await self._come_back(node, details["down"])

    async def _stop(self, details: dict[str, Any]) -> None:
        node = self._node(details)
        await self._stop_clean(node)
        await self._come_back(node, details["down"])

    async def _stop_clean(self, node: Node) -> None:
        life = node.lives
        await node.stop()
        if node.clean_stop and node.lives == life and not node.running:
            self.probes.stopped_clean(node)

    async def _wipe(self, details: dict[str, Any]) -> None:
        node = self._node(details)
        node.wipe()
        await self._come_back(node, details["down"])

    async def _pause(self, details: dict[str, Any]) -> None:
        process = self._node(details).process
        if process is not None:
            process.pause()
            await asyncio.sleep(details["lasts"])
            process.resume()

    async def _clock(self, details: dict[str, Any]) -> None:
        # Never off by more than an hour: such a broker rightly refuses what its clients write, as of the future
        # (`message.timestamp.after.max.ms`).
        clock = self._node(details).clock
        clock.jump_ms = max(-CLOCK_OFF_MS, min(clock.jump_ms + details["ms"], CLOCK_OFF_MS))

    async def _fall_behind(self, nodes: list[Node], stall_s: float) -> None:
        """Let disks be slow for a moment, so that something is not synced when the power goes."""
        if stall_s:
            for node in nodes:
                node.speed.stall_s = stall_s
            await asyncio.sleep(1.5 * stall_s)
            for node in nodes:
                node.speed.stall_s = 0.0

    async def _power_cut(self, details: dict[str, Any]) -> None:
        await self._fall_behind(self.cluster.nodes, details["stall"])
        for node in self.cluster.nodes:
            node.power_off(torn=details["torn"])
        await asyncio.gather(
            *(
                self._come_back(node, down)
                for node, down in zip(self.cluster.nodes, details["down"], strict=True)
            )
        )

    # -- the network ---------------------------------------------------------------------------------------------------

    async def _cut(self, pairs: list[tuple[str, str]], lasts: float) -> None:
        for pair in pairs:
            self._cuts[pair] = self._cuts.get(pair, 0) + 1
            self.cluster.network.cut(*pair)
        await asyncio.sleep(lasts)
        for pair in pairs:
            self._cuts[pair] -= 1
            self.cluster.network.heal(*pair)

    async def _cut_hosts(self, details: dict[str, Any]) -> None:
        first, second = details["hosts"]
        pairs = [(first, second)]
        if details["both"]:
            pairs.append((second, first))
        if details["reset"]:
            self.cluster.network.reset(first, second)
        await self._cut(pairs, details["lasts"])

    async def _isolate(self, details: dict[str, Any]) -> None:
        host = self._node(details).host
        others: list[str] = []
        if details["store"] != "only":
            others += [node.host for node in self.cluster.nodes if node.host != host]
        if details["store"] != "no":
            others.append(STORE_HOST)
        pairs = [pair for other in others for pair in ((host, other), (other, host))]
        await self._cut(pairs, details["lasts"])

    async def _cut_client(self, details: dict[str, Any]) -> None:
        client = self.clients[details["client"] % len(self.clients)]
        host = self._node(details).host
        pairs = [(host, client)]
        if details["both"]:
            pairs.append((client, host))
        await self._cut(pairs, details["lasts"])

    async def _reset(self, details: dict[str, Any]) -> None:
        host = self._node(details).host
        network = self.cluster.network
        others = self.clients if details["clients"] else [node.host for node in self.cluster.nodes]
        for other in others:
            if other != host:
                network.reset(host, other)

    async def _slow_link(self, details: dict[str, Any]) -> None:
        first, second = details["hosts"]
        slow = self.cluster.network.links.slow
        slow[first, second] = slow[second, first] = details["extra"]
        await asyncio.sleep(details["lasts"])
        slow.pop((first, second), None)
        slow.pop((second, first), None)

    # -- disks ---------------------------------------------------------------------------------------------------------

    async def _slow_disk(self, details: dict[str, Any]) -> None:
        speed = self._node(details).speed
        speed.stall_s = details["stall"]
        await asyncio.sleep(details["lasts"])
        speed.stall_s = 0.0

    async def _full_disk(self, details: dict[str, Any]) -> None:
        node = self._node(details)
        used = node.disk.capacity - node.disk.free_bytes()
        node.disk.capacity = used + details["room"]
        await asyncio.sleep(details["lasts"])
        node.disk.capacity = _USUAL_CAPACITY

    async def _failing_sync(self, details: dict[str, Any]) -> None:
        node = self._node(details)
        node.disk.fail_next(
            "datasync", errno.EIO, skip=details["skip"], times=details["times"], path_part=".log"
        )

    # -- the store and the controllers ---------------------------------------------------------------------------------

    async def _store(self, details: dict[str, Any]) -> None:
        faults = self.cluster.store_faults
        what = details["what"]
        if what == "away":
            self.cluster.set_store_away(away=True)
            await asyncio.sleep(details["lasts"])
            self.cluster.set_store_away(away=False)
        else:
            setattr(faults, what, details["chance"])
            await asyncio.sleep(details["lasts"])
            setattr(faults, what, 0.0)

    async def _watch_lag(self, details: dict[str, Any]) -> None:
        path = self.cluster.paths.get(details["host"])
        if path is not None:
            path.lag_s = details["lag"]
            await asyncio.sleep(details["lasts"])
            path.lag_s = 0.0

    async def _end_watches(self, details: dict[str, Any]) -> None:
        store = self.cluster.stores.get(details["host"])
        errors = {"end": None, "gone": Gone("compacted"), "unavailable": Unavailable("too many requests")}
        if store is not None:
            store.end_watches(errors[details["how"]])

    async def _controller(self, details: dict[str, Any]) -> None:
        first, second = self.cluster.controllers
        if details["how"] == "restart":
            first.kill()
            await asyncio.sleep(details["lasts"])
            first.start()
        elif details["how"] == "pause":
            if first.process is not None:
                process = first.process
                process.pause()
                await asyncio.sleep(details["lasts"])
                process.resume()
        else:
            second.start()
            await asyncio.sleep(details["lasts"])
            second.kill()

    async def _blackout(self, details: dict[str, Any]) -> None:
        """Start brokers anew while the store is away; they come back before it does."""
        cluster = self.cluster
        cluster.set_store_away(away=True)
        cluster.loop.call_later(details["lasts"] + 1.5, lambda: cluster.set_store_away(away=False))
        await asyncio.sleep(0.5)
        nodes = [self.cluster.nodes[number] for number in details["nodes"]]
        if details["how"] == "stop":
            await asyncio.gather(*(self._stop_clean(node) for node in nodes))
        for node in nodes:
            if details["how"] == "power":
                node.power_off(torn=True)
            else:
                node.kill()
        await asyncio.sleep(0.5)
        for node in nodes:
            node.start()

    # -- the bucket ----------------------------------------------------------------------------------------------------

    async def _bucket(self, details: dict[str, Any]) -> None:
        bucket = self.cluster.bucket
        assert bucket is not None, "a schedule that tiers"
        bucket.set_faults(details["hosts"], details["rates"], details["requests"])
        await asyncio.sleep(details["lasts"])
        bucket.set_faults(details["hosts"], {})

    async def _trap(self, details: dict[str, Any]) -> None:
        """Wait until a broker asks for something, and let what is to befall it befall it there and then."""
        bucket = self.cluster.bucket
        assert bucket is not None, "a schedule that tiers"
        sprung: asyncio.Future[Node] = self.cluster.loop.create_future()

        def spring(host: str) -> None:
            node = next(node for node in self.cluster.nodes if node.host == host)
            self.journal.event(f"{host} falls into the trap at {details['request']}")
            self.journal.count("traps sprung")
            self._befall(node, details["how"])
            if not sprung.done():
                sprung.set_result(node)

        bucket.traps.append(Trap(details["request"], details["skip"], details["when"], spring))
        await self._recover(await sprung, details)

    async def _local_trap(self, details: dict[str, Any]) -> None:
        node = self._node(details)
        sprung: asyncio.Future[Node] = self.cluster.loop.create_future()

        def spring() -> None:
            self.journal.count("traps sprung")
            self._befall(node, details["how"])
            if not sprung.done():
                sprung.set_result(node)

        node.trap_local_deletion(details["skip"], spring)
        await self._recover(await sprung, details)

    def _befall(self, node: Node, how: str) -> None:
        if how == "kill":
            node.kill()
        elif how == "power":
            node.power_off(torn=True)
        elif how == "pause" and node.process is not None:
            node.process.pause()
        elif how == "isolate":
            for pair in self._ways(node.host, STORE_HOST):
                self._cuts[pair] = self._cuts.get(pair, 0) + 1
                self.cluster.network.cut(*pair)

    @staticmethod
    def _ways(first: str, second: str) -> tuple[tuple[str, str], tuple[str, str]]:
        return (first, second), (second, first)

    async def _recover(self, node: Node, details: dict[str, Any]) -> None:
        process = node.process
        await asyncio.sleep(details["lasts"])
        if details["how"] == "isolate":
            for pair in self._ways(node.host, STORE_HOST):
                self._cuts[pair] -= 1
                self.cluster.network.heal(*pair)
        elif details["how"] == "pause":
            if process is not None:
                process.resume()
        else:
            node.start()

    async def _unclean(self, details: dict[str, Any]) -> None:
        """Leave a leader alone with what it takes, then take it away: who lacks that leads."""
        cluster = self.cluster
        node = self._leader_of(details["topic"])
        if node is None:
            return
        others = [other.host for other in cluster.nodes if other is not node]
        alone = [pair for host in others for pair in self._ways(node.host, host)]
        self._tasks.append(cluster.loop.create_task(self._cut(alone, details["alone"] + details["lasts"])))
        await asyncio.sleep(details["alone"])
        self._befall(node, details["how"])
        await self._recover(node, details)

    def _leader_of(self, topic: str) -> Node | None:
        for slice_ in self.cluster.partition_sets():
            if slice_.topic_name == topic and slice_.partitions[0].leader >= 0:
                return self.cluster.node(slice_.partitions[0].leader)
        return None
