"""One simulated machine with a broker on it: what survives which end, and how it comes up again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.journal import Journal
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.peers import SimPeers
from tests.simulation.seams import SimClock, SimThreads

from strandline_broker.log.identity import IdentityError
from strandline_broker.log.names import LOG_START_CHECKPOINT, SEGMENT_SUFFIXES
from strandline_broker.seams.sim_disk import PowerLoss, SimDisk
from strandline_broker.server.broker import Broker
from strandline_broker.server.config import load

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

    from strandline_tiered.object_store import ObjectStore

PORT = 9092
PEER_PORT = 19092
RESTART_S = 1.0
_STOP_TIMEOUT_S = 30.0


def _gives_up(operation: str, path: str) -> bool:
    """Whether an operation of a disk belongs to giving up segments: the new log start, then the files."""
    if operation == "remove":
        return path.endswith(SEGMENT_SUFFIXES)
    return operation == "rename" and LOG_START_CHECKPOINT in path


class DiskSpeed:
    """How long blocking work takes on one machine."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.usual_s = (0.0003, 0.003)
        self.stall_s = 0.0
        """Up to so many seconds more."""

    def draw(self) -> float:
        """Return the time of one job."""
        low, high = self.usual_s
        return low + (high - low) * self._rng.random() + self.stall_s * self._rng.random()


class Node:
    """A machine: disk, clock, and at most one broker process. Every end says what is kept."""

    def __init__(self, cluster: Cluster, broker_id: int, rng: random.Random) -> None:
        self.cluster = cluster
        self.id = broker_id
        self.host = f"broker-{broker_id}"
        self.rng = rng
        self.loop: VirtualLoop = cluster.loop
        self.journal: Journal = cluster.journal
        self.clock = SimClock(self.loop)
        self.disk = SimDisk()
        self.speed = DiskSpeed(random.Random(rng.random()))
        self.boot = 1
        self.lives = 0
        self.broker: Broker | None = None
        self.process: Process | None = None
        self.stopping = False
        """Whether a clean stop is under way."""
        self.clean_stop = False
        """Whether the last life ended in a clean stop."""

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self.process is not None

    @property
    def ready(self) -> bool:
        """Whether the broker says that it is up."""
        return self.broker is not None and self.broker.ready

    def start(self) -> None:
        """Start the broker, unless it runs."""
        if self.process is not None:
            return
        self.lives += 1
        self.process = process = Process(self.loop, f"{self.host}.{self.lives}")
        process.on_end(self.cluster.network)
        self.journal.event(f"{process.name} starts")
        process.spawn(self._run(process), "run")

    async def _run(self, process: Process) -> None:
        cluster = self.cluster
        settings = {
            "broker_id": str(self.id),
            "cluster_name": cluster.name,
            "data_dir": "/simulated",
            "store": "sqlite::memory:",
            "listeners": f"PLAINTEXT://{self.host}:{PORT},BROKERS://{self.host}:{PEER_PORT}",
            "listener_security_protocol_map": "BROKERS:PLAINTEXT",
            "inter_broker_listener_name": "BROKERS",
            "inter_broker_token_file": "not used: connections between brokers come from `peers`",
            **cluster.broker_settings,
        }
        broker = Broker(
            load(None, [f"{key}={value}" for key, value in settings.items()], {}),
            clock=self.clock,
            rng=random.Random(self.rng.random()),
            disk=self.disk,
            network=cluster.network.of(self.host),
            store=cluster.store_for(self.host, process),
            threads=SimThreads(self.loop, self.speed.draw),
            boot_id=f"{self.host}-boot-{self.boot}",
            on_lost=self._lost,
            peers=SimPeers(cluster.network.of(self.host), self.host),
            bucket=self._bucket(),
        )
        self.broker = broker
        try:
            await broker.start()
        except (IdentityError, OSError) as error:
            self.journal.event(f"{process.name} cannot start: {error}")
            self.journal.count("failed starts")
            self.kill()
            self.loop.call_later(RESTART_S, self.start, context=cluster.context)
            return
        self.journal.event(f"{process.name} is running")

    def _bucket(self) -> ObjectStore | None:
        bucket = self.cluster.bucket
        return bucket.client(self.host, random.Random(self.rng.random())) if bucket is not None else None

    def _lost(self, reason: str) -> None:
        self.journal.event(f"{self.host} ends: {reason}")
        self.kill()
        self.loop.call_later(RESTART_S, self.start, context=self.cluster.context)

    # -- ends --

    def kill(self) -> None:
        """End the process only; the page cache stays."""
        if self._end():
            self.disk = self.disk.kill()

    def power_off(self, *, torn: bool) -> None:
        """Take the power away: unsynced writes, names and sizes are lost as the disk's dice fall."""
        self._end()
        self.disk = self.disk.crash(random.Random(self.rng.random()), torn=torn)
        self.boot += 1

    def wipe(self) -> None:
        """Lose the volume; the machine comes back with an empty one."""
        self._end()
        self.disk = SimDisk()
        self.boot += 1

    def power_off_within(self, operations: int, *, torn: bool) -> None:
        """Take the power away at one of the next disk operations, in the middle of whatever goes on."""
        disk = self.disk
        at = disk.operations + operations

        def stop(count: int, name: str, path: str) -> None:
            if count >= at and disk is self.disk:
                disk.on_operation = None
                self.journal.event(f"{self.host} loses its power at {name} {path}")
                self.power_off(torn=torn)
                raise PowerLoss(name)

        disk.on_operation = stop

    def trap_local_deletion(self, skip: int, spring: Callable[[], None]) -> None:
        """Have `spring`, which ends the broker, called at one of the next steps of giving up local segments."""
        disk = self.disk
        left = skip

        def stop(count: int, name: str, path: str) -> None:
            nonlocal left
            if disk is not self.disk or not _gives_up(name, path):
                return
            if left:
                left -= 1
                return
            disk.on_operation = None
            self.journal.event(f"{self.host} falls into a trap at {name} {path}")
            spring()
            raise PowerLoss(name)

        disk.on_operation = stop

    def _end(self) -> bool:
        process, self.process = self.process, None
        if process is None:
            return False
        self.journal.event(f"{process.name} ends")
        process.kept.append(self.broker)
        self.broker = None
        self.clean_stop = self.stopping = False
        process.kill()
        self.cluster.process_ended(self)
        return True

    async def stop(self) -> None:
        """Stop cleanly, as SIGTERM does; kill what takes too long."""
        broker, process = self.broker, self.process
        if broker is None or process is None:
            return
        if not broker.ready:
            self.kill()
            return
        self.stopping = True
        stopping = process.spawn(broker.stop(), "stop")
        await asyncio.wait([stopping], timeout=_STOP_TIMEOUT_S)
        if self.process is not process:
            return
        clean = stopping.done() and stopping.exception() is None
        self.journal.event(f"{process.name} stopped {'clean' if clean else 'not at all'}")
        self.kill()
        self.clean_stop = clean
