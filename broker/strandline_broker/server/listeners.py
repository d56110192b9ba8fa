"""Kafka-style listener strings, parsed and checked: where a broker listens and what it tells clients.

`NAME://host:port,NAME://host:port` as in Kafka's `listeners` and `advertised.listeners`, `NAME:PROTOCOL,...`
as in `listener.security.protocol.map`, and `NAME=value,...` (or one value for all) for certificate files.
Pure; used by `server.config`.

Source: Apache Kafka 4.2, `SocketServerConfigs.listenerListToEndPoints`, `KafkaConfig.validateValues`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strandline_broker.net.server import ListenerConfig
from strandline_broker.net.tls import TlsConfig
from strandline_broker.security.mechanisms import MECHANISMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from strandline_broker.net.connection import Connection

PLAINTEXT = "PLAINTEXT"
SSL = "SSL"
SASL_PLAINTEXT = "SASL_PLAINTEXT"
SASL_SSL = "SASL_SSL"
SECURITY_PROTOCOLS = (PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL)
_TLS = (SSL, SASL_SSL)
_SASL = (SASL_PLAINTEXT, SASL_SSL)
CLIENT_AUTH = ("none", "requested", "required")
WILDCARD_HOSTS = ("0.0.0.0", "::")  # noqa: S104 - recognised, not bound

_ENDPOINT = re.compile(r"([A-Za-z0-9_-]+)://(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:/\[\]]*)):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`NAME://host:port`. An empty host means every interface; port 0 means any free port."""

    name: str
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One listener as the network layer needs it.

    `advertised_port` 0 means the port that was bound. `internal` marks the listener between brokers, whose connections
    authenticate by the token (`server.inter_broker`). Clients of a listener with `sasl_mechanisms` have to authenticate by
    one of them.
    """

    name: str
    host: str
    port: int
    advertised_host: str
    advertised_port: int
    security_protocol: str = PLAINTEXT
    internal: bool = False
    certificate_file: str | None = None
    key_file: str | None = None
    client_ca_file: str | None = None
    client_auth: str = "none"
    sasl_mechanisms: tuple[str, ...] = ()

    @property
    def tls(self) -> bool:
        """Say whether connections are encrypted."""
        return self.security_protocol in _TLS

    def config(self, connected: Callable[[Connection], None] | None) -> ListenerConfig:
        """Return what the network layer is to open; `connected` is called with every new connection."""
        tls = None
        if self.tls:
            assert self.certificate_file is not None
            assert self.key_file is not None
            tls = TlsConfig(
                self.certificate_file,
                self.key_file,
                self.client_ca_file if self.client_auth != "none" else None,
                client_required=self.client_auth == "required",
            )
        return ListenerConfig(
            self.name, self.host, self.port, internal=self.internal, tls=tls, connected=connected
        )


def parse_endpoints(text: str, key: str) -> tuple[Endpoint, ...]:
    """Parse a comma-separated list of endpoints; `key` names the setting in errors. Raises ValueError."""
    endpoints = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        match = _ENDPOINT.fullmatch(item)
        if match is None:
            raise ValueError(f"{key}: {item!r} is not NAME://host:port (IPv6 addresses go in brackets)")
        port = int(match[4])
        if port > 65535:
            raise ValueError(f"{key}: port {port} of {item!r} is above 65535")
        endpoints.append(Endpoint(match[1].upper(), match[2] or match[3] or "", port))
    names = [endpoint.name for endpoint in endpoints]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"{key}: two listeners are named {name}; each listener must have a different name"
            )
    return tuple(endpoints)


def parse_protocol_map(text: str) -> dict[str, str]:
    """Parse `NAME:PLAINTEXT,NAME:SASL_SSL`. Raises ValueError."""
    protocols = {name: name for name in SECURITY_PROTOCOLS}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, colon, protocol = item.partition(":")
        if not colon or not name.strip() or not protocol.strip():
            raise ValueError(f"listener_security_protocol_map: {item!r} is not NAME:PROTOCOL")
        protocol = protocol.strip().upper()
        if protocol not in SECURITY_PROTOCOLS:
            raise ValueError(
                f"listener_security_protocol_map: {protocol!r} is not supported; use "
                f"{', '.join(SECURITY_PROTOCOLS[:-1])} or {SECURITY_PROTOCOLS[-1]}"
            )
        protocols[name.strip().upper()] = protocol
    return protocols


def parse_per_listener(text: str | None, key: str, names: tuple[str, ...]) -> dict[str, str]:
    """Parse `NAME=value,...`; one value without a name holds for every listener. Raises ValueError."""
    if not text:
        return {}
    if "=" not in text:
        return dict.fromkeys(names, text.strip())
    values = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = item.partition("=")
        name = name.strip().upper()
        if not equals or name not in names:
            raise ValueError(f"{key}: {item!r} does not name a listener; there are {', '.join(names)}")
        values[name] = value.strip()
    return values


def parse_mechanisms(text: str, protocols: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Parse `PLAIN,SCRAM-SHA-256` for all SASL listeners, or `NAME=PLAIN+SCRAM-SHA-256,NAME=...`.

    `protocols` has the protocol of each listener. Raises ValueError.
    """
    key = "sasl_enabled_mechanisms"
    names = tuple(name for name, protocol in protocols.items() if protocol in _SASL)
    texts = parse_per_listener(text if "=" in text else text.replace(",", "+"), key, names)
    mechanisms = {}
    for name, listed in texts.items():
        found = tuple(dict.fromkeys(item.strip().upper() for item in listed.split("+") if item.strip()))
        for mechanism in found:
            if mechanism not in MECHANISMS:
                raise ValueError(f"{key}: {mechanism!r} is not supported; use {', '.join(MECHANISMS)}")
        mechanisms[name] = found
    for name in names:
        if not mechanisms.get(name):
            raise ValueError(f"{key}: listener {name} needs at least one of {', '.join(MECHANISMS)}")
    return mechanisms


