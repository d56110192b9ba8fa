"""Where clients and brokers reach this broker: its listeners, opened and guarded, and what others are told of them.

Made by `server.broker` once this broker knows enough to answer. Where the configuration names a placement file, listeners
wait for it a little, and what it changes later is announced by `follow`: addresses and rack together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from strandline_broker.server.placement import CHECK_INTERVAL_S, PlacementFile

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from strandline_broker.cluster.model import Endpoint
    from strandline_broker.net.connection import Connection
    from strandline_broker.net.server import Server
    from strandline_broker.seams.clock import Clock
    from strandline_broker.seams.threads import Threads
    from strandline_broker.server.config import BrokerConfig
    from strandline_broker.server.listeners import Listener
    from strandline_broker.server.sasl import SaslService
    from strandline_broker.server.tasks import Tasks

    Guard = Callable[[Connection], None]


class Advertised(NamedTuple):
    """What others are told: the address of each listener by its name, and the rack, None for none."""

    listeners: dict[str, Endpoint]
    rack: str | None


class Endpoints:
    """The open listeners of one broker, which `server` closes."""

    def __init__(
        self, config: BrokerConfig, server: Server, placement: PlacementFile, sasl: SaslService | None
    ) -> None:
        self._config = config
        self._server = server
        self._placement = placement
        self._sasl = sasl

    @classmethod
    async def open(
        cls,
        config: BrokerConfig,
        server: Server,
        *,
        inter_broker_guard: Guard | None,
        tasks: Tasks,
        clock: Clock,
        rng: random.Random,
        threads: Threads,
        run_blocking: Callable[[Callable[[], object]], Awaitable[object]],
    ) -> Endpoints:
        """Learn the broker's place, then open every listener; `tasks` follow the file of users.

        `inter_broker_guard` gets the connections of the listener between brokers. Raises OSError, with a text for the user:
        an address in use, users or certificates that cannot be used.
        """
        placement = PlacementFile(config.placement_file, run_blocking)
        await placement.wait(config.placement_wait_ms / 1000)
        listeners = config.resolve_listeners()
        sasl = None
        if any(listener.sasl_mechanisms for listener in listeners):
            from strandline_broker.server.sasl import USERS_CHECK_INTERVAL_S, SaslService

            sasl = await SaslService.open(config, clock=clock, rng=rng, threads=threads)
            tasks.every(USERS_CHECK_INTERVAL_S, sasl.check_users)
        for listener in listeners:
            guard = inter_broker_guard if listener.internal else _guard_of(listener, sasl)
            await server.open(listener.config(guard))
        return cls(config, server, placement, sasl)

    def advertised(self) -> Advertised:
        """Return what others are to be told now."""
        placement = self._placement.current
        listeners = placement.advertise(self._config.resolve_listeners(), self._server.address)
        return Advertised(listeners, placement.rack or self._config.rack)

    def follow(self, tasks: Tasks, announce: Callable[[Advertised], Awaitable[None]]) -> None:
        """Have `announce` called with whatever the placement file changes, until `tasks` are cancelled."""

        async def follow_placement() -> None:
            if await self._placement.check():
                await announce(self.advertised())

        if self._config.placement_file:
            tasks.every(CHECK_INTERVAL_S, follow_placement)

    def close(self) -> None:
        """End the authentication that waits; call it when the connections are closed."""
        if self._sasl is not None:
            self._sasl.close()


def _guard_of(listener: Listener, sasl: SaslService | None) -> Guard | None:
    return sasl.guard_of(listener) if sasl is not None and listener.sasl_mechanisms else None
