"""One broker from its configuration to its end: what is made, in which order, and how it stops.

Start (each step needs the ones before it):

    identity, logs recovered -> last known cluster state -> Kafka listeners -> Lease `starting`
    -> view of the store, partitions opened and led as it says -> what else the process has to do, if nobody waits
    -> Lease `running`

Stop: Lease `draining` -> the controller moves leaderships where it can, leaders take the broker out of their ISRs ->
listeners closed, open answers sent -> logs synced and closed clean -> Lease let go.

`server.run` is the process around it; tests may start several brokers in one loop.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from strandline_broker.api.dispatch import Dispatcher
from strandline_broker.api.handlers import build_registry
from strandline_broker.cluster.model import BrokerPhase, ReplicaRef
from strandline_broker.cluster.view import ClusterView
from strandline_broker.coordinator import groups
from strandline_broker.log.manager import LogManager
from strandline_broker.net.server import Server
from strandline_broker.server import log_dirs
from strandline_broker.server.bucket_keeper import BucketKeeper
from strandline_broker.server.bucket_watch import BucketWatch
from strandline_broker.server.cleaning import CleaningService
from strandline_broker.server.disk_threads import DiskThreads
from strandline_broker.server.disk_watch import DiskWatch
from strandline_broker.server.dynamic_config import DynamicConfig
from strandline_broker.server.endpoints import Endpoints
from strandline_broker.server.inter_broker import InterBroker, open_inter_broker
from strandline_broker.server.joining import hear_of_cluster, take_lease, while_nobody_waits
from strandline_broker.server.log_failures import LogFailures
from strandline_broker.server.producer_ids import ProducerIds
from strandline_broker.server.registration import Registration
from strandline_broker.server.replication import Replication
from strandline_broker.server.request_handlers import RequestHandlers
from strandline_broker.server.storage_health import StorageWatch
from strandline_broker.server.syncs import Syncs
from strandline_broker.server.tasks import Tasks
from strandline_broker.server.tiering import Tiering
from strandline_broker.server.upkeep import Upkeep
from strandline_broker.server.view_follower import ViewFollower
from strandline_broker.server.volume import Volume, write_incarnation

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from strandline_broker.api.context import LogDir
    from strandline_broker.cluster.store import ClusterStore
    from strandline_broker.coordinator.groups import GroupCoordinator
    from strandline_broker.peers.contract import Peers
    from strandline_broker.replica.partition import Partition
    from strandline_broker.seams.clock import Clock
    from strandline_broker.seams.disk import Disk
    from strandline_broker.seams.network import Network
    from strandline_broker.seams.threads import Threads
    from strandline_broker.server.config import BrokerConfig
    from strandline_tiered.object_store import ObjectStore

logger = logging.getLogger(__name__)


class Broker:
    """Implements `api.context.BrokerApi`. Create, `start`, and in the end `stop`."""

    def __init__(
        self,
        config: BrokerConfig,
        *,
        clock: Clock,
        rng: random.Random,
        disk: Disk,
        network: Network,
        store: ClusterStore,
        threads: Threads,
        boot_id: str,
        on_lost: Callable[[str], None],
        peers: Peers | None = None,
        bucket: ObjectStore | None = None,
    ) -> None:
        """`boot_id` names this boot of the kernel, empty if unknown.

        `bucket` is where sealed segments go; unset: where the configuration says, if it does.

        `peers` is where connections to other brokers come from; unset: sockets, where the configuration has a listener
        between brokers. Who sets it authenticates brokers in its own way.

        `on_lost` is called when this process must end: a successor runs under the same broker id, or a log lost what
        others count on.
        """
        self.config = config
        self.clock = clock
        self.rng = rng
        self.store = store
        self.registry = build_registry()
        self._disk = disk
        self._network = network
        self._threads = threads
        self._boot_id = boot_id
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self.disk_threads = DiskThreads(self._loop, threads)
        self.tasks = Tasks(self._loop)
        self.view = ClusterView(store, config.cluster_name, rng=rng)
        self.logs = LogManager(
            disk,
            clock,
            max_open_files=config.log_open_files_max,
            producer_expiration_ms=config.producer_id_expiration_ms,
            in_background=self.disk_threads.removals.submit,
        )
        self.storage = StorageWatch(
            disk, clock=clock, run_blocking=self.disk_threads.run, announce=self._announce_storage
        )
        self.disk_threads.on_error = self.storage.out_of_space
        self.logs.on_write_failed = self.storage.write_failed
        self.syncs = Syncs(
            self._loop,
            self.disk_threads.syncs,
            partition_of=lambda log: self.replicas.partition_of(log),  # noqa: PLW0108 - made later: they ask for syncs
            write_failed=self.storage.write_failed,
            on_failed=self._sync_failed,
        )
        self._producer_ids = ProducerIds(store, config.cluster_name, disk, rng, self.disk_threads.run)
        self._inter_broker: InterBroker | None = None
        self._peers = peers
        self._bucket = bucket
        self.tiering: Tiering | None = None
        self.keeper: BucketKeeper | None = None
        self.cleaning: CleaningService | None = None
        self.ready = False

    @property
    def cluster_id(self) -> str:
        """Id of the cluster, as clients are told it."""
        return self._volume.identity.cluster_id

    @property
    def groups(self) -> GroupCoordinator:
        """The groups that this broker coordinates."""
        return self.handlers.groups

    @property
    def own_ref(self) -> ReplicaRef:
        """This broker as ISRs name it."""
        return ReplicaRef(self.config.broker_id, self._volume.identity.generation)

    # -- start ---------------------------------------------------------------------------------------------------------

    async def start(self, prepare: Callable[[], asyncio.Future[None]] | None = None) -> None:
        """Come up as far as one can without a controller; returns when the Lease says `running`.

        `prepare` begins what this process has to do besides. It is waited for before this broker joins, while it already
        copies, as long as no partition waits for it: leaders that took it into their ISRs would wait for one that is busy.
        Whoever gave it learns by its future how it ended.

        Raises IdentityError, OSError (disk, address in use), StoreError.
        """
        config = self.config
        self._volume = await Volume.open(
            self._disk, config, self.rng, self.store, self.logs, self.disk_threads.run, self._boot_id
        )
        if (path := config.termination_message_file) is not None:
            # Which life this is, where whoever sees the process end can read it.
            await self.disk_threads.run(lambda: write_incarnation(path, self._volume.incarnation))
        await self._open_inter_broker()
        self._make_replication()
        knows_cluster = self._volume.load_view(self.view)
        self._make_handlers()
        dynamic_config = DynamicConfig(config, self.server, self.logs, self.replication.throttles, self.clock)
        self._view_follower = ViewFollower(
            self.view, dynamic_config=dynamic_config, replicas=self.replicas, storage=self.storage
        )
        self.tasks.spawn(self.view.run())
        await hear_of_cluster(self.view, knows_cluster=knows_cluster)
        await self._listen()
        dynamic_config.apply(self.view.state)
        self._registration = Registration(
            config,
            self._volume,
            self._endpoints.advertised(),
            store=self.store,
            clock=self.clock,
            rng=self.rng,
            on_lost=self._on_lost,
        )
        await take_lease(self._registration.keeper, self.view, self._take_roles)
        await self.view.wait_fresh()
        await self.replicas.reconcile()
        self._start_upkeep()
        self._start_cleaning()
        if prepare is not None and not self.replication.is_awaited():
            await while_nobody_waits(prepare(), self.view, self.replication.is_awaited)
        await self._registration.keeper.set_state(BrokerPhase.RUNNING)
        self.ready = True

    async def _open_inter_broker(self) -> None:
        """Make ready to connect to other brokers, and to know them."""
        if self._peers is not None:
            return
        self._inter_broker = await open_inter_broker(
            self.config,
            view=self.view,
            tasks=self.tasks,
            clock=self.clock,
            rng=self.rng,
            executor=self.disk_threads.executor,
        )
        if self._inter_broker is not None:
            self._peers = self._inter_broker.peers(self._network)

    def _make_replication(self) -> None:
        config, volume = self.config, self._volume
        self.tiering = Tiering.open(
            config, self._bucket, volume, self.clock, self.rng, self._threads, self._disk, self.syncs.request
        )
        self.replication = Replication(
            config,
            volume,
            peers=self._peers,
            bootstrap=self.tiering.reader if self.tiering is not None else None,
            logs=self.logs,
            view=self.view,
            store=self.store,
            disk=self._disk,
            clock=self.clock,
            rng=self.rng,
            request_sync=self.syncs.request,
            run_blocking=self.disk_threads.run,
        )
        self.replicas = self.replication.replicas
        self.disk_watch = DiskWatch(
            config, self._disk, self.logs, self.clock, self.replicas.high_watermark_of, self.disk_threads.run
        )

    def _make_handlers(self) -> None:
        config, volume = self.config, self._volume
        self.handlers = RequestHandlers(
            config,
            replicas=self.replicas,
            view=self.view,
            of_followers=self.replication.handler,
            pressure=self.disk_watch.pressure,
            snapshots=self.tiering,
            clock=self.clock,
            rng=self.rng,
            request_sync=self.syncs.request,
            run_blocking=self.disk_threads.run,
        )
        self.log_failures = LogFailures(
            self.replicas,
            before_retry=self.groups.reconcile,
            after_retry=self._roles_changed,
            renew_generation=lambda: self.disk_threads.run(lambda: volume.renew_generation(self.rng)),
            end=self._on_lost,
            clock=self.clock,
        )
        self.replicas.on_roles = self._roles_changed
        self.replicas.on_recovered = self.replication.keeper.wake
        self._dispatcher = Dispatcher(self, self.handlers.produce, self.handlers.fetch)
        self.server = Server(self._network, self._dispatcher, config.net_limits())

    async def _listen(self) -> None:
        self._endpoints = await Endpoints.open(
            self.config,
            self.server,
            inter_broker_guard=self._inter_broker.guard if self._inter_broker is not None else None,
            tasks=self.tasks,
            clock=self.clock,
            rng=self.rng,
            threads=self._threads,
            run_blocking=self.disk_threads.run,
        )

    async def _take_roles(self) -> None:
        await self.replicas.reconcile()
        self.tasks.spawn(self._view_follower.run())

    def _start_upkeep(self) -> None:
        config = self.config
        self.tasks.spawn(self._registration.keeper.run())
        self.tasks.spawn(self.storage.run())
        self.tasks.spawn(self.replication.keeper.run())
        self.tasks.spawn(self._producer_ids.refill())
        if self.tiering is not None:
            self.tasks.spawn(self.tiering.run())
            self.keeper = BucketKeeper(
                config, self.tiering, view=self.view, groups=self.groups, clock=self.clock, rng=self.rng
            )
            self.keeper.start(self.tasks)
            self.tasks.spawn(self.disk_watch.run())
            watch = BucketWatch(
                self.tiering,
                config.tiering_max_unuploaded_age_ms,
                pressure=self.disk_watch.pressure,
                lease_keeper=self._registration.keeper,
                clock=self.clock,
            )
            self.tasks.spawn(watch.run())
        upkeep = Upkeep(
            config,
            logs=self.logs,
            replicas=self.replicas,
            flusher=self.syncs.flusher,
            expire=self.handlers.expire,
            clock=self.clock,
            run_blocking=self.disk_threads.run,
        )
        upkeep.start(self.tasks)
        self.log_failures.start(self.tasks)
        self._endpoints.follow(self.tasks, self._registration.announce_endpoints)

    def _start_cleaning(self) -> None:
        if self.config.log_cleaner_enable:
            self.cleaning = CleaningService(
                self.config,
                clock=self.clock,
                disk=self._disk,
                threads=self._threads,
                logs=self.logs,
                replicas=self.replicas,
                flusher=self.syncs.flusher,
            )

    def warm_up(self) -> None:
        """Load what this broker needs when it is handed its first leaderships. Blocks; for a thread."""
        groups.warm_up()
        if self._inter_broker is not None and len(self.view.leases) > 1:
            self._inter_broker.warm_up()

    async def announce_http(self, host: str, port: int) -> None:
        """Publish the address of the HTTP port in the Lease."""
        await self._registration.announce_http(host, port)

    async def _announce_storage(self, writable: bool) -> None:
        if writable:
            self._view_follower.look_again()
            self.tasks.spawn(self.log_failures.retry())
        await self._registration.announce_storage(writable)

    # -- the end -------------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Stop gracefully: answer what is open, sync and close the logs, let the Lease go."""
        self.ready = False
        await self._registration.drain()
        await self.replication.hand_over()
        if self.keeper is not None:
            await self.keeper.before_stop()
        await self.groups.close()
        await self.server.close()
        await self._dispatcher.close()
        await self.replication.fetchers.close()
        await self.tasks.cancel()
        if self.cleaning is not None:
            await self.cleaning.stop()
        if self.tiering is not None:
            await self.tiering.close()
        await self._producer_ids.close()
        self._endpoints.close()
        await self.syncs.flusher.drain()
        await self.log_failures.before_stop()
        high_watermarks = self.replicas.high_watermarks()
        clean = await self.disk_threads.run(lambda: self.logs.close(high_watermarks))
        if clean and self.replicas.may_be_resumed:
            await self.disk_threads.run(self._volume.mark_clean_stop)
        await self._registration.release()
        self.disk_threads.shutdown()
        logger.info("broker %d stopped %s", self.config.broker_id, "clean" if clean else "with errors")

    # -- BrokerApi -----------------------------------------------------------------------------------------------------

    def partition(self, topic: str, index: int, current_leader_epoch: int = -1) -> Partition:
        """Return a partition that this broker leads. Raises KafkaError."""
        partition = self.replicas.partition(topic, index)
        partition.check_leader(current_leader_epoch)
        return partition

    async def describe_log_dirs(self) -> Sequence[LogDir]:
        """Return the one directory that holds logs, with every replica in it."""
        return [
            await log_dirs.describe(self.config.data_dir, self._disk, self.replicas, self.disk_threads.run)
        ]

    async def allocate_producer_id(self) -> int:
        """Return a producer id that nobody was given before. Raises KafkaError."""
        return await self._producer_ids.allocate()

    def _roles_changed(self) -> None:
        self.groups.reconcile()
        self.replication.roles_changed()
        if self.tiering is not None:
            self.tiering.roles_changed(self.replicas)

    def _sync_failed(self, partition: Partition) -> None:
        if self.replicas.has_lost(partition):
            self.tasks.spawn(self.log_failures.retry())