def parse_client_auth(text: str, protocols: Mapping[str, str]) -> dict[str, str]:
    """Parse `required` for all SSL listeners, or `NAME=required,...`. Raises ValueError.

    As in Kafka, SASL_SSL listeners ask for certificates only where they are named.
    """
    key = "ssl_client_auth"
    found = parse_per_listener(text, key, tuple(name for name in protocols if protocols[name] in _TLS))
    for name, value in found.items():
        if value not in CLIENT_AUTH:
            raise ValueError(f"{key}: {value!r} is not one of {', '.join(CLIENT_AUTH)}")
        if "=" not in text and protocols[name] == SASL_SSL:
            found[name] = "none"
    if not found and "=" not in text and text not in CLIENT_AUTH:
        raise ValueError(f"{key}: {text!r} is not one of {', '.join(CLIENT_AUTH)}")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings:
    """The broker's keys that listeners are made of, as text."""

    listeners: str
    advertised_listeners: str | None
    protocol_map: str
    inter_broker_listener_name: str | None
    certificate_files: str | None
    key_files: str | None
    client_ca_files: str | None
    client_auth: str
    sasl_mechanisms: str


def resolve(settings: ListenerSettings, default_host: str) -> tuple[Listener, ...]:
    """Return the listeners, checked against each other.

    `default_host` is advertised for a listener without a host. Raises ValueError with a text for the user.
    """
    endpoints = parse_endpoints(settings.listeners, "listeners")
    if not endpoints:
        raise ValueError("listeners: at least one listener is needed, for example PLAINTEXT://0.0.0.0:9092")
    names = tuple(endpoint.name for endpoint in endpoints)
    _check_ports(endpoints)
    advertised = _advertised(settings.advertised_listeners, endpoints)
    protocols = parse_protocol_map(settings.protocol_map)
    internal = settings.inter_broker_listener_name
    if internal is not None and internal.upper() not in names:
        raise ValueError(
            f"inter_broker_listener_name: {internal!r} is none of the listeners {', '.join(names)}"
        )
    certificates = parse_per_listener(settings.certificate_files, "ssl_certificate_file", names)
    keys = parse_per_listener(settings.key_files, "ssl_key_file", names)
    authorities = parse_per_listener(settings.client_ca_files, "ssl_client_ca_file", names)
    if internal is not None:
        protocols.setdefault(internal.upper(), PLAINTEXT)
    for name in names:
        if name not in protocols:
            raise ValueError(f"listener_security_protocol_map: no security protocol for listener {name}")
    protocols = {name: protocols[name] for name in names}
    if internal is not None and protocols[internal.upper()] != PLAINTEXT:
        raise ValueError(
            f"listener {internal.upper()} is between brokers, which prove by inter_broker_token_file who they are and do "
            "not encrypt yet: use PLAINTEXT, in a network of their own"
        )
    client_auth = parse_client_auth(settings.client_auth, protocols)
    mechanisms = parse_mechanisms(settings.sasl_mechanisms, protocols)
    result = []
    for endpoint in endpoints:
        name = endpoint.name
        tls = protocols[name] in _TLS
        if tls and not (certificates.get(name) and keys.get(name)):
            raise ValueError(
                f"listener {name} is {protocols[name]}: set ssl_certificate_file and ssl_key_file for it"
            )
        asked = client_auth.get(name, "none")
        if asked != "none" and not authorities.get(name):
            raise ValueError(f"ssl_client_auth={asked}: set ssl_client_ca_file for listener {name}")
        shown = advertised[name]
        result.append(
            Listener(
                name=name,
                host=endpoint.host or "0.0.0.0",  # noqa: S104 - as Kafka: no host means every interface
                port=endpoint.port,
                advertised_host=shown.host or default_host,
                advertised_port=shown.port,
                security_protocol=protocols[name],
                internal=internal is not None and name == internal.upper(),
                certificate_file=certificates.get(name) if tls else None,
                key_file=keys.get(name) if tls else None,
                client_ca_file=authorities.get(name) if tls else None,
                client_auth=asked,
                sasl_mechanisms=mechanisms.get(name, ()),
            )
        )
    if all(listener.internal for listener in result):
        raise ValueError("listeners: the only listener is the one between brokers; clients need one as well")
    return tuple(result)


def _check_ports(endpoints: tuple[Endpoint, ...]) -> None:
    seen: set[tuple[str, int]] = set()
    for endpoint in endpoints:
        address = (endpoint.host, endpoint.port)
        if endpoint.port and address in seen:
            raise ValueError(f"listeners: two listeners use port {endpoint.port}; each must have its own")
        seen.add(address)


def _advertised(text: str | None, endpoints: tuple[Endpoint, ...]) -> Mapping[str, Endpoint]:
    advertised = {endpoint.name: endpoint for endpoint in endpoints}
    for shown in parse_endpoints(text or "", "advertised_listeners"):
        if shown.name not in advertised:
            raise ValueError(
                f"advertised_listeners: {shown.name} is none of the listeners {', '.join(advertised)}"
            )
        advertised[shown.name] = shown
    for shown in advertised.values():
        if shown.host in WILDCARD_HOSTS:
            raise ValueError(
                f"advertised_listeners: clients cannot connect to {shown.host}; say for {shown.name} "
                "which host they should use, for example "
                f"{shown.name}://localhost:{shown.port}"
            )
    return advertised
