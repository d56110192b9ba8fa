"""Which guard a listener gets, and what others are told of listeners when this broker's place changes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.replica.tiered_support import LoopClock
from tests.unit.tiered.virtual_time import virtually

from strandline_broker.cluster.model import Endpoint
from strandline_broker.net.server import ListenerConfig
from strandline_broker.seams.threads import SystemThreads
from strandline_broker.server.config import load
from strandline_broker.server.endpoints import Advertised, Endpoints
from strandline_broker.server.placement import CHECK_INTERVAL_S
from strandline_broker.server.tasks import Tasks

BOUND = 40000
LISTENERS = (
    "listeners=CLIENTS://127.0.0.1:0,BROKERS://127.0.0.1:0",
    "listener_security_protocol_map=CLIENTS:PLAINTEXT,BROKERS:PLAINTEXT",
    "inter_broker_listener_name=BROKERS",
    "inter_broker_token_file=/not/read/here",
    "rack=here",
)


class Opened:
    """A server that only takes note."""

    def __init__(self) -> None:
        self.listeners: dict[str, ListenerConfig] = {}

    async def open(self, listener: ListenerConfig) -> None:
        self.listeners[listener.name] = listener

    def address(self, name: str) -> tuple[str, int]:
        return "127.0.0.1", BOUND + list(self.listeners).index(name)


def guard(connection: object) -> None:
    """Let nobody through."""


async def at_once(work: Callable[[], object]) -> object:
    return work()


async def opened(server: Any, tasks: Tasks, *assignments: str) -> Endpoints:
    return await Endpoints.open(
        load(None, ["broker_id=0", "data_dir=/d", "store=sqlite:/s", *LISTENERS, *assignments], {}),
        server,
        inter_broker_guard=guard,
        tasks=tasks,
        clock=LoopClock(),
        rng=random.Random(1),
        threads=SystemThreads(),
        run_blocking=at_once,
    )


def advertised(clients: Endpoint, rack: str) -> Advertised:
    return Advertised({"CLIENTS": clients, "BROKERS": Endpoint("127.0.0.1", BOUND + 1)}, rack)


def test_only_the_listener_between_brokers_has_their_guard() -> None:
    async def scenario() -> None:
        server = Opened()
        endpoints = await opened(server, Tasks(asyncio.get_running_loop()))
        found = {name: listener.connected for name, listener in server.listeners.items()}
        assert found == {"CLIENTS": None, "BROKERS": guard}
        assert endpoints.advertised() == advertised(Endpoint("127.0.0.1", BOUND), "here")
        endpoints.close()

    virtually(scenario)


def test_what_the_placement_file_changes_is_announced(tmp_path: Path) -> None:
    path = tmp_path / "placement"
    path.write_text('{"rack": "a"}')
    told: list[Advertised] = []

    async def announce(news: Advertised) -> None:
        told.append(news)

    async def scenario() -> None:
        tasks = Tasks(asyncio.get_running_loop())
        endpoints = await opened(Opened(), tasks, f"placement_file={path}", "placement_wait_ms=60000")
        assert endpoints.advertised() == advertised(Endpoint("127.0.0.1", BOUND), "a")
        endpoints.follow(tasks, announce)
        await asyncio.sleep(3 * CHECK_INTERVAL_S)
        assert told == []
        path.write_text('{"rack": "b", "advertised": {"CLIENTS": {"host": "outside", "port": 9}}}')
        await asyncio.sleep(3 * CHECK_INTERVAL_S)
        assert told == [advertised(Endpoint("outside", 9), "b")]
        assert endpoints.advertised() == told[0]
        await tasks.cancel()

    virtually(scenario)


def test_without_such_a_file_nothing_is_followed() -> None:
    class NoTasks(Tasks):
        def spawn(self, work: Any) -> None:
            pytest.fail("there is nothing to do")

    async def announce(news: Advertised) -> None:
        pytest.fail("there is nothing to say")

    async def scenario() -> None:
        tasks = NoTasks(asyncio.get_running_loop())
        (await opened(Opened(), tasks)).follow(tasks, announce)

    virtually(scenario)
