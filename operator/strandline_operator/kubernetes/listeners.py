"""The listeners of a Cluster: where brokers listen, what they advertise, and what of that only Kubernetes knows.

Listeners of type ClusterIP advertise each pod's DNS name. What NodePort and LoadBalancer listeners advertise is known
only when node and Service have an address: brokers start with the DNS name and take the rest from `placement` as soon as
the operator has written it there. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# A hyphen keeps the name apart from what users may choose.
INTERNAL_LISTENER: Final = "INTER-BROKER"
CLUSTER_IP: Final = "ClusterIP"
NODE_PORT: Final = "NodePort"
LOAD_BALANCER: Final = "LoadBalancer"
_DEFAULT_LISTENER: Final[dict[str, Any]] = {"name": "PLAIN", "port": 9092}
# Usual ports, and what is tried next when a listener of the user has taken one.
_INTERNAL_PORTS: Final = (9091, 9191, 9291, 9391, 9491, 9591, 9691, 9791, 9891, 9991)
_HTTP_PORTS: Final = (10092, 10192, 10292, 10392, 10492, 10592, 10692, 10792, 10892, 10992)


@dataclass(frozen=True, slots=True)
class ClientListener:
    """One entry of `spec.listeners`. `tls_secret` is set if connections are encrypted."""

    name: str
    port: int
    type: str = CLUSTER_IP
    advertised_host: str | None = None
    tls_secret: str | None = None

    @property
    def slug(self) -> str:
        """The name as Kubernetes allows it in names of objects and ports."""
        return self.name.lower().replace("_", "-")

    @property
    def external(self) -> bool:
        """Whether each broker has a Service of its own for it."""
        return self.type in (NODE_PORT, LOAD_BALANCER)

    @property
    def security_protocol(self) -> str:
        """Kafka's name for what is spoken on it."""
        return "SSL" if self.tls_secret else "PLAINTEXT"

    def advertised_host_of(self, broker_id: int | str) -> str | None:
        """Return the host that the user wants to be advertised for one broker, None for the usual one."""
        return self.advertised_host.replace("%d", str(broker_id)) if self.advertised_host else None


def client_listeners(spec: Mapping[str, Any]) -> tuple[ClientListener, ...]:
    """Return the listeners of a Cluster's spec, in their order; unset means one plain-text listener on port 9092."""
    return tuple(
        ClientListener(
            name=entry["name"],
            port=entry["port"],
            type=entry.get("type", CLUSTER_IP),
            advertised_host=entry.get("advertisedHost"),
            tls_secret=(entry.get("tls") or {}).get("secretName"),
        )
        for entry in spec.get("listeners") or (_DEFAULT_LISTENER,)
    )


def internal_ports(listeners: tuple[ClientListener, ...]) -> tuple[int, int]:
    """Return the ports between brokers and of HTTP: the usual ones, or the next that no listener has.

    There are at most 8 listeners and 10 candidates of each.
    """
    taken = {listener.port for listener in listeners}
    internal = next(port for port in _INTERNAL_PORTS if port not in taken)
    http = next(port for port in _HTTP_PORTS if port not in taken)
    return internal, http
