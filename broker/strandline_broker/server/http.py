"""The broker's HTTP port: `/healthz`, `/readyz`, `/metrics` (Prometheus), and as JSON `/v1/{partitions,storage,tiers}`.

Started by `server.run` once the Kafka listeners are up, so that importing aiohttp delays no record. It only reads. Not
authenticated: bind it where only the cluster's own tools reach it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from strandline_broker.server.disk_report import storage_report
from strandline_broker.server.metrics import MetricsRegistry, take_snapshot
from strandline_broker.server.partition_report import RateSampler, report
from strandline_broker.server.tier_metrics import tier_report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strandline_broker.server.broker import Broker

_SAMPLE_INTERVAL_S = 5.0
_SHUTDOWN_S = 1.0
_MAX_REASONS = 20
_PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class HttpServer:
    """Serves one broker; `start`, and in the end `stop`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._metrics = MetricsRegistry()
        self._sampler = RateSampler()
        self._runner: web.AppRunner | None = None
        self._sampling: asyncio.Task[None] | None = None
        # One rendering at a time: a scraper that comes too often waits instead of filling the threads.
        self._rendering = asyncio.Lock()

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen (port 0: any free one) and return the address. Raises OSError."""
        app = web.Application(client_max_size=64 * 1024)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._show_metrics)
        app.router.add_get("/v1/partitions", self._partitions)
        app.router.add_get("/v1/storage", self._storage)
        app.router.add_get("/v1/tiers", self._tiers)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, backlog=16).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self._sampling = asyncio.get_running_loop().create_task(self._sample())
        address = runner.addresses[0]
        return str(address[0]), int(address[1])

    async def stop(self) -> None:
        """Stop listening; requests under way get a moment to end."""
        if self._sampling is not None:
            self._sampling.cancel()
            await asyncio.gather(self._sampling, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _sample(self) -> None:
        while True:
            self._sampler.sample(self._broker.replicas, self._broker.clock.monotonic())
            await asyncio.sleep(_SAMPLE_INTERVAL_S)

    async def _healthz(self, _: web.Request) -> web.Response:
        """Answer: that says that the process and its event loop live."""
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        reasons: list[str] = []
        for reason in self._not_ready():
            if len(reasons) == _MAX_REASONS:
                reasons.append("...")
                break
            reasons.append(reason)
        if reasons:
            return web.Response(status=503, text="\n".join(reasons) + "\n")
        return web.Response(text="ready\n")

    def _not_ready(self) -> Iterator[str]:
        """Yield why this broker should not count as ready: not serving, or not in sync (design section 4)."""
        if not self._broker.ready:
            yield "starting or stopping"
            return
        if not self._broker.storage.health.writable:
            yield "its disk cannot be written to"
        for name, index, reason in self._broker.replicas.unopened():
            yield f"{name}-{index}: its log could not be opened, it is tried again: {reason}"
        own = self._broker.own_ref
        for topic in self._broker.view.topics.values():
            for index, state in topic.partitions():
                wanted = own.broker_id in state.replicas and own.broker_id not in (
                    *state.adding,
                    *state.removing,
                )
                # Named with an earlier log generation it counts for nothing.
                if wanted and own not in state.isr:
                    yield f"{topic.topic_name}-{index}: not in the in-sync replicas"

    async def _show_metrics(self, _: web.Request) -> web.Response:
        async with self._rendering:
            snapshot = take_snapshot(self._broker)
            text = await asyncio.to_thread(self._metrics.render, snapshot)
        return web.Response(body=text, headers={"Content-Type": _PROMETHEUS_TEXT})

    async def _partitions(self, request: web.Request) -> web.Response:
        topic = request.query.get("topic")
        partitions = [p for p in self._broker.replicas if topic is None or p.topic == topic]
        rows = report(partitions, self._sampler, self._broker.clock.monotonic(), self._broker.tiering)
        body = orjson.dumps({"broker": self._broker.config.broker_id, "partitions": rows})
        return web.Response(body=body, content_type="application/json")

    async def _storage(self, _: web.Request) -> web.Response:
        broker = self._broker
        shown = storage_report(broker.config.broker_id, broker.storage.health, broker.disk_watch)
        return web.Response(body=orjson.dumps(shown), content_type="application/json")

    async def _tiers(self, _: web.Request) -> web.Response:
        shown = tier_report(self._broker.config.broker_id, self._broker.tiering)
        return web.Response(body=orjson.dumps(shown), content_type="application/json")
