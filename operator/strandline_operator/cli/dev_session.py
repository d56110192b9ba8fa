"""The supervisor of `strandline dev` while it runs: controller, manifests folder, broker processes, signals.

Started by `dev` when the broker processes already run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import click

from strandline_broker.cluster.model import CLUSTER, BrokerPhase, new_object
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.cluster.store import AlreadyExists, Conflict, NotFound, StoreError
from strandline_broker.cluster.view import ClusterView
from strandline_operator.cli.dev import DevOptions, topic_defaults
from strandline_operator.cli.layout import CLUSTER_NAME, INTERNAL_LISTENER
from strandline_operator.cli.processes import STABLE_AFTER_S, BrokerProcess, Supervisor
from strandline_operator.controller.actions import Notice
from strandline_operator.controller.loop import Controller
from strandline_operator.controller.tier_poller import TierPoller

STOP_DEADLINE_S = 20.0
# A store on this machine takes more writes than an API server.
TIERS_INTERVAL_S = 10.0
# Before everything was ready once: so many quick ends in a row mean that starting again will not help.
HOPELESS_AFTER = 3
_USAGE_ERROR = 2


class DevSession:
    """One run of the supervisor."""

    def __init__(
        self, options: DevOptions, processes: Sequence[BrokerProcess], former: Mapping[int, str]
    ) -> None:
        self._options = options
        self._former = dict(former)
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._failure: str | None = None
        self._ready = False
        self._quick_ends: dict[int, int] = {}
        self.store = SqliteStore(options.data_dir.store_file)
        self.controller = Controller(
            self.store,
            CLUSTER_NAME,
            monotonic=time.monotonic,
            now_ms=lambda: time.time_ns() // 1_000_000,
            notify=self._notify,
        )
        self._tiers = TierPoller(
            self.controller,
            internal_listener=INTERNAL_LISTENER,
            interval_s=TIERS_INTERVAL_S,
            rng=random.Random(),  # noqa: S311 - no secret
        )
        self.supervisor = Supervisor(processes, self._loop, self._broker_ended)
        # Replaced while a live table is shown, which has its own way of printing lines above itself.
        self.note: Callable[[str], None] = _to_standard_error

    # -- life ----------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Run until a signal or a failure; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._loop.add_signal_handler(number, self._on_signal)
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._ensure_cluster()
            self.controller.expect_anew(self._former)
            tasks.append(asyncio.create_task(self.controller.run(), name="controller"))
            tasks.append(asyncio.create_task(self._get_ready(), name="get-ready"))
            tasks.append(asyncio.create_task(self._tiers.run(), name="tiers"))
            for task in tasks:
                task.add_done_callback(self._task_ended)
            await self._end.wait()
        except StoreError as error:
            self._failure = f"the cluster store {self._options.data_dir.store_file} cannot be used: {error}"
        finally:
            # Nobody moves leaderships while everything stops: there is nowhere to move them to.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._stop_brokers()
            await self.store.close()
        if self._failure is not None:
            click.echo(f"Error: {self._failure}", err=True)
            return 1
        return 0

    async def _stop_brokers(self) -> None:
        killed = await self.supervisor.stop(STOP_DEADLINE_S)
        for broker_id in killed:
            self.note(f"broker {broker_id} did not stop within {STOP_DEADLINE_S:.0f} s and was killed")

    def _on_signal(self) -> None:
        if self._end.is_set():
            self.note("stopping at once")
            self.supervisor.kill()
        self._end.set()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._end.is_set():
            return
        error = task.exception()
        if error is not None:
            logging.getLogger(__name__).error("%s failed", task.get_name(), exc_info=error)
            self._fail(f"{task.get_name()} failed: {error}")

    def _fail(self, reason: str) -> None:
        if self._failure is None:
            self._failure = reason
        self._end.set()

    # -- start ---------------------------------------------------------------------------------------------------------

    async def _ensure_cluster(self) -> None:
        """Create or change the Cluster object: what the command line says wins."""
        given = {"replicas": self._options.brokers, "flush": self._options.flush}
        defaults = topic_defaults(self._options.assignments)
        while True:
            try:
                old = await self.store.get(CLUSTER, CLUSTER_NAME)
            except NotFound:
                tiering = self._options.tiering
                spec = {"kafkaAdmin": "All", "deletionPolicy": "Retain", "tiering": tiering, **given}
                if defaults:
                    spec["config"] = defaults
                with contextlib.suppress(AlreadyExists):
                    await self.store.create(CLUSTER, new_object(CLUSTER, CLUSTER_NAME, spec))
                    return
                continue
            spec = {"tiering": self._options.tiering, **old["spec"], **given}
            if defaults:
                spec["config"] = {**(old["spec"].get("config") or {}), **defaults}
            if spec == old["spec"]:
                return
            with contextlib.suppress(Conflict, NotFound):
                await self.store.patch_if(
                    CLUSTER,
                    CLUSTER_NAME,
                    uid=old["metadata"]["uid"],
                    tests=[("/spec", old["spec"])],
                    operations=[{"op": "replace", "path": "/spec", "value": spec}],
                )
                return

    async def _get_ready(self) -> None:
        """Apply the manifests, wait for brokers and partitions, say so, then follow the manifests and show the table."""
        view = self.controller.view
        async with asyncio.TaskGroup() as group:
            if self._options.manifests is not None:
                # Here, because validation takes a while to import, and without manifests nobody needs it.
                from strandline_operator.cli.folder import FolderSync

                folder = FolderSync(self._options.manifests, self.store, self._say)
                applied = await folder.sync()
                await view.wait_until(lambda seen: _has_topics(seen, applied))
                group.create_task(folder.follow())
            await view.wait_until(self._all_brokers_run)
            await self.controller.quiet.wait()
            self._ready = True
            click.echo(f"ready bootstrap={self._options.bootstrap}")
            sys.stdout.flush()
            if not self._options.plain:
                from strandline_operator.cli.live import show

                group.create_task(show(self))

    def _all_brokers_run(self, view: ClusterView) -> bool:
        leases = view.leases
        return all(
            (lease := leases.get(broker_id)) is not None
            and lease.held
            and lease.state is BrokerPhase.RUNNING
            and lease.incarnation != self._former.get(broker_id)
            for broker_id in range(self._options.brokers)
        )

    # -- what happens --------------------------------------------------------------------------------------------------

    def _broker_ended(self, process: BrokerProcess, code: int, ran_s: float) -> bool:
        """Note the end of a broker; returns whether to start it again."""
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        if self._end.is_set():
            if code not in (0, -signal.SIGTERM, -signal.SIGKILL):
                log = self._options.data_dir.log_file(process.broker_id)
                self.note(f"broker {process.broker_id} did not stop cleanly ({how}); see {log}")
            return False
        self.controller.process_ended(process.broker_id)
        if not self._ready:
            quick = self._quick_ends.get(process.broker_id, 0) + 1 if ran_s < STABLE_AFTER_S else 0
            self._quick_ends[process.broker_id] = quick
            if code == _USAGE_ERROR or quick >= HOPELESS_AFTER:
                log = self._options.data_dir.log_file(process.broker_id)
                tail = self._options.data_dir.log_tail(process.broker_id)
                self._fail(f"broker {process.broker_id} does not start ({how}); the end of {log}:\n{tail}")
                return False
        self.note(f"broker {process.broker_id} ended ({how}); starting it again")
        return True

    def _notify(self, notice: Notice) -> None:
        self._say(f"{'warning: ' if notice.warning else ''}{notice.reason}: {notice.message}")

    def _say(self, text: str) -> None:
        self.note(text)


def _has_topics(view: ClusterView, names: Iterable[str]) -> bool:
    return {topic.name for topic in view.topic_objects()}.issuperset(names)


def _to_standard_error(text: str) -> None:
    click.echo(text, err=True)


def run_session(options: DevOptions, processes: Sequence[BrokerProcess], former: Mapping[int, str]) -> int:
    """Run the supervisor over processes that were started; return the exit code. `former`: see `dev`."""
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )

    async def session() -> int:
        return await DevSession(options, processes, former).run()

    return asyncio.run(session())
