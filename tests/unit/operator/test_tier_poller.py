"""Brokers are asked over HTTP; those that do not answer, or not with what is expected, harm no others."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from tests.unit.cluster.support import partition_set

from strandline_broker.cluster.model import BrokerLease, Endpoint, PartitionState, ReplicaRef
from strandline_operator.controller import tier_poller
from strandline_operator.controller.tier_figures import Figures, TopicTiers
from strandline_operator.controller.tier_poller import TierPoller, http_endpoint

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def lease(broker_id: int, http: Endpoint | None) -> BrokerLease:
    listeners = {"PLAINTEXT": Endpoint("public", 9092), "INTERNAL": Endpoint("pod-0.brokers", 9093)}
    return BrokerLease(broker_id, "i", 1, listeners, http=http)


@pytest.mark.parametrize(
    ("http", "reached"),
    [
        (None, None),
        (Endpoint("127.0.0.1", 80), Endpoint("127.0.0.1", 80)),
        (Endpoint("host", 80), Endpoint("host", 80)),
        (Endpoint("0.0.0.0", 80), Endpoint("pod-0.brokers", 80)),
        (Endpoint("::", 80), Endpoint("pod-0.brokers", 80)),
    ],
)
def test_where_a_broker_is_asked(http: Endpoint | None, reached: Endpoint | None) -> None:
    assert http_endpoint(lease(0, http), "INTERNAL") == reached


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Endpoint]:
    app = web.Application()
    app.router.add_get("/v1/tiers", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield Endpoint(str(host), int(port))
    finally:
        await runner.cleanup()


class Brokers:
    """A controller that knows some brokers, of which the first leads as many partitions as there are brokers."""

    def __init__(self, *leaders: int) -> None:
        states = [
            PartitionState(replicas=(n,), isr=(ReplicaRef(n, 1),), leader=n, partition_epoch=1)
            for n in leaders
        ]
        self.part = partition_set(*states)
        self.view = SimpleNamespace(
            cluster=SimpleNamespace(spec={"tiering": {"bucket": "b"}}),
            leases={},
            partition_sets=lambda: [self.part],
        )
        self.figures: list[Figures] = []
        self.poller = TierPoller(cast("Any", self), internal_listener="INTERNAL", rng=random.Random(1))

    def holds(self, broker_id: int) -> bool:
        return broker_id < 8

    def tier_figures(self, figures: Figures) -> None:
        self.figures.append(figures)

    def answer(self, stored: int, unprotected: int) -> Handler:
        async def handler(_: web.Request) -> web.Response:
            topic = {
                "topicId": str(self.part.topic_id),
                "partitions": 1,
                "storedBytes": stored,
                "unprotectedBytes": unprotected,
            }
            return web.json_response({"broker": 0, "topics": [topic]})

        return handler

    async def look(self) -> TopicTiers | None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.3)) as session:
            await self.poller.look(session)
        return self.figures[-1].get(self.part.topic_id)


async def hang(_: web.Request) -> web.Response:
    await asyncio.sleep(60)
    return web.Response()


async def refuse(_: web.Request) -> web.Response:
    return web.Response(status=404)


async def redirect(_: web.Request) -> web.Response:
    raise web.HTTPFound("/elsewhere")


async def garbage(_: web.Request) -> web.Response:
    return web.Response(body=b"<html>")


async def flood(_: web.Request) -> web.Response:
    return web.Response(body=bytes(3000))


def test_the_sum_of_two_brokers_is_told() -> None:
    async def scenario() -> None:
        three = Brokers(0, 1)
        async with serving(three.answer(100, 10)) as one, serving(three.answer(50, 5)) as other:
            three.view.leases = {0: lease(0, one), 1: lease(1, other), 9: lease(9, one), 3: lease(3, None)}
            assert await three.look() == TopicTiers(150, 15)
            three.view.cluster.spec.clear()
            assert await three.look() is None

    asyncio.run(scenario())


@pytest.mark.parametrize("handler", [hang, refuse, redirect, garbage, flood])
def test_a_broker_that_does_not_answer_leaves_what_was_known(
    handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tier_poller, "MAX_ANSWER_BYTES", 2000)

    async def scenario() -> None:
        three = Brokers(0, 1)
        async with serving(three.answer(100, 10)) as one, serving(handler) as broken:
            three.view.leases = {0: lease(0, one), 1: lease(1, one)}
            assert await three.look() == TopicTiers(200, 20)
            three.view.leases[1] = lease(1, broken)
            assert await three.look() == TopicTiers(200, 20)
        assert await three.look() == TopicTiers(200, 20), "nobody is there"

    asyncio.run(scenario())
