"""Settings that a running broker takes over when a Kafka client changes them, see `cluster.broker_config`."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from strandline_broker.cluster.broker_config import for_broker
from strandline_broker.replica.throttle import FOLLOWER_RATE, LEADER_RATE

if TYPE_CHECKING:
    from strandline_broker.cluster.model import ClusterState
    from strandline_broker.log.manager import LogManager
    from strandline_broker.net.server import Server
    from strandline_broker.seams.clock import Clock
    from strandline_broker.server.config import BrokerConfig
    from strandline_broker.server.replication import Throttles

logger = logging.getLogger(__name__)


class DynamicConfig:
    """Applies what `ClusterState.brokerConfigs` says to the parts of one broker; what is not set is as configured."""

    def __init__(
        self, config: BrokerConfig, server: Server, logs: LogManager, throttles: Throttles, clock: Clock
    ) -> None:
        self._broker_id = config.broker_id
        self._configured = {
            "max.connections": config.max_connections,
            "max.connections.per.ip": config.max_connections_per_ip,
            "producer.id.expiration.ms": config.producer_id_expiration_ms,
        }
        self._server = server
        self._logs = logs
        self._clock = clock
        self._throttles = {LEADER_RATE: throttles.leader, FOLLOWER_RATE: throttles.follower}
        self._applied: dict[str, str] = {}

    def apply(self, state: ClusterState | None) -> None:
        """Bring the broker in line with `state`; cheap when nothing changed."""
        wanted = for_broker(state, self._broker_id)
        if wanted == self._applied:
            return
        logger.info("dynamic settings of this broker: %s", wanted or "none")
        self._applied = wanted
        values = self._configured | {name: int(text) for name, text in wanted.items()}
        self._server.limits = dataclasses.replace(
            self._server.limits,
            max_connections=values["max.connections"],
            max_connections_per_address=values["max.connections.per.ip"],
        )
        self._logs.set_producer_expiration(values["producer.id.expiration.ms"])
        for name, throttle in self._throttles.items():
            throttle.set_rate(values.get(name), self._clock.monotonic())
