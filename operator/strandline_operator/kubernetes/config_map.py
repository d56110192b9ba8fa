"""ConfigMap with the brokers' configuration: what all brokers of a Cluster share, and no secret.

What differs from broker to broker (its id, its name) comes from the pod through the environment, see `stateful_set`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from strandline_broker.cluster.model import Object
from strandline_operator.kubernetes.blueprint import Blueprint
from strandline_operator.kubernetes.listeners import INTERNAL_LISTENER
from strandline_operator.kubernetes.placement import needs_node

CONFIG_FILE: Final = "broker.yaml"
CONFIG_DIRECTORY: Final = "/etc/strandline/config"
TOKEN_DIRECTORY: Final = "/etc/strandline/inter-broker"  # noqa: S105 - a path
TOKEN_KEY: Final = "token"  # noqa: S105 - a name
TLS_DIRECTORY: Final = "/etc/strandline/tls"
PLACEMENT_DIRECTORY: Final = "/etc/strandline/pod"
PLACEMENT_FILE: Final = "placement"
VOLUME_DIRECTORY: Final = "/var/lib/strandline"
TERMINATION_MESSAGE_FILE: Final = "/dev/termination-log"
# How long a stopping broker waits for its leaderships to move.
SHUTDOWN_TIMEOUT_MS: Final = 30_000
PLACEMENT_WAIT_MS: Final = 10_000


def broker_settings(blueprint: Blueprint) -> dict[str, Any]:
    """Return the configuration that all brokers share, under the names of `docs/configuration.md`."""
    listeners = blueprint.listeners
    names = [(listener.name, listener.port, listener.security_protocol) for listener in listeners]
    names.append((INTERNAL_LISTENER, blueprint.internal_port, "PLAINTEXT"))
    settings: dict[str, Any] = {
        "cluster_name": blueprint.name,
        "namespace": blueprint.namespace,
        "store": "kubernetes",
        # Not the root of the volume, where some file systems keep folders of their own.
        "data_dir": f"{VOLUME_DIRECTORY}/data",
        "flush": blueprint.cluster.flush,
        "listeners": ",".join(f"{name}://:{port}" for name, port, _ in names),
        "listener_security_protocol_map": ",".join(f"{name}:{protocol}" for name, _, protocol in names),
        "inter_broker_listener_name": INTERNAL_LISTENER,
        "inter_broker_token_file": f"{TOKEN_DIRECTORY}/{TOKEN_KEY}",
        "http_host": "0.0.0.0",  # noqa: S104 - the kubelet's probes and Prometheus come from outside the pod
        "http_port": blueprint.http_port,
        "shutdown_timeout_ms": SHUTDOWN_TIMEOUT_MS,
        "placement_file": f"{PLACEMENT_DIRECTORY}/{PLACEMENT_FILE}",
        # Long enough for an operator that is there; a broker starts without, too.
        "placement_wait_ms": PLACEMENT_WAIT_MS if needs_node(blueprint) else 0,
        "termination_message_file": TERMINATION_MESSAGE_FILE,
    }
    settings |= _tiering(blueprint.cluster.spec.get("tiering") or {})
    encrypted = [listener for listener in listeners if listener.tls_secret]
    if encrypted:
        for key, file in (("ssl_certificate_file", "tls.crt"), ("ssl_key_file", "tls.key")):
            settings[key] = ",".join(f"{one.name}={TLS_DIRECTORY}/{one.slug}/{file}" for one in encrypted)
    return settings


def _tiering(tiering: Mapping[str, Any]) -> dict[str, str]:
    if not tiering:
        return {}
    prefix = tiering.get("prefix")
    settings = {"tiering_bucket": f"s3://{tiering['bucket']}{f'/{prefix}' if prefix else ''}"}
    for key, name in (("tiering_endpoint_url", "endpointUrl"), ("tiering_region", "region")):
        if tiering.get(name):
            settings[key] = tiering[name]
    return settings


def config_map(blueprint: Blueprint) -> Object:
    """Return the ConfigMap."""
    # A YAML file of scalars that JSON could hold, too: one line per key, strings in quotes.
    lines = [f"{key}: {_scalar(value)}" for key, value in broker_settings(blueprint).items()]
    return blueprint.object(
        "v1", "ConfigMap", blueprint.config_map, data={CONFIG_FILE: "\n".join(lines) + "\n"}
    )


def _scalar(value: object) -> str:
    return json.dumps(value)
