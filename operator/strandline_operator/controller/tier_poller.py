"""Asks brokers over HTTP how much of each topic is in the bucket, for the Topics' status.

These figures change all the time, so brokers do not write them into the store; who shows them asks, about once a minute,
which needs no right in Kubernetes. A broker that does not answer in time is left out of that round.

Runs beside the controller, in the Kopf daemon and in `strandline dev`; nothing is decided by what it finds.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import random
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from strandline_broker.cluster.model import BrokerLease, Endpoint
from strandline_operator.controller.tier_figures import Figures, Shares, combine, parse_shares
from strandline_operator.controller.world import group_sets

if TYPE_CHECKING:
    import aiohttp

    from strandline_operator.controller.loop import Controller

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 60.0
FIRST_S: Final = 5.0
"""Time from the start of a controller to the first round."""
TIMEOUT_S: Final = 5.0
CONCURRENCY: Final = 8
MAX_ANSWER_BYTES: Final = 16 << 20
_PATH: Final = "/v1/tiers"
_PIECE_BYTES: Final = 1 << 16


def http_endpoint(lease: BrokerLease, internal_listener: str) -> Endpoint | None:
    """Return where a broker's HTTP port is reached, None if it has none.

    Who listens on every address says so, and is asked where other brokers reach it.
    """
    if lease.http is None:
        return None
    host = lease.http.host
    if _is_any(host):
        names = [internal_listener, *lease.listeners]
        host = next((lease.listeners[name].host for name in names if name in lease.listeners), host)
    return Endpoint(host, lease.http.port)


def _is_any(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


class TierPoller:
    """One per Cluster; `run` belongs into a task beside the controller's."""

    def __init__(
        self,
        controller: Controller,
        *,
        internal_listener: str,
        interval_s: float = INTERVAL_S,
        rng: random.Random,
    ) -> None:
        self._controller = controller
        self._internal_listener = internal_listener
        self._interval_s = interval_s
        self._rng = rng
        self._figures: Figures = {}
        # Brokers whose silence was logged.
        self._silent: set[int] = set()

    async def run(self) -> None:
        """Ask again and again until cancelled. Never raises because of a broker."""
        await asyncio.sleep(min(FIRST_S, self._interval_s))
        # In a thread, and only now: `strandline dev` need not wait for it before its first record.
        aiohttp = await asyncio.to_thread(importlib.import_module, "aiohttp")
        # Answers come from where Leases say: nothing is followed to elsewhere, and no proxy of the environment is asked.
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), connector=aiohttp.TCPConnector(limit=CONCURRENCY)
        ) as session:
            while True:
                await self.look(session)
                await asyncio.sleep(self._interval_s * self._rng.uniform(0.9, 1.1))

    async def look(self, session: aiohttp.ClientSession) -> None:
        """Ask every broker that lives, once, and tell the controller what came of it."""
        view = self._controller.view
        if view.cluster is None or not view.cluster.spec.get("tiering"):
            self._figures = {}
        else:
            leases = [lease for lease in view.leases.values() if self._controller.holds(lease.broker_id)]
            limit = asyncio.Semaphore(CONCURRENCY)
            async with asyncio.TaskGroup() as group:
                asked = {
                    lease.broker_id: group.create_task(self._ask(session, lease, limit)) for lease in leases
                }
            answers = {
                broker_id: shares
                for broker_id, task in asked.items()
                if (shares := task.result()) is not None
            }
            topics = [sets for sets in group_sets(view.partition_sets(), {}) if not sets.deleting]
            self._figures = combine(self._figures, answers, topics)
        self._controller.tier_figures(self._figures)

    async def _ask(
        self, session: aiohttp.ClientSession, lease: BrokerLease, limit: asyncio.Semaphore
    ) -> Shares | None:
        endpoint = http_endpoint(lease, self._internal_listener)
        if endpoint is None:
            return None  # it starts, or has no such port
        import aiohttp
        import orjson

        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        try:
            async with (
                limit,
                session.get(f"http://{host}:{endpoint.port}{_PATH}", allow_redirects=False) as answer,
            ):
                if answer.status != 200:
                    raise ValueError(f"status {answer.status}")
                body = bytearray()
                async for piece in answer.content.iter_chunked(_PIECE_BYTES):
                    body += piece
                    if len(body) > MAX_ANSWER_BYTES:
                        raise ValueError("the answer is too long")
            shares = parse_shares(orjson.loads(body))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            if lease.broker_id not in self._silent:
                self._silent.add(lease.broker_id)
                logger.info("broker %d does not say how its tiers are: %r", lease.broker_id, error)
            return None
        self._silent.discard(lease.broker_id)
        return shares
